package discovery

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"quic_dist/internal/erlang/epmd"
	"quic_dist/internal/latest"
	"quic_dist/internal/portshare"
)

const (
	// retryInterval is between two attempts while epmd does not take the node.
	retryInterval = time.Second

	// startGrace is how long failed attempts are not reported, and follow each other by fastRetry: epmd may still have the
	// previous registration of this name.
	startGrace = 500 * time.Millisecond
	fastRetry  = 20 * time.Millisecond
)

// An epmdClient is mode epmd: it keeps the node registered with OTP's epmd.
type epmdClient struct {
	runner *latest.Runner[Registration, portshare.Status]
}

func newEPMDClient(c registrarConfig) backend {
	return epmdClient{latest.New(portshare.Status{}, keepRegistered, c.changed)}
}

func (c epmdClient) register(ctx context.Context, reg Registration) (portshare.Status, error) {
	return c.runner.Apply(ctx, reg)
}

func (c epmdClient) run(ctx context.Context) { c.runner.Run(ctx) }

// keepRegistered keeps one registration until ctx ends.
func keepRegistered(ctx context.Context, reg Registration, report func(portshare.Status)) {
	if reg.Node.Name == "" {
		report(portshare.Status{State: portshare.Waiting, Text: "nothing is wanted"})
		return
	}
	mapper := epmd.Client{Addrs: epmd.LoopbackAddrs(), Port: reg.Port}
	failingSince := time.Now()
	for ctx.Err() == nil {
		conn, at, err := mapper.Register(ctx, reg.Node.Name, portsOf(reg.Node))
		if err == nil {
			report(portshare.Status{State: portshare.Registered, Address: at})
			untilClosed(ctx, conn)
			failingSince = time.Now()
			continue
		}
		wait := fastRetry
		if time.Since(failingSince) > startGrace {
			if ctx.Err() == nil {
				report(failedStatus(err))
			}
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func failedStatus(err error) portshare.Status {
	if errors.Is(err, epmd.ErrTaken) {
		return portshare.Status{State: portshare.Duplicate, Text: err.Error()}
	}
	return portshare.Status{State: portshare.Waiting, Text: err.Error()}
}

// untilClosed waits until epmd closes a registration or ctx ends, and closes it.
func untilClosed(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}
