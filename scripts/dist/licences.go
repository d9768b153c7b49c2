package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// licences says where licences are.
type licences struct {
	root    string            // ours
	goroot  string            // Go's
	modules map[string]string // "PATH VERSION": folder
}

// findLicences asks the go command about the module at root.
func findLicences(root string) (*licences, error) {
	goroot, err := goCommand(root, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	list, err := goCommand(root, "list", "-m", "-json", "all")
	if err != nil {
		return nil, err
	}
	l := &licences{root: root, goroot: strings.TrimSpace(string(goroot)), modules: map[string]string{}}
	for d := json.NewDecoder(bytes.NewReader(list)); d.More(); {
		var m struct{ Path, Version, Dir string }
		if err := d.Decode(&m); err != nil {
			return nil, err
		}
		l.modules[m.Path+" "+m.Version] = m.Dir
	}
	return l, nil
}

func goCommand(dir string, args ...string) ([]byte, error) {
	c := exec.Command("go", args...)
	c.Dir = dir
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s in %s: %w", strings.Join(args, " "), dir, err)
	}
	return out, nil
}

// of is our licence, Go's, and those of the modules that are linked in: most of them ask for that.
func (l *licences) of(p *product) ([]byte, error) {
	var b bytes.Buffer
	err := errors.Join(
		add(&b, "quicdistd "+p.version, l.root),
		add(&b, p.info.GoVersion, l.goroot),
	)
	for _, m := range p.info.Deps {
		key := m.Path + " " + m.Version
		err = errors.Join(err, add(&b, key, l.modules[key]))
	}
	return b.Bytes(), err
}

func add(b *bytes.Buffer, what, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "LICENSE*"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s is linked in, and there is no LICENSE of it in the folder %q", what, dir)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "==== %s: %s\n\n%s\n", what, filepath.Base(file), text)
	}
	return nil
}
