package docs_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const top = "../.."

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A text is a string of the sources that people may read: its fixed words, in pieces, between which it has a value.
type text struct {
	where  string // file:line
	pieces []string
	log    bool // it is the text of a line at the level warning or error
}

// goTexts are the string constants in the functions of a package, those of comments on options and of struct tags left
// out.
func goTexts(t *testing.T, dir string) (texts []text, unknown []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := func(n ast.Node) string {
			p := set.Position(n.Pos())
			return filepath.ToSlash(filepath.Join(dir, filepath.Base(p.Filename))) + ":" + strconv.Itoa(p.Line)
		}
		var visit func(n ast.Node) bool
		visit = func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ImportSpec, *ast.StructType:
				return false
			case *ast.CallExpr:
				if !isLog(n) {
					return true
				}
				pieces := fold(n.Args[0])
				if words(strings.Join(pieces, "")) == 0 {
					unknown = append(unknown, at(n))
				} else {
					texts = append(texts, text{at(n), pieces, true})
				}
				for _, arg := range n.Args[1:] {
					ast.Inspect(arg, visit)
				}
				return false
			case *ast.BinaryExpr, *ast.BasicLit:
				if pieces := fold(n.(ast.Expr)); len(pieces) > 0 {
					texts = append(texts, text{at(n), pieces, false})
					return false
				}
			}
			return true
		}
		ast.Inspect(parsed, visit)
	}
	return texts, unknown
}

// isLog is whether a call writes a line at the level warning or error: log.Warn(...), x.Log.Error(...).
func isLog(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || (f.Sel.Name != "Warn" && f.Sel.Name != "Error") || len(call.Args) == 0 {
		return false
	}
	switch x := f.X.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	case *ast.CallExpr:
		name, ok := x.Fun.(*ast.Ident)
		return ok && name.Name == "log"
	}
	return false
}

// fold is a sum of strings in pieces: where it is not constant, and at each verb, a new one begins.
func fold(e ast.Expr) []string {
	var parts strings.Builder
	var add func(e ast.Expr)
	add = func(e ast.Expr) {
		switch e := e.(type) {
		case *ast.ParenExpr:
			add(e.X)
			return
		case *ast.BinaryExpr:
			if e.Op == token.ADD {
				add(e.X)
				add(e.Y)
				return
			}
		case *ast.BasicLit:
			if e.Kind == token.STRING {
				parts.WriteString(constant.StringVal(constant.MakeFromLiteral(e.Value, e.Kind, 0)))
				return
			}
		}
		parts.WriteByte(0)
	}
	add(e)
	percent := strings.ReplaceAll(parts.String(), "%%", "\x01")
	return split(strings.ReplaceAll(goVerb.ReplaceAllString(percent, "\x00"), "\x01", "%"))
}

var (
	goVerb     = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?(\[[0-9]+\])?[a-zA-Z]`)
	erlangVerb = regexp.MustCompile(`~[0-9]*(\.[0-9]+)*[a-zA-Z]+?[pswtWPB]*`)
	spaces     = regexp.MustCompile(`\s+`)
	word       = regexp.MustCompile(`[A-Za-z][a-z]+`)
)

func words(s string) int { return len(word.FindAllString(s, -1)) }

func split(s string) (pieces []string) {
	for piece := range strings.SplitSeq(s, "\x00") {
		if piece = strings.TrimSpace(spaces.ReplaceAllString(piece, " ")); word.MatchString(piece) {
			pieces = append(pieces, piece)
		}
	}
	return pieces
}

// erlangTexts are the strings of a file; neighbours are one, as for the compiler.
func erlangTexts(t *testing.T, file string) (texts []text) {
	t.Helper()
	source := read(t, file)
	line, from := 1, 0
	var current strings.Builder
	open := false
	logs := regexp.MustCompile(`log\(\s*((sidecar|link|security),\s*)?(warning|error),\s*(\[|<<)?\s*$`)
	log := false
	end := func() {
		if open {
			s := erlangVerb.ReplaceAllString(strings.ReplaceAll(current.String(), "~n", " "), "\x00")
			texts = append(texts, text{file + ":" + strconv.Itoa(from), split(s), log})
		}
		current.Reset()
		open = false
	}
	for i := 0; i < len(source); i++ {
		switch c := source[i]; c {
		case '\n':
			line++
		case ' ':
		case ',': // of a list that makes one text
			if !strings.HasSuffix(current.String(), " ") {
				end()
			}
		case '%':
			for i+1 < len(source) && source[i+1] != '\n' {
				i++
			}
		case '$':
			end()
			if i++; i < len(source) && source[i] == '\\' {
				i++
			}
		case '\'':
			end()
			for i++; i < len(source) && source[i] != '\''; i++ {
				if source[i] == '\\' {
					i++
				}
			}
		case '"':
			if !open {
				open, from = true, line
				log = logs.MatchString(source[max(0, i-120):i])
			}
			for i++; i < len(source) && source[i] != '"'; i++ {
				if source[i] == '\n' {
					line++
				}
				c := source[i]
				if c == '\\' {
					if i++; source[i] == 'n' {
						c = ' '
					} else {
						c = source[i]
					}
				}
				current.WriteByte(c)
			}
		default:
			end()
		}
	}
	end()
	return texts
}

func glob(t *testing.T, pattern string) (files []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(top, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(found), err)
	}
	for _, file := range found {
		rel, err := filepath.Rel(top, file)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.ToSlash(rel))
	}
	return files
}

// sources calls f with each file of the repository that has one of the suffixes, tests and what is built left out.
func sources(t *testing.T, f func(file string), suffixes ...string) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			switch rel {
			case ".git", "_build", "_tools", "erlang/test", "erlang/priv", "priv":
				return filepath.SkipDir
			}
			if ofTests.MatchString(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		for _, suffix := range suffixes {
			if strings.HasSuffix(rel, suffix) && !strings.HasSuffix(rel, "_test.go") {
				f(rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
