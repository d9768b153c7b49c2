// Package portproto is the codec of the control protocol between an Erlang VM and its sidecar. PROTOCOL.md beside this
// file specifies the protocol.
//
// A frame on the wire is a 32-bit length and a body. [Reader] cuts the sidecar's standard input into bodies.
// [ParseFromVM] and [ParseFromSidecar] turn a body into a [Frame]. [Append] writes a frame, length included. [Writer]
// serialises the writers of standard output. [Text] shows a frame in logs and tests. Data and credit frames, which are
// on the data path, need no Frame: [Type], [ParseData], [ParseCredit], [PutDataHeader] and [AppendCredit] do not
// allocate.
//
// A message is a struct and one method, layout, which names its tag and its fields. The Go type of a field says its
// type on the wire; a field with other limits is wrapped in a value that has them. messages.go lists the messages of
// each side.
//
// A frame that breaks the document gives a [*ProtocolError]. No input makes the package panic. The encoder panics on a
// frame that every receiver would refuse for its size, because the caller has a defect then, and the receiver would
// blame the peer.
//
// # Limitations
//
// The package knows frames, not conversations. The caller ensures that the hello comes first, that each id is answered
// once, that a channel exists and has credit. The encoder does not check that a [Level], a [Code] or a [Reason] is one
// of the constants.
package portproto
