package testvm

import (
	"net"
	"strconv"
	"strings"

	"quic_dist/internal/testrun"
	"quic_dist/portproto"
)

func WebURL(carrier, host string, port uint16) string {
	return carrier + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (v *VM) WebServe(take portproto.WebTake) *portproto.WebServe {
	return &portproto.WebServe{
		ID: v.NextID(), Node: "world@localhost", Take: take, Serve: true, Address: "127.0.0.1", Mode: portproto.WebModeRouter,
		NamesTo: []string{"127.0.0.1"}, TLS: portproto.WebTLSOff,
	}
}

func (v *VM) WebDial(port uint16, take portproto.WebTake) *portproto.WebDial {
	return &portproto.WebDial{
		ID: v.NextID(), Node: "world@localhost", Local: "hello@localhost", URLs: []string{WebURL("http", "127.0.0.1", port)},
		Method: portproto.WebMethodGet, Take: take, Timeout: testrun.Patience(),
	}
}

// SecureDial asks for a link with a cookie.
func (v *VM) SecureDial(cookie string, urls ...string) *portproto.WebDial {
	m := v.WebDial(0, portproto.WebTakeDescriptor)
	m.URLs, m.Cookie = urls, []byte(cookie)
	return m
}

// AwaitLog waits for a line about a peer that is turned away, of which it forgets.
func (v *VM) AwaitLog(words string) {
	v.T.Helper()
	v.Await("the line "+words, func() bool {
		for i, l := range v.Logs {
			if strings.Contains(portproto.Text(l), words) {
				v.Logs = append(v.Logs[:i:i], v.Logs[i+1:]...)
				return true
			}
		}
		return false
	})
}
