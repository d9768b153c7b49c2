// Fakenodes dials a node's sidecar as if many nodes did, which have sidecars and no VMs: its arguments are the node's
// name, its UDP port on 127.0.0.1, the cookie, and how many. It prints a line when all are connected, and ends with its
// standard input, or the first line of that.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"quic_dist/internal/identity"
	"quic_dist/internal/lanes"
	"quic_dist/streams"
)

func main() {
	node, cookie := os.Args[1], []byte(os.Args[3])
	port, err := strconv.ParseUint(os.Args[2], 10, 16)
	check(err)
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	identity, err := identity.Load(identity.Files{})
	check(err)
	endpoint, err := streams.NewEndpoint(streams.Config{
		Build: "fake", Identity: identity, KeepAlive: 5 * time.Second, IdleTimeout: time.Minute,
		HelloTimeout: 10 * time.Second,
		Streams:      lanes.Bulk, Lanes: 8, Connections: 1,
	})
	check(err)
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- endpoint.Run(ctx) }()
	for i := range count {
		channel, err := endpoint.Dial(ctx, streams.DialRequest{
			Node: node, Local: fmt.Sprintf("fake%d@127.0.0.1", i+1), Cookie: cookie,
			Targets: []streams.Target{{Host: "127.0.0.1", Port: uint16(port)}},
		})
		check(err)
		go func() { _ = channel.Receive(0, func([]byte) {}) }()
	}
	fmt.Println("connected")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	end()
	check(<-ended)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakenodes:", err)
		os.Exit(1)
	}
}
