//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"quic_dist/portproto"
)

func rendezvousIn(base string) (*rendezvous, error) {
	return newRendezvous(base, newLogger(portproto.NewWriter(io.Discard)).Logger)
}

// end does what the end of Run does.
func (r *rendezvous) end() {
	_ = r.listener.Close()
	r.remove()
}

// What else lies in the folder for temporary files stays as it is and holds up nobody, even under a name like ours.
func TestSweepRemovesItsOwnOnly(t *testing.T) {
	base := shortDir(t)
	path := func(elem ...string) string { return filepath.Join(append([]string{base}, elem...)...) }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(elem ...string) { check(os.WriteFile(path(elem...), []byte("precious"), 0o600)) }
	folder := func(name string, mode fs.FileMode) {
		check(os.Mkdir(path(name), 0o700))
		file(name, "precious")
		check(os.Chmod(path(name), mode))
	}
	// Names that a release and its build give.
	file("quicdistd-0.1.0-linux-amd64.tar.gz")
	folder("quicdistd-0.1.0", 0o755)
	// Somebody who wants to do harm, or has a sense of humour.
	file(".quicdistd-run-1")
	folder(".quicdistd-run-2", 0o755)
	folder(".quicdistd-run-3", 0o700)
	check(os.Symlink(path("quicdistd-0.1.0"), path(".quicdistd-run-4")))
	check(os.Symlink("/nowhere", path(".quicdistd-run-5")))
	check(syscall.Mkfifo(path(".quicdistd-run-6"), 0o600)) // to open it is to wait

	before := tree(t, base)
	made := make(chan error, 1)
	go func() {
		r, err := rendezvousIn(base)
		if err == nil {
			r.end()
		}
		made <- err
	}()
	select {
	case err := <-made:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(scaled(2 * time.Second)):
		t.Error("it hangs")
		_ = os.WriteFile(path(".quicdistd-run-6"), nil, 0) // releases the reader
		<-made
	}
	if after := tree(t, base); after != before {
		t.Errorf("there was:\n%sand is:\n%s", before, after)
	}
}

// tree lists a folder, with what is in its files.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, d.Type())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q\n", content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Nodes of one host that boot at the same moment do not take each other's folders for left-overs.
func TestFoldersMadeAtOnce(t *testing.T) {
	base := shortDir(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				r, err := rendezvousIn(base)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(r.path()); err != nil {
					t.Error(err)
				}
				r.end()
			}
		})
	}
	wg.Wait()
	if left := entries(t, base); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A folder that cannot be had is a refused configuration for socket, and for auto a warning and the other plane.
func TestFolderThatCannotBeMade(t *testing.T) {
	base := filepath.Join(shortDir(t), "a name that is much too long for the path of a socket, of which the kernel takes 108 bytes")
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, plane := range []portproto.DataPlane{portproto.DataPlaneSocket, portproto.DataPlaneAuto} {
		t.Run(string(plane), func(t *testing.T) {
			v, _ := bridgedIn(t, base)
			v.greet()
			m := v.configuration()
			m.DataPlane = plane
			v.put(m)
			if plane == portproto.DataPlaneAuto {
				expect[*portproto.OK](v)
				v.wantLog(portproto.LevelWarning, "too long a name for a socket")
				b := configured(t)
				onV, onB := connect(v, b, b.listen())
				sent := distFrames(1, 1000, 100)
				v.write(onV, sent, 1000)
				wantSame(t, "on stdio instead", b.take(onB, len(sent), 1<<16), sent)
			} else if e := expect[*portproto.Error](v); e.ID != m.ID {
				t.Errorf("got %s", e)
			}
			if left := entries(t, base); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
