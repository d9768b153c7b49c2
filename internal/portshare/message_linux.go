package portshare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"quic_dist/internal/erlang/nodename"
	"quic_dist/internal/unixsock"
)

const (
	// maxMessage bounds a message. One can hold what a client of a web port sent ahead, at most net/http's buffer.
	maxMessage = 64 << 10

	// messageTimeout is for one message of a process of this host.
	messageTimeout = 5 * time.Second
)

// The messages, one JSON object in each packet of a Unix-domain socket. The process that holds the port has the
// socket; members connect to it, and both ends check that the other is of their user. After the reply the
// member sends further registrations, and the holder sends what it passes on.
type (
	// registration registers a node, or changes its ports.
	registration struct {
		Node string `json:"node"`
		Port uint16 `json:"port"`
		QUIC uint16 `json:"quic,omitempty"`
	}

	// reply answers the first registration.
	reply struct {
		Address   netip.AddrPort `json:"address"`
		Duplicate bool           `json:"duplicate"`
		Error     string         `json:"error"`
	}
)

// sendRegistration registers a node, or changes its ports.
func sendRegistration(conn *net.UnixConn, node Node) error {
	return send(conn, registration{Node: node.String(), Port: node.Port, QUIC: node.QUIC}, nil)
}

// send writes one message, and with it a descriptor of file unless that is nil.
func send(conn *net.UnixConn, message any, file syscall.Conn) error {
	b, err := json.Marshal(message)
	if err != nil || len(b) > maxMessage {
		return fmt.Errorf("a message of %d bytes: %w", len(b), err)
	}
	return unixsock.Send(conn, b, file, messageTimeout)
}

// errEnd says that the other end has closed.
var errEnd = errors.New("the process at the other end has closed the connection")

// receive reads one message, and the descriptor that came with it.
func receive(conn *net.UnixConn, message any, timeout time.Duration) (file *os.File, err error) {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	b := make([]byte, maxMessage)
	n, file, err := unixsock.Receive(conn, b)
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return nil, errEnd
	case errors.Is(err, unixsock.ErrTruncated):
		return nil, errors.New("a message of the registry is too long, or has too many descriptors")
	case err != nil:
		return nil, err
	case n == 0 && file == nil:
		return nil, errEnd
	}
	if err := json.Unmarshal(b[:n], message); err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return file, nil
}

// receiveRegistration reads one registration, within timeout; 0: without a bound.
func receiveRegistration(conn *net.UnixConn, timeout time.Duration) (Node, error) {
	var r registration
	file, err := receive(conn, &r, timeout)
	if err != nil {
		return Node{}, err
	}
	if file != nil {
		_ = file.Close()
		return Node{}, errors.New("a registration with a file")
	}
	return r.node()
}

// node returns the node of a registration, or an error if the name is not valid.
func (r registration) node() (Node, error) {
	name, host, err := nodename.ParseShort(r.Node)
	if err != nil {
		return Node{}, err
	}
	return Node{Name: name, Host: host, Port: r.Port, QUIC: r.QUIC}, nil
}
