package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quic_dist/internal/printed"
)

// Each block of code that README.md and docs/ print has a mark that says how it is run, or why it is not.
func TestEachBlockHasAMark(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[printed.Kind]int{}
	for _, file := range append(pages, filepath.Join(top, "README.md")) {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := printed.Blocks(string(page))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, b := range blocks {
			kinds[b.Kind]++
			switch {
			case b.Kind == printed.None && b.Info != "text": // text is what commands say of themselves
				t.Errorf("%s:%d: the block has no mark; internal/printed has the list of them", file, b.Line)
			case b.Kind == printed.TestedBy:
				if test, err := os.ReadFile(filepath.Join(top, b.About)); err != nil {
					t.Errorf("%s:%d: %v", file, b.Line, err)
				} else if !strings.Contains(string(test), filepath.Base(file)) {
					t.Errorf("%s:%d: %s does not name that page", file, b.Line, b.About)
				}
			}
		}
	}
	if kinds[printed.Run] < 20 {
		t.Errorf("blocks by kind: %v", kinds)
	}
}
