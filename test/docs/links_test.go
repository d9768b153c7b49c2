package docs_test

import (
	"html"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fence    = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan = regexp.MustCompile("`+[^`\n]*`+")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	notWord  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are those that a code host makes of a page's headings.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		words := link.ReplaceAllString(strings.ReplaceAll(m[1], "[", ""), "")
		found[strings.ReplaceAll(notWord.ReplaceAllString(strings.ToLower(strings.ReplaceAll(words, "`", "")), ""), " ",
			"-")] = true
	}
	return found
}

// Each link of a Markdown file to another file, or to a heading, leads there.
func TestLinksBetweenDocuments(t *testing.T) {
	pages := map[string]string{}
	sources(t, func(file string) { pages[file] = read(t, file) }, ".md")
	links := 0
	for file, page := range pages {
		prose := codeSpan.ReplaceAllString(fence.ReplaceAllString(page, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if target.IsAbs() {
				continue
			}
			links++
			to := file
			if target.Path != "" {
				to = path.Join(path.Dir(file), target.Path)
			}
			if _, err := os.Stat(filepath.Join(top, to)); err != nil {
				t.Errorf("%s: the link %s leads to no file", file, m[1])
			} else if target.Fragment != "" && !anchors(pages[to])[target.Fragment] {
				t.Errorf("%s: %s has no heading for the link %s", file, to, m[1])
			}
		}
	}
	if len(pages) < 20 || links < 50 {
		t.Errorf("%d links in %d documents", links, len(pages))
	}
}

// Every document is in the site's table of contents.
func TestTheSiteHasAllDocuments(t *testing.T) {
	contents := read(t, "mkdocs.yml")
	sources(t, func(file string) {
		if !strings.Contains(contents, ": "+file+"\n") {
			t.Errorf("mkdocs.yml lacks %s", file)
		}
	}, ".md")
}

var (
	attribute = regexp.MustCompile(`(?i)<[^>]+?\s(href|src)="([^"]*)"`)
	anchor    = regexp.MustCompile(`(?i)\s(?:id|name)="([^"]*)"`)
	styleURL  = regexp.MustCompile(`url\(["']?([^"')]+)["']?\)`)
)

// In what make docs has built each link leads somewhere, to the anchor that it names, and no page needs anything from
// elsewhere.
func TestTheSite(t *testing.T) {
	site := os.Getenv("QUIC_DIST_SITE")
	if site == "" {
		t.Skip("make docs sets QUIC_DIST_SITE to what it has built")
	}
	pages := map[string]string{}
	err := filepath.WalkDir(site, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(site, file)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		pages[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	links, names := 0, map[string]map[string]bool{}
	for file, page := range pages {
		names[file] = map[string]bool{}
		for _, m := range anchor.FindAllStringSubmatch(page, -1) {
			names[file][html.UnescapeString(m[1])] = true
		}
	}
	for file, page := range pages {
		if strings.HasSuffix(file, ".css") {
			for _, m := range styleURL.FindAllStringSubmatch(page, -1) {
				if strings.Contains(m[1], "//") {
					t.Errorf("%s wants %s", file, m[1])
				}
			}
		}
		// which a web server has for every path, with links from the top
		if !strings.HasSuffix(file, ".html") || file == "404.html" {
			continue
		}
		for _, m := range attribute.FindAllStringSubmatch(page, -1) {
			what := html.UnescapeString(m[2])
			target, err := url.Parse(what)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if target.Scheme != "" || target.Host != "" {
				if target.Scheme != "data" && (strings.EqualFold(m[1], "src") ||
					strings.HasPrefix(strings.ToLower(m[0]), "<link")) {
					t.Errorf("%s needs %s", file, what)
				}
				continue
			}
			links++
			to := file
			if target.Path != "" {
				to = path.Join(path.Dir(file), target.Path)
			}
			if to == "." || strings.HasSuffix(target.Path, "/") {
				to = path.Join(to, "index.html")
			}
			if _, ok := pages[to]; !ok {
				t.Errorf("%s: %s leads to no file", file, what)
			} else if target.Fragment != "" && target.Fragment != "search" && !names[to][target.Fragment] {
				t.Errorf("%s: %s has no anchor for %s", file, to, what)
			}
		}
	}
	if links < 1000 {
		t.Errorf("%d links", links)
	}
}
