package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test, suite and folder that SECURITY.md names exists.
func TestThePromisesNameTestsThatExist(t *testing.T) {
	var goTests, erlangTests strings.Builder
	files := map[string]bool{} // names of test files
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		switch {
		case entry.IsDir() && (name == ".git" || name == "_build" || name == "_tools"):
			return filepath.SkipDir
		case strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, "_SUITE.erl"), strings.HasSuffix(name, "_tests.erl"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[name] = true
			if strings.HasSuffix(name, ".go") {
				goTests.Write(b)
			} else {
				erlangTests.Write(b)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, "SECURITY.md")
	_, page, _ = strings.Cut(page, "\n## Promises\n")
	page, _, _ = strings.Cut(page, "\n## ")
	checked := 0
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 3 || strings.HasPrefix(line, "| promise ") {
			continue
		}
		shown := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[2], -1)
		if len(shown) == 0 {
			t.Errorf("no test is named for %s", cells[0])
		}
		for _, m := range shown {
			name, found := m[1], false
			switch {
			case name == "make fuzz":
				found = true
			case strings.HasPrefix(name, "Test"):
				found = strings.Contains(goTests.String(), "\nfunc "+name+"(")
			case strings.HasSuffix(name, "_test.go"):
				found = files[name]
			case strings.HasSuffix(name, "_SUITE"), strings.HasSuffix(name, "_tests"):
				found = files[name+".erl"]
			case strings.Contains(name, "_"):
				found = strings.Contains(erlangTests.String(), "\n"+name+"(")
			default:
				_, err := os.Stat(filepath.Join(top, name))
				found = err == nil
			}
			if !found {
				t.Errorf("SECURITY.md names %s, which does not exist", name)
			}
			checked++
		}
	}
	if checked < 50 {
		t.Errorf("only %d names were checked", checked)
	}
}
