// Package portproto is the codec of the control protocol between an Erlang VM and its sidecar, as PROTOCOL.md beside
// this file specifies it.
//
// A frame on the wire is a 32-bit length and a body. [Reader] cuts the sidecar's standard input into bodies;
// [ParseFromVM] and [ParseFromSidecar] turn a body into a [Frame]; [Append] writes a frame, length included; [Writer]
// serialises the writers of standard output. Data and credit frames, which are on the data path, need no Frame:
// [Type], [ParseData], [ParseCredit], [PutDataHeader] and [AppendCredit] do not allocate.
//
// A frame that breaks the document gives a [*ProtocolError]. No input makes the package panic. The encoder panics on a
// frame that no receiver would accept for its size, because that is a defect of the caller and would be taken for one
// of the peer's.
//
// # Limitations
//
// The package promises no stability. It knows frames, not conversations: that the hello comes first, that an id is
// answered once, that a channel exists and has credit left, is for the caller to see to. The encoder does not check that
// a [Level], a [Code] or a [Reason] is one of the constants.
package portproto
