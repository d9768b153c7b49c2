package session

import (
	"testing"

	"quic_dist/internal/testrun"
	"quic_dist/internal/testvm"
	"quic_dist/portproto"
)

// waiting starts a session whose VM says that it waits at a socket, with this option.
func waiting(t *testing.T, socket string, on portproto.LocalLinks) *testvm.VM {
	v := startSession(t).Hello()
	m := v.Configuration()
	m.LocalLinks, m.LocalSocket = on, &socket
	v.Put(m)
	testvm.Expect[*portproto.OK](v)
	return v
}

// The VMs of two nodes of this process's user are told where to meet, and by which token they know each other; unless
// one of them does not want it.
func TestVMsOfOneUserAreToldWhereToMeet(t *testing.T) {
	for _, c := range []struct {
		a, b portproto.LocalLinks
		dial *bool
		met  bool
	}{
		{portproto.LocalLinksAuto, portproto.LocalLinksAuto, nil, true},
		{portproto.LocalLinksSameUser, portproto.LocalLinksAuto, nil, true},
		{portproto.LocalLinksAuto, portproto.LocalLinksAuto, new(bool), false},
		{portproto.LocalLinksOff, portproto.LocalLinksAuto, nil, false},
		{portproto.LocalLinksAuto, "", nil, false},
	} {
		a, b := waiting(t, "\x00quic_dist-a", c.a), waiting(t, "\x00quic_dist-b", c.b)
		m := a.DialMessage(b.Listen(), testrun.Patience())
		m.LocalLink = c.dial
		a.Put(m)
		dialled, accepted := testvm.Expect[*portproto.Dialled](a), testvm.Expect[*portproto.Accepted](b)
		if (dialled.Meeting != nil) != c.met || (accepted.Meeting != nil) != c.met {
			t.Errorf("%+v:\n%s\n%s", c, portproto.Text(dialled), portproto.Text(accepted))
		}
		if c.met && (*dialled.Meeting != "\x00quic_dist-b" || *accepted.Meeting != "\x00quic_dist-b" ||
			len(dialled.MeetingToken) != 32 || string(dialled.MeetingToken) != string(accepted.MeetingToken)) {
			t.Errorf("%x and %x at\n%s\n%s", []byte(dialled.MeetingToken), []byte(accepted.MeetingToken),
				portproto.Text(dialled), portproto.Text(accepted))
		}
	}
}
