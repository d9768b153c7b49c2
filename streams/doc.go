// Package streams carries Erlang distribution over QUIC. An [Endpoint] listens and dials. Each connection that it
// makes or accepts is a [Channel], which carries the frames of one distribution connection between two nodes.
// WIRE.md in this folder specifies what two endpoints say to each other. The package knows nothing of the BEAM;
// packages signals and lanes know what a frame is and in which order frames may go.
//
//	endpoint.go        configuration, life, the set of channels
//	socket.go          UDP sockets, with a QUIC transport each
//	dial.go            outbound: from names to a channel; resolve.go looks host names up, probe.go listens to ICMP beside each dial
//	listen.go          inbound: from the first packet to Accept
//	handshake.go       the exchange of hellos, for both roles; handshake_quic.go and handshake_tls.go are its two transports
//	hello.go           the first message each way; negotiate.go computes what two hellos agree on
//	authenticate.go    the checks of a proof, and the question to the Admitter
//	join.go            further connections of one channel; distance.go measures whether the peer is far enough for them
//	resume.go          another connection takes the place of one that has ended; reconnect.go makes it
//	local.go           where two nodes of one host and user agree that their VMs meet without us
//	kinds.go           what a stream is for, by how it begins
//	link.go            what a channel needs of its connections; link_quic.go; slot.go moves streams between connections
//	channel.go         one distribution connection
//	sendqueue.go       frames to streams; backlog.go keeps what the peer has not confirmed
//	recv.go            streams to frames; instream.go reads one over several connections, confirm.go confirms;
//	                   framereader.go cuts them, frames.go has their limits
//	admission.go       how many inbound connections may be pending; throttle.go limits by source
//	gate.go            drops floods of datagrams before quic-go
//	packetconn.go      the socket that quic-go sees; gro_linux.go reads datagrams by the bunch
//	reset.go           stateless resets; parting.go ends the channels of a former sidecar; vigil.go finds peers that are gone
//	unheard.go         tells a dialler that nothing comes from it
//	trust.go           TLS, and whether a peer's certificate will do; reload.go takes new certificate files
//	alpn.go            another protocol at the UDP port
//	trace.go           qlog and key logs; stats.go and path.go have figures
//	errors.go          codes of the wire, reasons of a channel's end
//
// # Limitations
//
// The package promises no stability.
//
// A dialler sends its proof first. The peer it dials can test guesses at the cookie against that proof; only the
// cost of a guess (Argon2id) protects a weak cookie.
//
// With one stream (lanes.Single) a large message, and the repair of its lost packets, delays everything behind it.
//
// quic-go's congestion control is NewReno, and one connection uses little more than one processor.
//
// The endpoint sends no server name indication, so a proxy cannot choose a peer by name.
//
// Stateless resets reach the peers of a dead sidecar only if they know it by the port on which its successor listens.
// A channel that was dialled from another port, because the listener's address could not reach the peer, ends by the
// idle timeout.
//
// On Windows and other systems without recvmmsg or packet information, quic-go reads packet by packet, and resets of
// a socket with several addresses leave from the address that the system chooses.
package streams
