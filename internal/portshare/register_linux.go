package portshare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"quic_dist/internal/unixsock"
)

// register registers the node with the process that holds the port, and receives what that passes on. It
// returns nil when the registration has ended.
func (m *Member) register(ctx context.Context, want Want, report func(Status)) error {
	conn, err := m.connect(want)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var answer reply
	if _, err := receive(conn, &answer, messageTimeout); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it has not answered within %s: is its process stopped?", messageTimeout)
	} else if err != nil {
		return err
	}
	if answer.Duplicate {
		return &duplicateError{want.Node.Name}
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	m.registered(want.Node, func(node Node) error { return sendRegistration(conn, node) })
	defer m.unregistered()
	report(Status{State: Registered, Address: answer.Address})
	for {
		var message json.RawMessage
		file, err := receive(conn, &message, 0)
		if err != nil {
			return nil // the connection has ended, from either end
		}
		switch {
		case file == nil:
		case want.Passed == nil:
			_ = file.Close()
		default:
			want.Passed(file, message)
		}
	}
}

// connect connects to a registrar of this user and sends the registration.
func (m *Member) connect(want Want) (*net.UnixConn, error) {
	failed := errNobody
	for _, place := range places(m.config, want.Port) {
		conn, err := connectAt(place, want.Node)
		if _, shared := errors.AsType[*sharedError](err); err == nil || shared {
			return conn, err
		}
		if _, foreign := errors.AsType[*unixsock.ForeignError](err); foreign || failed == errNobody && !isAbsent(err) {
			failed = err
		}
	}
	return nil, failed
}

// isAbsent reports whether an error says that a socket does not exist, or that nobody listens at it.
func isAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// connectAt connects to a registrar and sends the registration. Without a node it returns a sharedError if the
// registrar is this user's.
func connectAt(place string, node Node) (*net.UnixConn, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: place, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	check := unixsock.Peer
	if place[0] == '@' {
		check = unixsock.VisiblePeer
	}
	pid, err := check(conn)
	switch {
	case err != nil:
	case node.Name == "":
		err = &sharedError{pid}
	default:
		err = sendRegistration(conn, node)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
