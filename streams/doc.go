// Package streams is the QUIC side of a sidecar. An [Endpoint] listens and dials; what comes of either is a
// [Channel], which carries the frames of one distribution connection between two nodes. WIRE.md in this folder is
// what two endpoints say to each other. The package knows nothing of the BEAM; what a frame is, and where it may go, is said by packages
// signals and lanes.
//
//	endpoint.go   the Endpoint: configuration, life, the set of channels
//	socket.go     UDP sockets with a QUIC transport each, and who keeps them open
//	listen.go     inbound: listening, hellos, Accept
//	admission.go  who may be pending; gate.go drops floods before quic-go; throttle.go limits by source
//	dial.go       outbound: several addresses at once, errors that say what to do
//	probe.go      what ICMP says of an address, beside each dial
//	path.go       what is known of the way to a peer
//	resolve.go    host names
//	channel.go    a Channel; frames.go cuts what it reads at borders of frames
//	hello.go      the first message each way
//	authenticate.go who may be a peer: the proof of the cookie, and what the node says; keyring.go has the cookies' keys
//	identity.go   certificates and keys, and the judgement on the peer's
//	packetconn.go the socket that quic-go sees; reset.go the stateless resets that it sends
//	errors.go     codes of requests, codes of the wire, reasons of a channel's end
//
// # Limitations
//
// The package promises no stability.
//
// Who is dialled is shown a proof that he can test guesses at the cookie with: what keeps a weak cookie is the cost of a
// guess, and nothing else.
//
// With one stream (lanes.Single) a large message, and the repair of its lost packets, delays everything behind it.
//
// quic-go's congestion control is NewReno, and one connection uses little more than one processor.
//
// The server name indication is not sent, so that a peer cannot be chosen by name behind a proxy that looks at it.
//
// Stateless resets reach the peers of a dead sidecar only if they know it by the port on which its successor listens.
// A channel that was dialled from another port, since the listener's address could not reach the peer, ends by the
// idle timeout.
//
// On Windows and other systems without recvmmsg or packet information, quic-go reads packet by packet, and resets of
// a socket with several addresses leave from the address that the system chooses.
package streams
