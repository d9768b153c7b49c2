package discovery

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A nameServer answers from tables, over UDP, or not at all.
type nameServer struct {
	conn *net.UDPConn

	mu     sync.Mutex
	hosts  map[string][]string // name without a dot at its end: addresses
	srv    map[string][]srv
	silent bool
	asked  int
}

type srv struct {
	target         string
	port, priority uint16
}

func serveDNS(t testing.TB) *nameServer {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, hosts: map[string][]string{}, srv: map[string][]srv{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answer := s.answer(b[:n]); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return s
}

func (s *nameServer) at() string { return s.conn.LocalAddr().String() }

// say changes the tables.
func (s *nameServer) say(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *nameServer) answer(question []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	var m dnsmessage.Message
	if s.silent || m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 300}
	addrs, isHost := s.hosts[name]
	services, isService := s.srv[name]
	if !isHost && !isService {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range addrs {
		switch addr := netip.MustParseAddr(text); {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	if q.Type == dnsmessage.TypeSRV {
		for _, r := range services {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.SRVResource{
				Target: dnsmessage.MustNewName(r.target + "."), Port: r.port, Priority: r.priority,
			}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
