// Package printed finds the code blocks of a Markdown page and what their marks say. A mark is an HTML comment on the
// lines before the block, which readers do not see:
//
//	<!-- run -->                the block is a session in a terminal; test/printed types it and compares what it shows
//	<!-- run with PROGRAM -->   the same, where PROGRAM is installed; make consumers installs it
//	<!-- file: PATH -->         the block is the content of that file, for the sessions that follow
//	<!-- tested by: PATH -->    that test uses the block
//	<!-- not run: REASON -->    nothing can run it here
//
// Further lines of a mark are typed before the block, or when the file is written, and are not printed.
package printed

import (
	"fmt"
	"regexp"
	"strings"
)

// A Kind says what is done with a block.
type Kind string

// The kinds of marks. A block without a mark has the kind None.
const (
	None     Kind = ""
	Run      Kind = "run"
	File     Kind = "file"
	TestedBy Kind = "tested by"
	NotRun   Kind = "not run"
)

// A Block is a fenced block of code.
type Block struct {
	Line    int    // of the opening fence, from 1
	Info    string // behind the opening fence
	Section string // the heading of the second level above it
	Text    string
	Kind    Kind
	About   string   // the program, path or reason of the mark
	First   []string // the further lines of the mark
}

var mark = regexp.MustCompile(`^(run)(?: with (\S+))?$|^(file|tested by|not run): (.+)$`)

// Blocks returns the blocks of a page in their order. A comment that stands before a block and is no mark is an error,
// and so is a block that does not end.
func Blocks(page string) ([]Block, error) {
	var (
		blocks  []Block
		section string
		comment []string // the comment that stands directly before this line
	)
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "<!--"):
			end := i
			for end < len(lines) && !strings.HasSuffix(lines[end], "-->") {
				end++
			}
			if end == len(lines) {
				return nil, fmt.Errorf("line %d: the comment does not end", i+1)
			}
			text := strings.Join(lines[i:end+1], "\n")
			comment = strings.Split(strings.TrimSpace(text[len("<!--"):len(text)-len("-->")]), "\n")
			i = end
			continue
		case strings.HasPrefix(line, "```"):
			b := Block{Line: i + 1, Info: strings.TrimLeft(line, "`"), Section: section}
			fence := line[:len(line)-len(b.Info)]
			end := i + 1
			for end < len(lines) && lines[end] != fence {
				end++
			}
			if end == len(lines) {
				return nil, fmt.Errorf("line %d: the block does not end", i+1)
			}
			b.Text = strings.Join(lines[i+1:end], "\n") + "\n"
			if comment != nil {
				m := mark.FindStringSubmatch(comment[0])
				if m == nil {
					return nil, fmt.Errorf("line %d: %q is no mark", i+1, comment[0])
				}
				b.Kind, b.About, b.First = Kind(m[1]+m[3]), m[2]+m[4], comment[1:]
			}
			blocks = append(blocks, b)
			i = end
		case strings.HasPrefix(line, "## "):
			section = line[len("## "):]
		}
		comment = nil
	}
	return blocks, nil
}
