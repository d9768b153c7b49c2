package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/erlang/nodename"
)

const (
	// maxTable bounds the size of a file of nodes, in bytes; maxTargets the endpoints of one node with one carrier.
	maxTable   = 1 << 20
	maxTargets = 16
)

// A table is what the file of nodes says: the endpoints of each node, by its name.
type table map[string]endpoints

// parseTable reads a file of nodes. A line has a node's name, its carrier, and HOST:PORT, or :PORT for the host
// in its name; a node may have several lines. A # begins a comment.
func parseTable(b []byte) (table, error) {
	t := table{}
	for number, line := range bytes.Split(b, []byte{'\n'}) {
		text, _, _ := strings.Cut(string(line), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := t.add(words); err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
	}
	return t, nil
}

func (t table) add(words []string) error {
	if len(words) != 3 {
		return fmt.Errorf("%d words; accepted is NODE quic|tcp HOST:PORT", len(words))
	}
	_, own, err := nodename.Parse(words[0])
	if err != nil {
		return err
	}
	carrier := Carrier(words[1])
	if carrier != QUIC && carrier != TCP {
		return fmt.Errorf("carrier %q; accepted is quic or tcp", words[1])
	}
	host, port, err := net.SplitHostPort(words[2])
	if err != nil {
		return fmt.Errorf("%q; accepted is HOST:PORT, :PORT or [IPV6]:PORT", words[2])
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q; accepted is a port number, 1 to 65535", words[2])
	}
	if host == "" {
		host = own
	}
	if !nodename.ValidHost(host) {
		return fmt.Errorf("%q; accepted is a host name or an IP address", host)
	}
	if t[words[0]] == nil {
		t[words[0]] = endpoints{}
	}
	at := t[words[0]][carrier]
	if len(at) == maxTargets {
		return fmt.Errorf("more than %d lines for %s by %s", maxTargets, words[0], carrier)
	}
	t[words[0]][carrier] = append(at, endpoint{host, uint16(n)})
	return nil
}

// of returns the nodes of a host, sorted by name.
func (t table) of(host string) []epmd.Named {
	var named []epmd.Named
	for node, at := range t {
		name, its, _ := strings.Cut(node, "@")
		if !strings.EqualFold(its, host) && !(nodename.OwnHost(its) && nodename.OwnHost(host)) {
			continue
		}
		for _, carrier := range []Carrier{TCP, QUIC} {
			if len(at[carrier]) > 0 {
				named = append(named, epmd.Named{Name: name, Port: at[carrier][0].port})
				break
			}
		}
	}
	slices.SortFunc(named, func(a, b epmd.Named) int { return strings.Compare(a.Name, b.Name) })
	return named
}

// A fileSource is the file of nodes. It reads the file for every question, since the file is small and
// connections are rare. While the file cannot be used, the last version that could be used counts.
type fileSource struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	bytes []byte // as read last, usable or not
	table table  // the last usable one
	bad   string // why the file cannot be used, as logged last; empty: it can
}

func (f *fileSource) find(_ context.Context, q query) (endpoints, error) {
	return f.current()[q.node], nil
}

func (f *fileSource) list(_ context.Context, host string) ([]epmd.Named, error) {
	return f.current().of(host), nil
}

func (f *fileSource) port(node string, carrier Carrier) uint16 {
	if at := f.current()[node][carrier]; len(at) > 0 {
		return at[0].port
	}
	return 0
}

func (f *fileSource) describe(string) string { return f.path }

// A FileError says why a file of nodes cannot be used.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// openFile reads the file for the first time. It must be usable then.
func openFile(path string, log *slog.Logger) (*fileSource, error) {
	f := &fileSource{path: path, log: log}
	b, err := readFile(path)
	if err == nil {
		f.bytes = b
		f.table, err = parseTable(b)
	}
	if err != nil {
		return nil, &FileError{path, withoutPath(err)}
	}
	return f, nil
}

// current reads the file again, and returns the table that counts.
func (f *fileSource) current() table {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := readFile(f.path)
	if err == nil && f.bad == "" && bytes.Equal(b, f.bytes) {
		return f.table
	}
	var t table
	if err == nil {
		f.bytes = b
		t, err = parseTable(b)
	}
	if err != nil {
		if text := withoutPath(err).Error(); text != f.bad {
			f.bad = text
			f.log.Warn("the file of nodes cannot be used, its last good version stays in use", "file", f.path, "err", text)
		}
		return f.table
	}
	f.table, f.bad = t, ""
	return t
}

func readFile(path string) ([]byte, error) {
	// Check before opening: to open a pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err == nil && len(b) > maxTable {
		err = fmt.Errorf("larger than %d bytes", maxTable)
	}
	return b, err
}

// withoutPath leaves out the file's path, which a FileError already has.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}
