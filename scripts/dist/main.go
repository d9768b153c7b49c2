// Dist packs what make dist has built.
//
//	dist -version VERSION -root FOLDER -out FOLDER EXECUTABLE...
//
// For each executable it writes quicdistd-VERSION-OS-ARCH.tar.gz, with the licences of all that is linked into it, and
// a bill of materials beside it, quicdistd-VERSION-OS-ARCH.cdx.json; then SHA256SUMS of them all. What system an
// executable is for, and what is in it, its own build information says. The same executables give the same files: no
// time, no user, no order of a folder gets in.
//
// A module of its own, so that users of ours never see the library for bills of materials.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
)

func main() {
	version := flag.String("version", "", "the library's version")
	root := flag.String("root", ".", "the folder of go.mod")
	out := flag.String("out", "", "where the files go")
	flag.Parse()
	if err := run(*version, *root, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func run(version, root, out string, files []string) error {
	if version == "" || out == "" || len(files) == 0 {
		return errors.New("usage: dist -version VERSION -root FOLDER -out FOLDER EXECUTABLES")
	}
	licences, err := findLicences(root)
	if err != nil {
		return err
	}
	written := map[string][]byte{}
	for _, file := range files {
		p, err := read(file, version)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		notices, err := licences.of(p)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if written[p.name()+".tar.gz"], err = p.archive(notices); err != nil {
			return err
		}
		if written[p.name()+".cdx.json"], err = p.bill(); err != nil {
			return err
		}
	}
	written["SHA256SUMS"] = sums(written)
	for name, content := range written {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sums is what sha256sum prints of the files, in the order of their names.
func sums(files map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s  %s\n", sum(files[name]), name)
	}
	return b.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// A product is one executable.
type product struct {
	version  string
	os, arch string
	content  []byte
	info     *debug.BuildInfo
}

func (p *product) name() string {
	return fmt.Sprintf("quicdistd-%s-%s-%s", p.version, p.os, p.arch)
}

func (p *product) file() string {
	if p.os == "windows" {
		return "quicdistd.exe"
	}
	return "quicdistd"
}

// read takes only an executable that can be built again from the same sources, byte by byte, and that runs on any
// system of its kind.
func read(file, version string) (*product, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	p := &product{version: version, content: content, info: info, os: setting(info, "GOOS"), arch: setting(info, "GOARCH")}
	if err := reproducible(info); err != nil {
		return nil, err
	}
	// macOS and Windows know no executables without system libraries.
	if p.os == "darwin" || p.os == "windows" {
		return p, nil
	}
	return p, static(content)
}

func reproducible(info *debug.BuildInfo) error {
	switch {
	case setting(info, "CGO_ENABLED") != "0":
		return errors.New("is built with cgo: build it with CGO_ENABLED=0")
	case setting(info, "-trimpath") != "true":
		return errors.New("is built without -trimpath: it has the builder's folders in it")
	case setting(info, "vcs.revision") != "":
		return errors.New("is built without -buildvcs=false: it has the builder's commit in it")
	}
	for _, key := range []string{"-tags", "-gcflags", "-asmflags", "GOEXPERIMENT", "GOFIPS140"} {
		if value := setting(info, key); value != "" {
			return fmt.Errorf("is built with %s=%s: unset that", key, value)
		}
	}
	return nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// static is about an ELF file: it needs no other file to run, and has no symbols.
func static(content []byte) error {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP || prog.Type == elf.PT_DYNAMIC {
			return errors.New("is linked dynamically")
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		return errors.New("is not stripped: link it with -s -w")
	}
	return nil
}
