package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"quic_dist/nodename"
)

const (
	// maxTable is the size of a file of nodes, in bytes, and maxTargets how many places one node may have with one carrier.
	maxTable   = 1 << 20
	maxTargets = 16
)

// A Carrier is what a node is reached by.
type Carrier string

// The carriers.
const (
	QUIC Carrier = "quic"
	TCP  Carrier = "tcp" // inet_tcp or inet_tls, which only who connects can tell apart
)

// A place is where a node listens: a host name or IP address, and a port.
type place struct {
	host string
	port uint16
}

// A table is what is written down of nodes.
type table map[string]map[Carrier][]place

// parseTable reads a file of nodes: on each line a node's name, its carrier, and HOST:PORT, or :PORT for the host in its
// name; several lines may be about one node. What is behind a # is a remark.
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
		t[words[0]] = map[Carrier][]place{}
	}
	places := t[words[0]][carrier]
	if len(places) == maxTargets {
		return fmt.Errorf("more than %d lines for %s by %s", maxTargets, words[0], carrier)
	}
	t[words[0]][carrier] = append(places, place{host, uint16(n)})
	return nil
}

// A file is a table that is read again whenever it is asked. If it cannot be used, what was read before is.
type file struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	bytes []byte // as read last, good or bad
	table table
	bad   string // what was logged last
}

// A FileError says why a file of nodes cannot be used.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// openFile reads the table for the first time, which has to succeed.
func openFile(path string, log *slog.Logger) (*file, error) {
	f := &file{path: path, log: log}
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

// current returns the table as it is now. The file is small, and connections are rare next to what they carry: so it is read, and
// not watched.
func (f *file) current() table {
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
			f.log.Warn("the file of nodes cannot be used, what was read before stays in use", "file", f.path, "err", text)
		}
		return f.table
	}
	f.table, f.bad = t, ""
	return t
}

func readFile(path string) ([]byte, error) {
	// First the look, since opening a pipe would wait for its writer.
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

// withoutPath leaves out the file's name, which stands before it already.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err
	}
	return err
}
