package epmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// askTimeout bounds one question, from the connection to the end of the answer.
const askTimeout = 5 * time.Second

// Lookup asks the port mapper at an address for a node, by the first part of its name. [Client] asks at all addresses
// of a host.
func Lookup(ctx context.Context, at netip.AddrPort, name string) (Entry, error) {
	if name == "" || len(name) > maxName {
		return Entry{}, fmt.Errorf("%q: %w", name, ErrUnknown)
	}
	var e Entry
	err := ask(ctx, at, appendPortRequest(nil, name), maxReply, func(reply []byte, end bool) (err error) {
		if e, err = parsePortReply(reply); end && errors.Is(err, errShort) && len(reply) == leastReply {
			err = nil
		}
		return err
	})
	return e, err
}

var errNoList = errors.New("it ends the connection without an answer: it tells its names to other hosts than this one (option names_to), " +
	"or is no port mapper")

// Names asks the port mapper at an address for all its nodes.
func Names(ctx context.Context, at netip.AddrPort) ([]Named, error) {
	var nodes []Named
	err := ask(ctx, at, []byte{0, 1, namesRequest}, maxNamesReply, func(reply []byte, end bool) (err error) {
		switch {
		case !end:
			return errShort
		case len(reply) == 0:
			return errNoList
		}
		nodes, err = parseNames(reply)
		return err
	})
	return nodes, err
}

// ask sends a request and calls parse with all that was answered so far, until parse returns something other than
// errShort or the answer ends.
func ask(ctx context.Context, at netip.AddrPort, request []byte, limit int,
	parse func(reply []byte, end bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := dial(ctx, at)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(request); err != nil {
		return fmt.Errorf("epmd at %s: %w", at, err)
	}
	reply := make([]byte, 0, 512)
	for {
		if len(reply) == cap(reply) {
			reply = append(reply, make([]byte, len(reply))...)[:len(reply)]
		}
		n, err := conn.Read(reply[len(reply):cap(reply)])
		reply = reply[:len(reply)+n]
		if err != nil && err != io.EOF {
			return fmt.Errorf("epmd at %s: %w", at, err)
		}
		end := err == io.EOF || len(reply) >= limit
		switch err := parse(reply, end); {
		case err == nil:
			return nil
		case len(reply) == 0 && errors.Is(err, errShort):
			return fmt.Errorf("epmd at %s: it ends the connection without an answer: is it a port mapper?", at)
		case end || !errors.Is(err, errShort):
			return fmt.Errorf("epmd at %s: %w", at, err)
		}
	}
}

func dial(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("epmd: %w", err)
	}
	return conn, nil
}

// ErrTaken says that another node of the host has registered this name.
var ErrTaken = errors.New("the name is another node's on this host")

// Register registers a node with the port mapper at an address. The registration lasts as long as the connection, which
// carries nothing more.
func Register(ctx context.Context, at netip.AddrPort, name string, ports Ports) (net.Conn, error) {
	if name == "" || len(name) > maxName || ports.First() == 0 {
		return nil, fmt.Errorf("%q with no port cannot be registered", name)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := dial(ctx, at)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if err = requestAlive(conn, name, ports); err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, fmt.Errorf("epmd at %s: %w", at, err)
	}
	return conn, nil
}

// requestAlive sends ALIVE2_REQ and reads the answer.
func requestAlive(conn net.Conn, name string, ports Ports) error {
	if _, err := conn.Write(appendAliveRequest(nil, name, ports)); err != nil {
		return err
	}
	var reply [2]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return fmt.Errorf("it does not answer (%w)", err)
	}
	taken, err := parseAliveReply(reply[:])
	if err == nil && taken {
		err = ErrTaken
	}
	return err
}
