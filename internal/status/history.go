package status

import (
	"math"
	"sync"
	"time"
)

const (
	// historyLength is how many seconds are kept.
	historyLength = 600

	// maxHistories is how many peers are remembered. A peer that has gone is kept until its last sample is too old.
	maxHistories = 2048
)

// A sample is one second of one peer, or of all together.
type sample struct {
	RTT      float32 // seconds; of all peers: the longest; NaN where there is none
	Sent     float32 // bytes in this second, like Received
	Received float32
	Lost     float32 // packets in this second
	Queued   float32 // bytes that wait, in either direction
}

// A series is a ring of samples. Seconds without a peer have none.
type series struct {
	samples [historyLength]sample
	last    int64 // second of the last sample
	first   int64 // of the first that is kept

	total totals
	since time.Time // of the channel that total is of
}

// totals are counts from the beginning of a channel.
type totals struct{ sent, received, lost uint64 }

func totalsOf(p Peer) (t totals) {
	for _, c := range p.Connections {
		t.sent += c.BytesSent
		t.received += c.BytesReceived
		t.lost += c.PacketsLost
	}
	if !p.isQUIC() {
		t.received = p.Received
		for _, l := range p.Lanes {
			t.sent += l.Sent
		}
	}
	return t
}

func queuedOf(p Peer) int {
	queued := p.Backlog
	for _, l := range p.Lanes {
		queued += l.Queued
	}
	return queued
}

// A history holds the last ten minutes. Safe for concurrent use.
type history struct {
	mu    sync.Mutex // guards what follows
	all   *series
	peers map[string]*series
	at    time.Time // of the last sample
}

func newHistory() *history {
	return &history{all: new(series), peers: make(map[string]*series)}
}

// add takes the samples of one moment, about a second after the previous moment.
func (h *history) add(s Snapshot, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	second := now.Unix()
	elapsed := float32(now.Sub(h.at).Seconds())
	h.at = now
	all := sample{RTT: none}
	for _, p := range s.Peers {
		past := h.peers[p.Node]
		if past == nil {
			if len(h.peers) >= maxHistories {
				continue
			}
			past = new(series)
			h.peers[p.Node] = past
		}
		total := totalsOf(p)
		var one sample
		if past.since.Equal(p.Since) && elapsed > 0 {
			one.Sent = rate(past.total.sent, total.sent, elapsed)
			one.Received = rate(past.total.received, total.received, elapsed)
			one.Lost = rate(past.total.lost, total.lost, elapsed)
		}
		past.since, past.total = p.Since, total
		one.RTT = none
		if p.isQUIC() {
			one.RTT = float32(p.Connections[0].SmoothedRTT.Seconds())
		}
		one.Queued = float32(queuedOf(p))
		past.put(second, one)

		all.RTT = longest(all.RTT, one.RTT)
		all.Sent += one.Sent
		all.Received += one.Received
		all.Lost += one.Lost
		all.Queued += one.Queued
	}
	h.all.put(second, all)
	for node, past := range h.peers {
		if second-past.last >= historyLength {
			delete(h.peers, node)
		}
	}
}

// none is the figure where there is none.
var none = float32(math.NaN())

// longest is the greater of two round trips. Either may be none.
func longest(a, b float32) float32 {
	if math.IsNaN(float64(a)) || b > a {
		return b
	}
	return a
}

func rate(before, now uint64, elapsed float32) float32 {
	if now < before {
		return 0
	}
	return float32(now-before) / elapsed
}

// put adds a sample. If seconds are missing since the previous one, they get the same sample, which is their mean.
// After a longer gap the series begins anew.
func (s *series) put(second int64, one sample) {
	if s.last == 0 || second-s.last > 5 || second < s.last {
		s.first, s.last = second, second-1
	}
	for at := s.last + 1; at <= second; at++ {
		s.samples[at%historyLength] = one
	}
	s.last = second
	s.first = max(s.first, second-historyLength+1)
}

// of returns the samples of a peer, or of all together if there is no name, and the second of the first one.
func (h *history) of(node string) (first int64, samples []sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.all
	if node != "" {
		s = h.peers[node]
	}
	if s == nil || s.last == 0 {
		return 0, nil
	}
	for at := s.first; at <= s.last; at++ {
		samples = append(samples, s.samples[at%historyLength])
	}
	return s.first, samples
}
