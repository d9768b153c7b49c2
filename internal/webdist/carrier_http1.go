package webdist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"quic_dist/internal/erlang/epmd"
)

// HTTP/1.1: the client asks for an upgrade to erlang-distribution, and the link is the rest of the connection.

// maxInterim is how many interim answers (100, 103) may precede the answer.
const maxInterim = 8

// checkHTTP1 judges a request in HTTP/1, also one for a WebSocket.
func checkHTTP1(r *http.Request) (opener, *refusal) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodConnect:
		return nil, refused(http.StatusMethodNotAllowed, "GET it")
	case !r.ProtoAtLeast(1, 1):
		return nil, refused(http.StatusBadRequest, "HTTP/1.0 has no upgrade")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return nil, refused(http.StatusBadRequest, "an upgrade has no body")
	case !hasToken(r.Header, "Connection", "upgrade"):
		return nil, refused(http.StatusUpgradeRequired, "upgrade the connection to "+Token)
	}
	for _, token := range []string{Token, ShortToken} {
		if hasToken(r.Header, "Upgrade", token) {
			return func(w http.ResponseWriter, r *http.Request) (grant, error) {
				conn, read, err := hijack(w)
				return &http1Grant{conn, r.TLS != nil, token, read}, err
			}, nil
		}
	}
	if hasToken(r.Header, "Upgrade", "websocket") {
		return checkWebSocket(r)
	}
	return nil, refused(http.StatusUpgradeRequired, "upgrade the connection to "+Token)
}

// hijack takes a connection from net/http, and returns what was read behind the request.
func hijack(w http.ResponseWriter) (conn net.Conn, read []byte, err error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn = bare(conn)
	_ = conn.SetDeadline(time.Time{})
	if waiting, _ := buffered.Reader.Peek(buffered.Reader.Buffered()); len(waiting) > 0 {
		read = slices.Clone(waiting)
	}
	return conn, read, nil
}

// hasToken reports whether a comma-separated list (RFC 9110, section 5.6.1) has a token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// An http1Grant answers on a connection that is no longer net/http's.
type http1Grant struct {
	conn   net.Conn
	secure bool
	token  string // as the client wrote it
	read   []byte
}

func (g *http1Grant) carrier() Carrier {
	if g.secure {
		return HTTPS
	}
	return HTTP
}

func (g *http1Grant) accept(fields http.Header) (HalfCloser, error) {
	fields.Set("Connection", "Upgrade") // RFC 9110, section 15.2.2
	fields.Set("Upgrade", g.token)
	return carrying(g.conn, write(g.conn, "HTTP/1.1 101 Switching Protocols\r\n"+headerLines(fields)+"\r\n"))
}

func (g *http1Grant) refuse(status int) { refuse(g.conn, status) }
func (g *http1Grant) prefix() []byte    { return g.read }

func (g *http1Grant) passable() (net.Conn, passed, bool) {
	return g.conn, passed{Token: g.token, Ahead: g.read}, !g.secure
}

func (g *http1Grant) socket() net.Conn { return socketOf(g.conn) }

// carrying returns a connection as a link, unless there is an error or the connection cannot be one. Then it closes it.
func carrying(conn net.Conn, err error) (HalfCloser, error) {
	link, ok := conn.(HalfCloser)
	if err == nil && !ok {
		err = fmt.Errorf("%T cannot carry a link", conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return link, nil
}

func socketOf(conn net.Conn) net.Conn {
	if isSocket(conn) {
		return conn
	}
	return nil
}

// headerLines are the lines of a header.
func headerLines(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b)
	return b.String()
}

// refuse answers on a connection that is no longer net/http's, and closes it.
func refuse(conn net.Conn, status int) {
	_ = write(conn, fmt.Sprintf("HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		status, http.StatusText(status)))
	_ = conn.Close()
}

func write(conn net.Conn, text string) error {
	_ = conn.SetWriteDeadline(time.Now().Add(confirmTimeout))
	_, err := io.WriteString(conn, text)
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	return err
}

// askHTTP1 asks for an upgrade on a connection to a server or proxy.
func askHTTP1(_ context.Context, conn HalfCloser, q question) (answer, error) {
	authority := q.authority
	if q.method == http.MethodConnect { // as the first webdist
		authority = strings.TrimSuffix(authority, ":"+strconv.Itoa(int(q.port)))
	}
	if _, err := io.WriteString(conn, requestHead(q.method, q.path, authority, q.header)); err != nil {
		return answer{}, err
	}
	prefix, header, err := readAnswer(conn)
	return answer{conn, prefix, header}, err
}

// requestHead is the request, in the order of the first webdist. A node's name has no character that would end a line.
func requestHead(method, path, authority string, header http.Header) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n",
		method, path, authority, Token, headerLines(header))
}

// readAnswer reads the head of the answer to an upgrade, and returns what it has read behind the head.
func readAnswer(from io.Reader) (prefix []byte, header http.Header, err error) {
	r := bufio.NewReader(&io.LimitedReader{R: from, N: answerSize})
	for range maxInterim {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, nil, &RefusedError{Text: "closed without an answer, or one of more than 16 KB"}
			}
			if _, network := errors.AsType[net.Error](err); network {
				return nil, nil, err
			}
			return nil, nil, &RefusedError{Text: "the answer is not HTTP: " + err.Error()}
		}
		switch {
		case answer.StatusCode == http.StatusSwitchingProtocols:
			if err := checkSwitch(answer); err != nil {
				return nil, nil, err
			}
			prefix = make([]byte, r.Buffered())
			_, err = io.ReadFull(r, prefix)
			return prefix, answer.Header, err
		case answer.StatusCode >= 200:
			return nil, nil, &RefusedError{Status: answer.StatusCode, Text: answer.Status}
		}
	}
	return nil, nil, &RefusedError{Text: "too many answers that announce another"}
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
