// Package etf reads and writes Erlang's External Term Format: what the control protocol and the hello of two sidecars use of
// it (integers, atoms, binaries, lists, tuples and maps), and where the caller asks for it ([Limits], Foreign) what else a BEAM
// may send.
//
// [Parse] is strict: one term, nothing behind it, every length checked against what is left of the input and against
// [Limits] before anything is allocated. No input makes it panic. [Append] writes the canonical form, byte for byte
// what term_to_binary(T, [deterministic, {minor_version, 2}]) gives on OTP 25, 27 and 29.
//
// The format is described in OTP's erts/doc, "External Term Format".
//
// # Limitations
//
// The package promises no stability. Where terms are not to be foreign there are no floats, no bit strings, no pids, ports,
// references or functions, no integer below -2^31 or above 2^64-1, no improper list, no tuple of more than 255 elements, and a
// list whose tail is itself encoded as a list is refused, although Erlang reads it as a longer list. No compressed term, no
// atom cache, and none of the tags that OTP 25 to 29 do not write, but for atoms in Latin-1, is known in either case.
// Where a key of a map holds maps, and where keys are pids, ports, references or functions, [Append] may put the keys in
// another order than Erlang. Lengths are taken to fit in 32 bits.
package etf
