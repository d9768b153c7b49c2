// Report shows what make bench and make wan measured.
//
//	report FILE...            prints the tables of each result file
//	report -docs DIR FILE...  writes the plots to DIR/bench, and the tables to their places in DIR/BENCHMARKS.md
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// A part of BENCHMARKS.md is written by this program, between two lines that stay; the rest is written by people.
type part struct {
	begin, end string
	heading    string // the level of its headings
}

var (
	loopbackPart = part{"<!-- begin of what make bench-report writes -->", "<!-- end of what make bench-report writes -->",
		"##"}
	wanPart = part{"<!-- begin of what make bench-report writes of links -->",
		"<!-- end of what make bench-report writes of links -->", "###"}
)

func main() {
	docs := flag.String("docs", "", "the folder of BENCHMARKS.md")
	flag.Parse()
	if err := run(*docs, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(docs string, files []string) error {
	if len(files) == 0 {
		return errors.New("no result files; make bench and make wan write them")
	}
	var results []*result
	for _, file := range files {
		r, err := read(file)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if docs != "" {
		return writeDocs(docs, results)
	}
	for _, r := range results {
		r.writeText(os.Stdout)
	}
	return nil
}

func writeDocs(dir string, results []*result) error {
	page := filepath.Join(dir, "BENCHMARKS.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	plots := filepath.Join(dir, "bench")
	if err := os.MkdirAll(plots, 0o777); err != nil {
		return err
	}
	tables := make(map[part]*bytes.Buffer)
	for _, r := range results {
		p := loopbackPart
		if r.Links != nil {
			p = wanPart
		}
		if tables[p] == nil {
			tables[p] = new(bytes.Buffer)
		}
		tables[p].WriteByte('\n')
		r.writeMarkdown(tables[p], p.heading)
		for _, s := range r.forPage() {
			for _, k := range s.plots {
				if !k.has(r) {
					continue
				}
				if err := k.save(plots, r); err != nil {
					return err
				}
			}
		}
	}
	for p, t := range tables {
		t.WriteByte('\n')
		if text, err = p.replace(text, t.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	return os.WriteFile(page, text, 0o666)
}

// replace puts tables between the part's two lines and keeps all else.
func (p part) replace(text, tables []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(p.begin))
	if !ok {
		return nil, errors.New("no line " + p.begin)
	}
	_, after, ok := bytes.Cut(rest, []byte(p.end))
	if !ok {
		return nil, errors.New("no line " + p.end)
	}
	return bytes.Join([][]byte{before, []byte(p.begin + "\n"), tables, []byte(p.end), after}, nil), nil
}
