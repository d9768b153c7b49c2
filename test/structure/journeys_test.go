package structure_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Each file that DESIGN.md names in its journeys exists, and has the function that stands behind its name.
func TestJourneys(t *testing.T) {
	text, err := os.ReadFile(design)
	if err != nil {
		t.Fatal(err)
	}
	steps := regexp.MustCompile("`([a-z_/0-9]+/[a-z_0-9]+\\.(?:go|erl))(?:: (\\w+))?`").FindAllSubmatch(text, -1)
	if len(steps) < 30 {
		t.Fatalf("%d files are named", len(steps))
	}
	for _, step := range steps {
		file, function := string(step[1]), string(step[2])
		source, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Error(err)
		} else if !regexp.MustCompile(`(?m)^(?:func (?:\([^)]*\) )?)?` + function + `\b`).Match(source) {
			t.Errorf("%s has no function %s", file, function)
		}
	}
}
