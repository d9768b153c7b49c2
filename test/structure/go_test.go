package structure_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The packages of the executable. What lies in the same floor does not know of each other, but for what is said here.
var goFloors = []floor{
	{"the executable", []string{"cmd/quicdistd"}},
	{"conversations", []string{"internal/session", "internal/cli"}},
	{"services", []string{"internal/dataplane", "internal/webdist", "internal/discovery", "internal/status", "internal/cli/cert"}},
	{"the product", []string{"portproto", "streams"}},
	{"parts", []string{"internal/lanes", "internal/identity", "internal/cookie", "internal/portshare"}},
	{"what Erlang speaks", []string{"internal/erlang/node", "internal/erlang/term", "internal/erlang/etf", "internal/erlang/signals",
		"internal/erlang/epmd", "internal/erlang/nodename"}},
	{"ground", []string{"internal/hosts", "internal/udpsize", "internal/unixsock", "internal/serve", "internal/latest", "internal/tasks", "internal/mux",
		"internal/cli/command", "internal/fault"}},
}

// onlyFor names the rooms that few may use, whatever their floor.
var onlyFor = map[string][]string{
	"internal/session": {"cmd/quicdistd"},
	"portproto":        {"cmd/quicdistd", "internal/session", "internal/dataplane"},
	"streams":          {"internal/session", "internal/dataplane", "internal/cli", "internal/cli/cert", "internal/status"},
}

// standardOnly are rooms that use the standard library and rooms of this house, and nothing else.
var standardOnly = regexp.MustCompile(`^(portproto|internal/(lanes|hosts|erlang/.*))$`)

// ofTests are the packages that are in no executable.
var ofTests = regexp.MustCompile(`^internal/(test.*|printed)$`)

// packageIs is how a package comment begins.
var packageIs = regexp.MustCompile(`^Package \w+ `)

type goPackage struct {
	ImportPath string
	Doc        string // the first sentence of the package comment
	Imports    []string
}

const module = "quic_dist/"

func goPackages(t *testing.T) (packages []goPackage) {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", "./cmd/...", "./portproto", "./streams", "./internal/...")
	list.Dir = top
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		if !ofTests.MatchString(p.ImportPath) {
			packages = append(packages, p)
		}
	}
}

// No package uses one above it, and DESIGN.md shows them as they are.
func TestPackages(t *testing.T) {
	h := house{goFloors, map[string][]string{}}
	purpose := map[string]string{}
	for _, p := range goPackages(t) {
		h.uses[p.ImportPath] = nil
		for _, imported := range p.Imports {
			if room, ours := strings.CutPrefix(imported, module); ours {
				h.uses[p.ImportPath] = append(h.uses[p.ImportPath], room)
				if few, limited := onlyFor[room]; limited && !slices.Contains(few, p.ImportPath) {
					t.Errorf("%s uses %s, which is for %q only", p.ImportPath, room, few)
				}
			} else if host, _, _ := strings.Cut(imported, "/"); strings.Contains(host, ".") && standardOnly.MatchString(p.ImportPath) {
				t.Errorf("%s uses %s: it must do with the standard library", p.ImportPath, imported)
			}
		}
		purpose[p.ImportPath] = packageIs.ReplaceAllString(p.Doc, "")
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
	h.check(t)
	inDesign(t, "packages", h.picture())
	inDesign(t, "rooms", h.table(purpose))
}
