package docs_test

import (
	"strings"
	"testing"
)

// The settings of the quick start for rebar3 and mix are those of the projects of test/consumers, which are built and run.
func TestTheQuickStartIsThatOfTheConsumers(t *testing.T) {
	page := read(t, "docs/QUICKSTART.md")
	lines := func(from, to string) (lines []string) {
		_, section, ok := strings.Cut(page, from)
		if !ok {
			t.Fatalf("the quick start lacks %q", from)
		}
		section, _, _ = strings.Cut(section, to)
		for line := range strings.Lines(section) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "```") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	for _, block := range []struct{ from, file string }{
		{"%% rebar.config\n", "test/consumers/rebar3/rebar.config"},
		{"## config/vm.args.src\n", "test/consumers/rebar3/config/vm.args.src"},
		{"# mix.exs\n", "test/consumers/mix/mix.exs"},
		{"# rel/vm.args.eex\n", "test/consumers/mix/rel/vm.args.eex"},
		{"# rel/remote.vm.args.eex: for remote, rpc and stop\n", "test/consumers/mix/rel/remote.vm.args.eex"},
		{"# rel/env.sh.eex\n", "test/consumers/mix/rel/env.sh.eex"},
	} {
		squeeze := strings.NewReplacer(" ", "", "\n", "", "URL of this repository", "URL", "v0.1.0", "TAG", "myapp", "consumer", "1.0.0", "VERSION").Replace
		has := squeeze(read(t, block.file))
		shown := lines(block.from, "\n```\n")
		if len(shown) == 0 {
			t.Errorf("nothing is shown of %s", block.file)
		}
		for _, line := range shown {
			if !strings.Contains(has, strings.TrimSuffix(squeeze(line), ".")) {
				t.Errorf("%s has no line %s", block.file, line)
			}
		}
	}
}
