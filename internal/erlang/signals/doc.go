// Package signals tells what matters for the order of one frame of the Erlang distribution: who sent it, or that
// nobody can tell, and which fragmented message it is a part of. A frame is what stands behind the 4-byte length, on
// a channel whose atom cache both nodes have refused (dist_util:strict_order_flags()).
//
// A [Checker] makes the [Check] of a channel, which decides about each [Frame] that a peer sends. [ProtectVM] is the
// checker in use. A [Reader] takes the bytes of a copied link and passes the frames there to a check. [Classify] looks
// at a frame's beginning and [Sequences] at the fragments of one direction. All need no more than the first [Prefix]
// bytes of a frame, and allocate nothing for a whole one.
//
// # What is refused
//
// A frame is refused with a [Violation] if it breaks the form that the nodes negotiated, and for nothing else. For
// most of those a BEAM gives up the distribution connection. But these frames end it, or worse, corrupt its memory,
// as was tried on OTP 25.2.3 and 29.1.1 (erts_prepare_dist_ext, erts_dist_ext_frag and erts_make_dist_ext_copy in
// ERTS's external.c, erts_net_message in dist.c):
//
//   - a header with atom references: they are looked up in a cache that does not exist
//   - a later fragment whose header is cut short: the length of its data becomes negative
//   - a fragment out of order: where it is written is reckoned from its number, before that is checked
//   - a first fragment with the number 0: it is written behind a table of no elements
//   - a first fragment with a very large number: the table has 40 bytes for each fragment and is allocated at once, or
//     is too small, if its size does not fit in 64 bits
//   - a first fragment of the sequence 0 with another number than 1: it is taken for a whole signal, and for a table
//
// Everything else that is not understood is a barrier: never an error, and never in the way of what a later OTP
// sends.
//
// The format is described in OTP's erts/doc, "Distribution Protocol" and "External Term Format".
//
// # Limitations
//
// It knows frames, not channels: that handshake frames come before data, that frames with a header and pass-through
// frames do not mix on one channel (a BEAM closes the connection), and that a sender is a process of the sending
// node, is not checked. No signal of OTP 25 to 29 has a port for a sender; a frame that names one is a barrier. So
// is one whose sender is an old PID_EXT, which those releases do not send.
package signals
