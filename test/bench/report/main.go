// Report shows what make bench measured.
//
//	report FILE...            prints the tables of each result file
//	report -docs DIR FILE...  writes the plots to DIR/bench, and the tables to their place in DIR/BENCHMARKS.md
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// What stands between these two lines of BENCHMARKS.md is written by this program, the rest by people.
const (
	beginMark = "<!-- begin of what make bench-report writes -->"
	endMark   = "<!-- end of what make bench-report writes -->"
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
		return errors.New("no result files; make bench writes them")
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
	var tables bytes.Buffer
	plots := filepath.Join(dir, "bench")
	if err := os.MkdirAll(plots, 0o777); err != nil {
		return err
	}
	for _, r := range results {
		tables.WriteByte('\n')
		r.writeMarkdown(&tables)
		for _, s := range sections() {
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
	tables.WriteByte('\n')
	if text, err = replaceMarked(text, tables.Bytes()); err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, text, 0o666)
}

// replaceMarked puts tables between the marks and keeps all else.
func replaceMarked(text, tables []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(beginMark))
	if !ok {
		return nil, errors.New("no line " + beginMark)
	}
	_, after, ok := bytes.Cut(rest, []byte(endMark))
	if !ok {
		return nil, errors.New("no line " + endMark)
	}
	return bytes.Join([][]byte{before, []byte(beginMark + "\n"), tables, []byte(endMark), after}, nil), nil
}
