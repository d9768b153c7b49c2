package web

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxStrangers is how many connections may be open that have not been upgraded. One more closes the one that has done
// nothing for the longest: who only holds connections, or sends half a header, loses them and keeps nobody out.
const maxStrangers = 1024

// A limiter is the ConnState hook of a server.
type limiter struct {
	most int

	mu     sync.Mutex
	places map[net.Conn]*list.Element
	order  *list.List // of net.Conn, that with the oldest change of state first
}

func newLimiter(most int) *limiter {
	return &limiter{most: most, places: make(map[net.Conn]*list.Element), order: list.New()}
}

// settle has a connection count no more, whatever its state.
func (l *limiter) settle(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place := l.places[conn]; place != nil {
		l.order.Remove(place)
		delete(l.places, conn)
	}
}

func (l *limiter) state(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place := l.places[conn]; place != nil {
		l.order.Remove(place)
		delete(l.places, conn)
	} else if state != http.StateNew {
		return // it is being closed for us
	}
	if state == http.StateHijacked || state == http.StateClosed {
		return
	}
	l.places[conn] = l.order.PushBack(conn)
	if l.order.Len() > l.most {
		oldest := l.order.Remove(l.order.Front()).(net.Conn)
		delete(l.places, oldest)
		_ = oldest.Close()
	}
}
