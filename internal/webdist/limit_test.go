package webdist

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// TestIdleConnectionsKeepNobodyOut: five thousand connections that say nothing, or half a header, are open at once; an
// upgrade goes through in no time.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	const crowd = 5000
	d, port := hold(t, Settings{Node: "world@localhost"})
	conns := make([]net.Conn, crowd)
	t.Cleanup(func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	})
	for i := range conns {
		conn, err := net.Dial("tcp", local(port))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns[i] = conn
		if i%2 == 0 {
			_, _ = io.WriteString(conn, "GET /erl/world HTTP/1.1\r\nHost: lo")
		}
	}
	start := time.Now()
	_, r := say(t, port, requestFor("GET", "world@localhost", "localhost", port))
	if answer := head(t, r); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Fatalf("%q", answer)
	}
	d.arrived()
	if took := time.Since(start); took > testrun.Patience()/5 {
		t.Errorf("the upgrade took %s", took)
	}
}

// TestTheStalestConnectionGoes: over the limit it is the connection whose state has not changed for the longest that is
// closed, and one that was upgraded does not count.
func TestTheStalestConnectionGoes(t *testing.T) {
	l := newLimiter(3)
	conns, others := make([]net.Conn, 6), make([]net.Conn, 6)
	for i := range conns {
		conns[i], others[i] = net.Pipe()
		t.Cleanup(func() { _ = conns[i].Close(); _ = others[i].Close() })
	}
	closed := func(i int) bool {
		_ = others[i].SetReadDeadline(time.Now().Add(-time.Second))
		_, err := others[i].Read(make([]byte, 1))
		return err == io.EOF
	}
	for i := range 3 {
		l.state(conns[i], http.StateNew)
	}
	l.state(conns[0], http.StateActive)
	l.state(conns[3], http.StateNew) // 1 is the stalest
	l.state(conns[1], http.StateClosed)
	l.state(conns[2], http.StateHijacked)
	l.state(conns[4], http.StateNew)
	l.state(conns[5], http.StateNew) // 0 is
	for i, want := range []bool{true, true, false, false, false, false} {
		if got := closed(i); got != want {
			t.Errorf("connection %d: closed %v", i, got)
		}
	}
}

// TestStrangersDoNotCutOffRequests: a request that is being answered goes on, however many connections come that say
// nothing or half a header.
func TestStrangersDoNotCutOffRequests(t *testing.T) {
	more := make(chan struct{})
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "last")
	}))
	t.Cleanup(behind.Close)
	to, _ := url.Parse(behind.URL)
	_, port := hold(t, Settings{Node: "world@localhost", Upstream: to})
	answer, err := http.Get("http://" + local(port) + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	expectBytes(t, answer.Body, "first ")
	for i := range 2 * maxStrangers {
		conn := dialLocal(t, port)
		if i%2 == 0 {
			_, _ = io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: lo")
		}
	}
	close(more)
	if rest, err := io.ReadAll(answer.Body); err != nil || string(rest) != "last" {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestRequestsAreBounded: as many as may be with the web server behind are, over however few connections; the next is
// refused until one has ended, or its connection has become another thing.
func TestRequestsAreBounded(t *testing.T) {
	l := newLimiter(1)
	conn, other := net.Pipe()
	defer func() { _ = conn.Close(); _ = other.Close() }()
	l.state(conn, http.StateNew)
	l.state(other, http.StateNew)
	l.state(conn, http.StateNew) // other's coming has had it forgotten
	ends := make([]func(), maxRequests)
	for i := range ends {
		end, ok := l.begin(conn, true)
		if !ok {
			t.Fatalf("request %d is refused", i)
		}
		ends[i] = end
	}
	refused := func() bool {
		end, ok := l.begin(conn, true)
		if ok {
			end()
		}
		return !ok
	}
	if _, ok := l.begin(conn, false); !ok || !refused() {
		t.Error("what is not passed on counts, or what is passed on does not")
	}
	ends[0]()
	if refused() {
		t.Error("refused though one has ended")
	}
	l.state(conn, http.StateHijacked)
	for _, end := range ends[1:] {
		end()
	}
	if l.requests != 0 || len(l.conns) != 0 {
		t.Errorf("%d requests, %d connections left", l.requests, len(l.conns))
	}
}

// TestAConnectionIsCutWithoutAWord: over TLS too, where the alert that says goodbye would be waited for.
func TestAConnectionIsCutWithoutAWord(t *testing.T) {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	defer certificate.Close()
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	secure := tls.Server(ours, &tls.Config{Certificates: certificate.TLS.Certificates, SessionTicketsDisabled: true})
	client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- secure.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := testrun.Receive(t, shaken); err != nil {
		t.Fatal(err)
	}
	l := newLimiter(1)
	l.state(secure, http.StateNew)
	next, far := net.Pipe()
	defer func() { _ = next.Close(); _ = far.Close() }()
	go l.state(next, http.StateNew)
	_ = theirs.SetReadDeadline(time.Now().Add(testrun.Patience()))
	if n, err := theirs.Read(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestASlowHeaderEndsTheConnection: a byte now and then is not a header.
func TestASlowHeaderEndsTheConnection(t *testing.T) {
	t.Parallel()
	_, port := hold(t, Settings{Node: "world@localhost"})
	conn := dialLocal(t, port)
	_ = conn.SetDeadline(time.Now().Add(2*headerTimeout + testrun.Patience()))
	start := time.Now()
	tick := time.NewTicker(headerTimeout / 20)
	defer tick.Stop()
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, conn) }()
	for text := requestFor("GET", "world@localhost", "localhost", port); ; text = text[1:] {
		select {
		case <-tick.C:
			_, _ = io.WriteString(conn, text[:1])
			continue
		case <-ended:
		}
		break
	}
	if took := time.Since(start); took < headerTimeout/2 || took > headerTimeout+testrun.Patience() {
		t.Errorf("ended after %s", took)
	}
}
