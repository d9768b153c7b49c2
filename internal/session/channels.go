package session

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"quic_dist/internal/dataplane"
	"quic_dist/internal/status"
	"quic_dist/portproto"
	"quic_dist/streams"
)

// channels are the open channels, by number. The zero value is ready for use.
type channels struct {
	mu     sync.Mutex
	open   map[uint32]dataplane.Channel
	opened uint32 // channels so far: numbers 1 to opened have been used
}

// dial opens a channel, whose first frame is the answer.
func (s *Session) dial(ctx context.Context, m *portproto.Dial) error {
	d := streams.DialRequest{
		Node: m.Node, Local: m.Local, Cookie: m.Cookie, NoLocal: m.LocalLink != nil && !*m.LocalLink,
	}
	for _, t := range m.Targets {
		d.Targets = append(d.Targets, streams.Target{Host: t.Host, Port: t.Port})
	}
	conn, err := s.endpoint.Dial(ctx, d)
	if err != nil {
		return withoutOp(err)
	}
	s.open(conn, func(o opening) portproto.Frame {
		return &portproto.Dialled{
			ID: m.ID, Channel: o.id, Identity: given(conn.Identity()), Address: o.at.Addr().String(), Port: o.at.Port(),
			Credit: o.credit, Streams: o.streams, Socket: o.socket, Token: o.token,
			Meeting: o.meeting, MeetingToken: o.meetingToken,
		}
	})
	return nil
}

// acceptChannels opens a channel for each connection from a peer, until base ends or the endpoint does.
func (s *Session) acceptChannels() {
	for {
		conn, err := s.endpoint.Accept(s.base)
		if err != nil {
			return
		}
		s.open(conn, func(o opening) portproto.Frame {
			return &portproto.Accepted{
				Channel: o.id, Node: conn.Peer().Node, Address: o.at.Addr().String(), Port: o.at.Port(),
				Identity: given(conn.Identity()), Credit: o.credit, Streams: o.streams, Socket: o.socket, Token: o.token,
				Meeting: o.meeting, MeetingToken: o.meetingToken,
			}
		})
	}
}

// An opening is what the first frame of a channel says.
type opening struct {
	id      uint32
	at      netip.AddrPort
	streams portproto.Mode
	credit  uint32  // 0 with a socket
	socket  *string // nil without one
	token   []byte

	meeting      *string // nil without one
	meetingToken []byte
}

// open gives a connection its channel, and tells the VM with the frame that announce makes.
func (s *Session) open(conn *streams.Channel, announce func(opening) portproto.Frame) {
	c := &s.channels
	c.mu.Lock()
	defer c.mu.Unlock()
	ended, ok := s.links.Add()
	if !ok {
		_ = conn.Close(streams.CloseStopping, "the sidecar stops")
		return
	}
	c.opened++
	o := opening{id: c.opened, at: conn.Remote(), streams: portproto.Mode(conn.Mode().String())}
	var channel dataplane.Channel
	if s.handoff == nil {
		o.credit = dataplane.Window
		channel = dataplane.NewStdio(o.id, conn, s.vm.w)
	} else {
		ticket, path := s.handoff.Issue(), s.handoff.Address()
		o.socket, o.token = &path, ticket.Token[:]
		channel = dataplane.NewSocket(o.id, conn, s.vm.w, ticket)
	}
	if m := conn.Meeting(); m != nil {
		o.meeting, o.meetingToken = &m.Socket, m.Token[:]
	}
	if c.open == nil {
		c.open = make(map[uint32]dataplane.Channel)
	}
	c.open[o.id] = channel
	go func() {
		defer ended()
		s.vm.tell(announce(o)) // the VM must know the channel before its data arrives
		part := func() { _ = s.vm.w.Write(&portproto.Parting{Channel: o.id, Token: conn.Parting()}) }
		part()
		conn.OnMoved(part)
		channel.Run(func() { c.forget(o.id) })
	}()
}

func (c *channels) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, id)
}

// finish ends all channels, and waits until their connections have ended, limit at most. No more channels are
// opened by then.
func (c *channels) finish(within dataplane.DrainLimits, limit time.Duration) {
	late := time.NewTimer(limit)
	defer late.Stop()
	for _, channel := range c.finishing(within) {
		select {
		case <-channel.Done():
		case <-late.C:
			return
		}
	}
}

// finishing begins the end of all channels, and returns them.
func (c *channels) finishing(within dataplane.DrainLimits) (all []dataplane.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, channel := range c.open {
		channel.Finish(within)
		all = append(all, channel)
	}
	return all
}

// get returns the channel with this number, or nil if it has ended: the VM's frame crossed our closed event.
func (c *channels) get(id uint32) (dataplane.Channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 || id > c.opened {
		return nil, protocolFault("channel %d has never been", id)
	}
	return c.open[id], nil
}

// stdio is get for frames that only channels on stdio have.
func (c *channels) stdio(id uint32) (*dataplane.Stdio, error) {
	channel, err := c.get(id)
	if channel == nil {
		return nil, err
	}
	stdio, ok := channel.(*dataplane.Stdio)
	if !ok {
		return nil, protocolFault("data or credit on channel %d, which has a socket", id)
	}
	return stdio, nil
}

func (c *channels) data(body []byte) error {
	id, payload, err := portproto.ParseData(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	channel, err := c.stdio(id)
	if channel != nil && !channel.Send(payload) {
		return protocolFault("data without credit on channel %d", id)
	}
	return err
}

func (c *channels) credit(body []byte) error {
	id, n, err := portproto.ParseCredit(body)
	if err != nil {
		return protocolFault("%w", err)
	}
	channel, err := c.stdio(id)
	if channel != nil && !channel.Credit(n) {
		return protocolFault("credit over the limit on channel %d", id)
	}
	return err
}

// close ends a channel, after the peer has what the VM has sent.
func (c *channels) close(id uint32) error {
	channel, err := c.get(id)
	if err == nil && channel != nil {
		channel.Finish(dataplane.OnClose)
	}
	return err
}

// A numberedPeer is the figures of a channel, and its number.
type numberedPeer struct {
	id uint32
	status.Peer
}

// stats returns the figures of all channels whose numbers are greater than after, in the order of these.
func (c *channels) stats(after uint32) []numberedPeer {
	c.mu.Lock()
	found := make(map[uint32]dataplane.Channel, len(c.open))
	for id, channel := range c.open {
		if id > after {
			found[id] = channel
		}
	}
	c.mu.Unlock()
	all := make([]numberedPeer, 0, len(found))
	for id, channel := range found {
		figures := channel.Stats()
		all = append(all, numberedPeer{id, status.Peer{
			ChannelStats: figures.ChannelStats, Carrier: status.CarrierQUIC,
			Plane: string(figures.Plane), Backlog: figures.Buffered,
		}})
	}
	slices.SortFunc(all, func(a, b numberedPeer) int { return cmp.Compare(a.id, b.id) })
	return all
}
