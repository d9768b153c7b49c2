// Package structure_test holds the sources to the floors of the house, and DESIGN.md to the sources.
package structure_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	top    = "../.."
	design = top + "/DESIGN.md"
)

var update = flag.Bool("update", false, "write the pictures and the rooms into DESIGN.md")

// A floor is a name and the rooms that lie on it. A room may use rooms of lower floors, and of its own where that closes no
// circle.
type floor struct {
	name  string
	rooms []string
}

// A house is what one language's sources are made of.
type house struct {
	floors []floor             // from the top
	uses   map[string][]string // which rooms a room uses
}

// floorOf returns the number of each room's floor, counted from the top.
func (h house) floorOf(t *testing.T) map[string]int {
	t.Helper()
	of := map[string]int{}
	for i, f := range h.floors {
		for _, room := range f.rooms {
			if _, twice := of[room]; twice {
				t.Errorf("%s lies on two floors", room)
			}
			if _, exists := h.uses[room]; !exists {
				t.Errorf("%s lies on the floor %q, and does not exist", room, f.name)
			}
			of[room] = i
		}
	}
	for _, room := range slices.Sorted(maps.Keys(h.uses)) {
		if _, ok := of[room]; !ok {
			t.Errorf("%s lies on no floor: give it one in test/structure", room)
		}
	}
	return of
}

// check finds the arrows that lead upwards, and the circles within a floor.
func (h house) check(t *testing.T) {
	t.Helper()
	of := h.floorOf(t)
	for _, room := range slices.Sorted(maps.Keys(h.uses)) {
		for _, used := range h.uses[room] {
			if of[used] < of[room] {
				t.Errorf("%s (%s) uses %s, which lies above it (%s)", room, h.floors[of[room]].name, used, h.floors[of[used]].name)
			}
		}
		if path := h.way(room, room); path != nil {
			t.Errorf("a circle: %s", strings.Join(path, " -> "))
		}
	}
}

// way returns the rooms on a way from one room to another, both included; nil if no arrows lead there.
func (h house) way(from, to string) []string {
	seen := map[string]bool{}
	var walk func(path []string) []string
	walk = func(path []string) []string {
		for _, next := range h.uses[path[len(path)-1]] {
			if next == to {
				return append(path, to)
			}
			if !seen[next] {
				seen[next] = true
				if found := walk(append(slices.Clone(path), next)); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return walk([]string{from})
}

// picture is the house as a flowchart of Mermaid: a floor is a frame. An arrow that another way already shows is left out.
func (h house) picture() string {
	var out strings.Builder
	out.WriteString("```mermaid\nflowchart TB\n")
	id := func(room string) string { return strings.NewReplacer("/", "_", ".", "_").Replace(room) }
	for i, f := range h.floors {
		fmt.Fprintf(&out, "  subgraph floor%d [\"%s\"]\n    direction LR\n", i, f.name)
		for _, room := range f.rooms {
			fmt.Fprintf(&out, "    %s[\"%s\"]\n", id(room), strings.TrimPrefix(room, "internal/"))
		}
		out.WriteString("  end\n")
	}
	for _, room := range slices.Sorted(maps.Keys(h.uses)) {
		var direct []string
		for _, used := range h.uses[room] {
			longer := slices.ContainsFunc(h.uses[room], func(other string) bool {
				return other != used && h.way(other, used) != nil
			})
			if !longer {
				direct = append(direct, id(used))
			}
		}
		if len(direct) > 0 {
			fmt.Fprintf(&out, "  %s --> %s\n", id(room), strings.Join(direct, " & "))
		}
	}
	out.WriteString("```\n")
	return out.String()
}

// table says of each room what it is for.
func (h house) table(purpose map[string]string) string {
	var out strings.Builder
	out.WriteString("| floor | room | what for |\n|---|---|---|\n")
	for _, f := range h.floors {
		name := f.name
		for _, room := range f.rooms {
			fmt.Fprintf(&out, "| %s | `%s` | %s |\n", name, room, purpose[room])
			name = ""
		}
	}
	return out.String()
}

// inDesign compares a generated part of DESIGN.md with what it should be, or writes it.
func inDesign(t *testing.T, part, want string) {
	t.Helper()
	text, err := os.ReadFile(design)
	if err != nil {
		t.Fatal(err)
	}
	from := fmt.Appendf(nil, "<!-- begin: %s, by go test ./test/structure -update -->\n", part)
	to := fmt.Appendf(nil, "<!-- end: %s -->\n", part)
	_, rest, found := bytes.Cut(text, from)
	got, _, ended := bytes.Cut(rest, to)
	if !found || !ended {
		t.Fatalf("DESIGN.md lacks the marks of its part %q: %s", part, from)
	}
	if string(got) == want {
		return
	}
	if !*update {
		t.Fatalf("%q in DESIGN.md is not what the sources are: go test ./test/structure -update", part)
	}
	changed := bytes.Replace(text, slices.Concat(from, got, to), slices.Concat(from, []byte(want), to), 1)
	if err := os.WriteFile(design, changed, 0o644); err != nil {
		t.Fatal(err)
	}
}
