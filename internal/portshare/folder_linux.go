package portshare

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quic_dist/internal/unixsock"
)

// checkInterval is how often a folderSocket checks that its file is still there.
const checkInterval = 2 * time.Second

// A folderSocket is the registrar's socket in the user's folder. A clean-up of temporary files or the end of
// the user's session may remove it: then it is made again, in the first folder that can be used.
type folderSocket struct {
	registrar *registrar
	l         *net.UnixListener
	path      string
	file      fs.FileInfo // of path when it was made
	logged    string      // the folder error that was logged last
}

// open makes the socket. Its caller holds the port, so a file of that name is an earlier holder's.
func (f *folderSocket) open() error {
	var first error
	for _, base := range f.registrar.config.Bases {
		err := f.openIn(base)
		if err == nil {
			return nil
		}
		if _, taken := errors.AsType[*unixsock.FolderError](err); taken && err.Error() != f.logged {
			f.logged = err.Error()
			f.registrar.config.Log.Warn("a folder of the "+f.registrar.config.What+" cannot be used: another user may have taken its name", "err", err)
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (f *folderSocket) openIn(base string) error {
	dir := folderOf(f.registrar.config, base)
	if err := unixsock.MakeFolder(dir); err != nil {
		return err
	}
	path := socketIn(dir, f.registrar.at.Port())
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // the file may be the next holder's by then
	file, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return err
	}
	f.l, f.path, f.file = l, path, file
	return nil
}

// there reports whether the socket is in its folder.
func (f *folderSocket) there() bool {
	now, err := os.Lstat(f.path)
	return err == nil && os.SameFile(now, f.file)
}

// close closes the socket, and removes it if it is there.
func (f *folderSocket) close() {
	if f.l == nil {
		return
	}
	if f.there() {
		_ = os.Remove(f.path)
	}
	_ = f.l.Close()
	f.l = nil
}

// run calls accept in a goroutine for each listener that it makes: at once, and whenever the file was lost. It
// ends with ctx, and then closes the socket.
func (f *folderSocket) run(ctx context.Context, accept func(*net.UnixListener)) {
	var accepting sync.WaitGroup
	defer accepting.Wait()
	defer f.close()
	begin := func() {
		l := f.l
		accepting.Go(func() { accept(l) })
	}
	if f.l != nil {
		begin()
	}
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		}
		if f.l != nil && f.there() {
			continue
		}
		lost := f.l != nil
		folder := filepath.Dir(f.path)
		f.close()
		err := f.open()
		if err == nil {
			begin()
		}
		switch {
		case lost && err == nil:
			f.registrar.config.Log.Warn("the folder of the "+f.registrar.config.What+" was removed, and is made again", "folder",
				folder, "now", filepath.Dir(f.path))
		case lost:
			f.registrar.config.Log.Warn("the folder of the "+f.registrar.config.What+" was removed, and cannot be made again",
				"folder", folder, "err", err)
		}
	}
}
