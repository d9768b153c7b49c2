package printed

import (
	"reflect"
	"testing"
)

// Blocks finds each block with its section, its mark and what is typed first.
func TestBlocks(t *testing.T) {
	const page = "# Page\n```\nnone\n```\n## One\n<!-- run -->\n```\n$ a\n```\n<!-- run with mix\n$ first\n-->\n```elixir\nb\n\n```\n" +
		"## Two\n<!-- file: x/y -->\n```\nc\n```\n<!-- not run: no reason -->\n```\nd\n```\n<!-- a remark -->\n\n```\ne\n```\n"
	want := []Block{
		{Line: 2, Text: "none\n"},
		{Line: 7, Section: "One", Text: "$ a\n", Kind: Run, First: []string{}},
		{Line: 13, Section: "One", Info: "elixir", Text: "b\n\n", Kind: Run, About: "mix", First: []string{"$ first"}},
		{Line: 19, Section: "Two", Text: "c\n", Kind: File, About: "x/y", First: []string{}},
		{Line: 23, Section: "Two", Text: "d\n", Kind: NotRun, About: "no reason", First: []string{}},
		{Line: 28, Section: "Two", Text: "e\n"},
	}
	got, err := Blocks(page)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What cannot be read as blocks and marks is an error.
func TestBlocksThatAreWrong(t *testing.T) {
	for _, page := range []string{"```\nno end\n", "<!-- no end\n", "<!-- ran -->\n```\n```\n",
		"<!-- not run -->\n```\n```\n"} {
		if blocks, err := Blocks(page); err == nil {
			t.Errorf("%q gives %+v", page, blocks)
		}
	}
}
