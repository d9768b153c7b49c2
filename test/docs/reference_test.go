package docs_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"quic_dist/internal/cli"
)

var update = flag.Bool("update", false, "write what is generated into the documents")

const (
	generatedFrom = "<!-- begin of what go test ./test/docs -update writes -->\n"
	generatedTo   = "<!-- end of what go test ./test/docs -update writes -->\n"
)

// The reference of commands has for each of them what -h says of it, and says once what several of them say: their
// common flags, the exit statuses (a table of the page) and -h itself.
func TestTheReferenceOfCommandsIsTheirHelp(t *testing.T) {
	common := sharedFlags(t, "call", "doctor", "ping")
	var b strings.Builder
	var commands func(path ...string)
	commands = func(path ...string) {
		said := help(t, path)
		name := strings.Join(append([]string{"quicdistd"}, path...), " ")
		about, flags, _ := strings.Cut(said, "\nFlags:\n")
		own, shares := ownFlags(flags, common)
		if bare := strings.HasSuffix(about, "\nUsage:\n  "+name+" [flags]\n") && len(own) == 0; !bare {
			b.WriteString("\n### " + name + "\n\n```text\n" + exitStatus.ReplaceAllString(about, "\n"))
			if len(own) > 0 {
				b.WriteString("\nFlags:\n" + columns(own))
			}
			b.WriteString("```\n")
			if shares {
				b.WriteString("\nAnd [the common flags](#common-flags).\n")
			}
		} // else all of it is its line in the list of its parent
		_, list, _ := strings.Cut(said, "Available Commands:\n")
		for line := range strings.Lines(list) {
			if strings.TrimSpace(line) == "" {
				break
			}
			commands(append(slices.Clone(path), strings.Fields(line)[0])...)
		}
	}
	commands()
	b.WriteString("\n### Common flags\n\nOf `call`, `doctor` and `ping`:\n\n```text\n" + columns(common) + "```\n")
	want := generatedFrom + b.String() + "\n" + generatedTo
	const file = "docs/COMMANDS.md"
	page := read(t, file)
	from, to := strings.Index(page, generatedFrom), strings.Index(page, generatedTo)
	if from < 0 || to < from {
		t.Fatalf("%s lacks the marks %q and %q", file, generatedFrom, generatedTo)
	}
	to += len(generatedTo)
	if page[from:to] == want {
		return
	}
	if *update {
		if err := os.WriteFile(filepath.Join(top, file), []byte(page[:from]+want+page[to:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s differs from what the commands say: go test ./test/docs -update", file)
}

var (
	exitStatus = regexp.MustCompile(`(?s)\nExit status: .*?\n\n`)
	padding    = regexp.MustCompile(`(--\S+(?: \S+)?)  +`)
)

const gap = "\t" // between a flag and its text

// flagLines are the flags of a help text, without -h.
func flagLines(flags string) (lines []string) {
	for line := range strings.Lines(flags) {
		if !strings.HasPrefix(line, "  ") {
			break
		}
		if !strings.Contains(line, "-h, --help") {
			lines = append(lines, padding.ReplaceAllString(line, "$1"+gap))
		}
	}
	return lines
}

func sharedFlags(t *testing.T, names ...string) (common []string) {
	t.Helper()
	for i, name := range names {
		_, flags, _ := strings.Cut(help(t, []string{name}), "\nFlags:\n")
		lines := flagLines(flags)
		if i > 0 {
			lines = slices.DeleteFunc(common, func(line string) bool { return !slices.Contains(lines, line) })
		}
		common = lines
	}
	if len(common) < 10 {
		t.Fatalf("%q have only the flags %q in common", names, common)
	}
	return common
}

// ownFlags are those that a command has beside the common ones, if it has all of these; else all it has.
func ownFlags(flags string, common []string) (own []string, shares bool) {
	own = flagLines(flags)
	shares = !slices.ContainsFunc(common, func(line string) bool { return !slices.Contains(own, line) })
	if shares {
		own = slices.DeleteFunc(own, func(line string) bool { return slices.Contains(common, line) })
	}
	return own, shares
}

// columns are the lines of flags with their texts below each other.
func columns(lines []string) string {
	width := 0
	for _, line := range lines {
		width = max(width, strings.Index(line, gap))
	}
	var b strings.Builder
	for _, line := range lines {
		flag, says, _ := strings.Cut(line, gap)
		b.WriteString(flag + strings.Repeat(" ", width-len(flag)+3) + says)
	}
	return b.String()
}

func help(t *testing.T, path []string) string {
	t.Helper()
	var out, errs bytes.Buffer
	status := cli.Main(context.Background(), cli.Config{
		Args: append(slices.Clone(path), "-h"), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(string) string { return "" }, Build: "VERSION",
	})
	if status != 0 || errs.Len() > 0 {
		t.Fatalf("%s -h: status %d, %s", strings.Join(path, " "), status, errs.String())
	}
	return regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAllString(out.String(), "")
}

// rows are the first cells' code words in the table below a heading.
func rows(t *testing.T, page, heading string) (names []string) {
	t.Helper()
	_, section, ok := strings.Cut(page, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no section %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^` ]+)").FindAllStringSubmatch(section, -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		t.Fatalf("the section %s has no table", heading)
	}
	slices.Sort(names)
	return names
}

// What users set in the environment is read, and what is read is in the reference.
func TestTheReferenceOfTheEnvironment(t *testing.T) {
	const cookie = "cookieVariable"
	goRead := regexp.MustCompile(`[gG]etenv\(("[A-Z_]+"|` + cookie + `)\)`)
	erlangRead := regexp.MustCompile(`(?:getenv|env)\("([A-Za-z_]+)"\)|"(https?_proxy|HTTPS?_PROXY)"`)
	var found []string
	sources(t, func(file string) {
		text := read(t, file)
		if strings.HasPrefix(text, "//go:build lanedelay") {
			return // for the tests of the order of signals
		}
		re := goRead
		if !strings.HasSuffix(file, ".go") {
			re = erlangRead
		}
		for _, m := range re.FindAllStringSubmatch(text, -1) {
			name := strings.Trim(strings.Join(m[1:], ""), `"`)
			if name == cookie {
				name = regexp.MustCompile(cookie + ` *= *"([A-Z_]+)"`).FindStringSubmatch(text)[1]
			}
			found = append(found, name)
		}
	}, ".go", ".erl", ".escript")
	slices.Sort(found)
	found = slices.Compact(found)
	if want := rows(t, read(t, "docs/OPTIONS.md"), "## Environment"); !slices.Equal(found, want) {
		t.Errorf("read:       %q\ndocumented: %q", found, want)
	}
}

// Each boot flag that is read stands in the reference, ours in the table and OTP's below it.
func TestTheReferenceOfBootFlags(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "docs/OPTIONS.md"), "\n## Boot flags\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented, found []string
	for _, m := range regexp.MustCompile("`-([a-z_]+)").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	for _, file := range glob(t, "erlang/src/*.erl") {
		for _, m := range regexp.MustCompile(`(?:init:get_argument|quic_dist_source:(?:boot_flags|option_files))\(([a-z_]+)\)`).FindAllStringSubmatch(read(t, file), -1) {
			found = append(found, m[1])
		}
	}
	for _, names := range []*[]string{&documented, &found} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	if !slices.Equal(found, documented) {
		t.Errorf("read:       %q\ndocumented: %q", found, documented)
	}
}

// The events that are documented are those that there are.
func TestTheReferenceOfEvents(t *testing.T) {
	_, declared, ok := strings.Cut(read(t, "erlang/src/quic_dist_events.erl"), "-type kind() ::\n")
	if !ok {
		t.Fatal("quic_dist_events.erl has no type kind()")
	}
	declared, _, _ = strings.Cut(declared, ".\n")
	kinds := regexp.MustCompile(`[a-z_]+`).FindAllString(declared, -1)
	_, section, _ := strings.Cut(read(t, "docs/INSIDE.md"), "\n## Events\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			documented = append(documented, m[1])
		}
	}
	slices.Sort(kinds)
	slices.Sort(documented)
	if len(kinds) == 0 || !slices.Equal(kinds, documented) {
		t.Errorf("there are:  %q\ndocumented: %q", kinds, documented)
	}
}
