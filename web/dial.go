package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"quic_dist/epmd"
	"quic_dist/nodename"
	"quic_dist/registry"
)

const (
	// answerSize bounds the head of an answer, and maxInterim how many answers that are none yet (100, 103) precede it.
	answerSize = 16 << 10
	maxInterim = 8

	// maxListing bounds what a host says of its nodes.
	maxListing = 1 << 20
)

// A Dial says which node to reach, and where its host's web port is.
type Dial struct {
	Node    string // NAME@HOST
	Host    string // host name or IP address
	Port    uint16
	Connect bool // ask by CONNECT and the name alone, as the first webdist did; otherwise by GET and the whole name
}

// Dialled is an upgraded connection, and what came behind the answer.
type Dialled struct {
	Conn  net.Conn
	Ahead []byte
}

// Remote is the other end's address, without a name's zone.
func (d *Dialled) Remote() netip.AddrPort {
	if tcp, ok := d.Conn.RemoteAddr().(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// A RefusedError is an answer other than the upgrade.
type RefusedError struct {
	Where  string
	Status int    // of HTTP; 0 if the answer is not HTTP
	Text   string // what is wrong, for people
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s", e.Where, e.Text)
}

// Do connects and has the connection upgraded. A server that knows no whole names (the first webdist) is asked again by the
// name alone.
func (d Dial) Do(ctx context.Context) (*Dialled, error) {
	n, err := parseNode(d.Node)
	if err != nil {
		return nil, err
	}
	if d.Connect {
		return d.ask(ctx, http.MethodConnect, n.name, n.host)
	}
	dialled, err := d.ask(ctx, http.MethodGet, d.Node, n.host)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return d.ask(ctx, http.MethodGet, n.name, n.host)
	}
	return dialled, err
}

// ask makes one request.
func (d Dial) ask(ctx context.Context, method, name, host string) (*Dialled, error) {
	where := net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port)))
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", where)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	ahead, err := exchange(conn, requestHead(method, name, host, d.Port))
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		var refused *RefusedError
		if errors.As(err, &refused) {
			refused.Where = "http://" + where + pathPrefix + url.PathEscape(name)
			return nil, refused
		}
		return nil, fmt.Errorf("http://%s: %w", where, err)
	}
	return &Dialled{Conn: conn, Ahead: ahead}, nil
}

// requestHead is the request, in the order of the first webdist. A node's name has no character that would end a line.
func requestHead(method, name, host string, port uint16) string {
	authority := host
	if strings.Contains(host, ":") {
		authority = "[" + host + "]"
	}
	if port != 80 && method != http.MethodConnect {
		authority += ":" + strconv.Itoa(int(port))
	}
	return fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		method, pathPrefix, url.PathEscape(name), authority, Token)
}

// exchange writes a request and reads the answer to it, which has to be the upgrade.
func exchange(conn net.Conn, request string) (ahead []byte, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	return readAnswer(conn)
}

// readAnswer reads the head of the answer to an upgrade, and returns what it has read behind that.
func readAnswer(from io.Reader) (ahead []byte, err error) {
	r := bufio.NewReader(&io.LimitedReader{R: from, N: answerSize})
	for range maxInterim {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, &RefusedError{Text: "closed without an answer, or one of more than 16 KB"}
			}
			var netErr net.Error
			if errors.As(err, &netErr) {
				return nil, err
			}
			return nil, &RefusedError{Text: "the answer is not HTTP: " + err.Error()}
		}
		switch {
		case answer.StatusCode == http.StatusSwitchingProtocols:
			if err := checkSwitch(answer); err != nil {
				return nil, err
			}
			ahead = make([]byte, r.Buffered())
			_, err = io.ReadFull(r, ahead)
			return ahead, err
		case answer.StatusCode >= 200:
			return nil, &RefusedError{Status: answer.StatusCode, Text: answer.Status}
		}
	}
	return nil, &RefusedError{Text: "too many answers that announce another"}
}

// checkSwitch checks that a 101 is about our protocol, in a version that we speak.
func checkSwitch(answer *http.Response) error {
	refused := func(format string, args ...any) error {
		return &RefusedError{Status: answer.StatusCode, Text: fmt.Sprintf(format, args...)}
	}
	if !answer.ProtoAtLeast(1, 1) {
		return refused("an upgrade in %s", answer.Proto)
	}
	if !hasToken(answer.Header, "Upgrade", Token) && !hasToken(answer.Header, "Upgrade", ShortToken) {
		return refused("upgraded to %q, not to %s", answer.Header.Get("Upgrade"), Token)
	}
	if said := answer.Header.Get("Version"); said != "" {
		version, err := strconv.ParseUint(said, 10, 16)
		if err != nil || version < epmd.LowVersion {
			return refused("distribution version %q; we speak %d to %d", said, epmd.LowVersion, epmd.HighVersion)
		}
	}
	return nil
}

// ListNames asks the web port of a host for its nodes.
func ListNames(ctx context.Context, host string, port uint16) ([]Named, error) {
	where := "http://" + net.JoinHostPort(host, strconv.Itoa(int(port))) + "/erl"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: answerSize}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, &RefusedError{Where: where, Status: answer.StatusCode, Text: answer.Status}
	}
	return parseListing(io.LimitReader(answer.Body, maxListing))
}

func parseListing(from io.Reader) ([]Named, error) {
	var l listing
	if err := json.NewDecoder(from).Decode(&l); err != nil {
		return nil, fmt.Errorf("a list of names: %w", err)
	}
	named := l.Nodes[:0]
	for _, n := range l.Nodes {
		if nodename.ValidName(n.Name) && len(n.Name) <= 255 {
			named = append(named, n)
		}
	}
	return named[:min(len(named), registry.MaxNames)], nil
}
