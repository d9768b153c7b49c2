package streams

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"quic_dist/internal/udpsize"
)

const (
	vigilInterval = 200 * time.Millisecond

	// acknowledgement is how long after the last packet of a peer one of ours may be nothing but its acknowledgement
	// (RFC 9000, section 13.2.1: 25 ms unless a peer says otherwise, which quic-go does not).
	acknowledgement = 100 * time.Millisecond

	leastGrace     = 300 * time.Millisecond // for an answer, beside round trips
	askTimeout     = 300 * time.Millisecond
	askAgain       = time.Second      // about a peer that is silent
	controlAgain   = 30 * time.Second // about one that is well, until it has answered
	maxInquiries   = 16               // at a time
	refusalsNeeded = 2                // questions that must be refused, one after the other

	// After this silence, or as many round trips if that is more, another connection is tried beside one.
	silentLimit = time.Second
	silentTrips = 6
)

// errGone is why a vigil ends a channel.
const errGone = "the peer and its sidecar are gone: nothing listens on its UDP port any more"

// A vigil ends the channels of peers whose VM and sidecar are both gone while their host lives. There only the
// kernel says so, by ICMP, and only to connected sockets. A channel ends if
//
//   - the peer has acknowledged none of our packets for longer than that takes, and has sent nothing else, or a
//     connection is missing, as when the kernel of a dead peer has ended one over TCP,
//   - two sockets in turn are told that its port is closed,
//   - a socket was answered while the peer was well, so no firewall or NAT refuses packets from new ports,
//   - and it is still silent then.
//
// An attacker that forges ICMP must guess the ports of both sockets and hold back the peer's packets. Such an
// attacker could end the channel anyway.
type vigil struct {
	e       *Endpoint
	ask     func(ctx context.Context, from netip.Addr, to netip.AddrPort) answer
	watched map[*Channel]*watched
	results chan inquired
	asking  int
	work    sync.WaitGroup
}

// watched is the state of one channel.
type watched struct {
	silence     silence         // of all connections together
	connections []silence       // of each
	roundTrips  []time.Duration // of each
	remote      netip.AddrPort
	open        bool // remote has answered a question
	next        time.Time
	asking      bool
}

// silence is how long a peer owes an answer.
type silence struct {
	received, sent uint64
	// when it was seen that there was more received; sent counts as answered until acknowledgement later
	heard      time.Time
	unanswered bool // there is more sent
	looked     time.Time
	owed       time.Duration // since then, as far as this process ran
}

// answer is the answer to a question.
type answer int

const (
	noAnswer answer = iota
	answeredReset
	answeredRefused
)

// inquired is the result of an inquiry.
type inquired struct {
	channel  *Channel
	remote   netip.AddrPort
	received uint64
	answer   answer // of all questions
}

func newWatched(connections int, now time.Time) *watched {
	w := &watched{
		silence: silence{heard: now}, connections: make([]silence, connections),
		roundTrips: make([]time.Duration, connections),
	}
	for i := range w.connections {
		w.connections[i].heard = now
	}
	return w
}

func newVigil(e *Endpoint) *vigil {
	return &vigil{e: e, ask: ask, watched: make(map[*Channel]*watched), results: make(chan inquired)}
}

// run watches until ctx ends, and only while there are channels.
func (v *vigil) run(ctx context.Context) {
	defer v.work.Wait()
	tick := time.NewTicker(vigilInterval)
	defer tick.Stop()
	for {
		if len(v.watched) == 0 && v.asking == 0 {
			select {
			case <-v.e.adopted:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-tick.C:
			v.look(ctx, time.Now())
		case r := <-v.results:
			v.judge(r)
		case <-ctx.Done():
			return
		}
	}
}

// look looks at every channel once.
func (v *vigil) look(ctx context.Context, now time.Time) {
	v.e.mu.Lock()
	for c := range v.e.channels {
		if v.watched[c] == nil {
			v.watched[c] = newWatched(c.link.Connections(), now)
		}
	}
	for c := range v.watched {
		if _, up := v.e.channels[c]; !up {
			delete(v.watched, c)
		}
	}
	v.e.mu.Unlock()
	for c, w := range v.watched {
		silent := w.update(c, now) || c.link.Outages().Down > 0
		c.link.Steer(now)
		for i := range w.connections {
			c.link.Owed(i, w.connections[i].owed)
			if w.connections[i].owed >= max(silentLimit, silentTrips*w.roundTrips[i]) {
				c.link.Replace(i)
			}
		}
		if w.asking || now.Before(w.next) || v.asking == maxInquiries || w.open && !silent {
			continue
		}
		questions := 1
		w.next = now.Add(controlAgain)
		if w.open {
			questions, w.next = refusalsNeeded, now.Add(askAgain)
		} else if silent {
			continue // it was not asked when it was well, so that an answer would mean nothing
		}
		w.asking = true
		v.asking++
		from, r := c.link.Local().Addr(), inquired{c, w.remote, w.silence.received, noAnswer}
		// Ends within the time of its questions, or with ctx; run waits.
		v.work.Go(func() {
			for range questions {
				if r.answer = v.ask(ctx, from, r.remote); r.answer != answeredRefused {
					break
				}
			}
			select {
			case v.results <- r:
			case <-ctx.Done():
			}
		})
	}
}

// update reports whether a channel's peer owes an answer for longer than one takes.
func (w *watched) update(c *Channel, now time.Time) (silent bool) {
	stats := c.link.Stats()
	w.silence.update(now, stats...)
	for i := range w.connections {
		w.connections[i].update(now, stats[i])
		w.roundTrips[i] = stats[i].SmoothedRTT
	}
	if remote := c.Remote(); remote != w.remote {
		w.remote, w.open, w.next = remote, false, time.Time{}
	}
	grace := max(leastGrace, 3*stats[0].SmoothedRTT+4*stats[0].MeanDeviation)
	return w.silence.unanswered && w.silence.owed >= grace
}

// update takes the figures of connections as they are now.
func (s *silence) update(now time.Time, conns ...ConnStats) {
	received, sent := traffic(conns)
	switch {
	case received != s.received:
		s.received, s.sent, s.heard, s.unanswered, s.owed = received, sent, now, false, 0
	case now.Sub(s.heard) < acknowledgement:
		s.sent = sent
	case s.unanswered:
		s.owed += min(now.Sub(s.looked), 2*vigilInterval) // a stop of this process is not the peer's silence
	case sent > s.sent:
		s.unanswered = true
	}
	s.looked = now
}

func traffic(conns []ConnStats) (received, sent uint64) {
	for _, conn := range conns {
		received += conn.PacketsReceived
		sent += conn.PacketsSent
	}
	return received, sent
}

// judge ends the channel if the inquiry says that the peer is gone.
func (v *vigil) judge(r inquired) {
	v.asking--
	w := v.watched[r.channel]
	if w == nil {
		return
	}
	w.asking = false
	received, _ := traffic(r.channel.link.Stats())
	switch {
	case r.remote != r.channel.Remote():
	case !w.open:
		if w.open = r.answer == answeredReset; w.open {
			w.next = time.Time{}
		}
	case r.answer == answeredRefused && received == r.received:
		r.channel.link.Close(CloseInternal, errGone)
	}
}

// ask sends a small packet to an address from a socket of its own, and says what came of it.
func ask(ctx context.Context, from netip.Addr, to netip.AddrPort) answer {
	conn, err := net.DialUDP("udp", udpsize.Local(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return noAnswer
	}
	defer conn.Close()
	unwatch := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer unwatch()
	conn.SetReadDeadline(time.Now().Add(askTimeout))
	if ctx.Err() != nil {
		return noAnswer
	}
	_, err = conn.Write(udpsize.Small())
	if err == nil {
		var n int
		b := make([]byte, 64)
		if n, err = conn.Read(b); err == nil && udpsize.AnswersSmall(b[:n]) {
			return answeredReset
		}
	}
	if isRefused(err) {
		return answeredRefused
	}
	return noAnswer
}
