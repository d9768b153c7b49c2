// Package etf reads and writes Erlang's External Term Format. Without options it knows what the control protocol and
// the hello of two sidecars use: integers, atoms, binaries, lists, tuples and maps. With [Limits].Foreign it also knows
// what else a BEAM may send.
//
// [Parse] is strict: it takes one term and no byte behind it. It checks every length against the rest of the input and
// against [Limits] before it allocates. No input makes it panic. [Append] writes the canonical form, byte for byte what
// term_to_binary(T, [deterministic, {minor_version, 2}]) gives on OTP 25, 27 and 29.
//
// The format is described in OTP's erts/doc, "External Term Format".
//
// # Limitations
//
// Without Foreign there are no floats, no bit strings, no pids, ports, references or functions, no integer below -2^31
// or above 2^64-1, no improper list and no tuple of more than 255 elements. A list whose tail is itself encoded as a
// list is refused, although Erlang reads it as a longer list.
//
// With or without it there are no compressed terms, no atom cache, and no tags that OTP 25 to 29 do not write, except
// for atoms in Latin-1.
//
// [Append] may order the keys of a map otherwise than Erlang where a key holds maps, or is a pid, port, reference or
// function. Lengths are assumed to fit in 32 bits.
package etf
