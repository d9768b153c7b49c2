//go:build linux

package dataplane

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"quic_dist/internal/testrun"
)

// Someone who has the name of a sidecar's socket cannot have a second socket of that name.
func TestTheNameIsTaken(t *testing.T) {
	h, err := NewHandoff(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.listener.Close() }()
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.Address(), Net: "unix"}); err == nil {
		_ = l.Close()
		t.Error("it can be had twice")
	}
	if conn, err := net.DialTimeout("unix", h.Address(), testrun.Scaled(time.Second)); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
}
