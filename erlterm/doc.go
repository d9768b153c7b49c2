// Package erlterm reads and writes terms as people do: the syntax of Erlang's source, and JSON for other programs.
//
// [Parse] takes what erl_parse:parse_term takes, but for what has no place in a command's argument: it knows no records, no
// operators, no macros and no variables. [Append] writes a term on one line, much as io:format does with ~tp; what it writes
// of anything but pids, ports, references and functions reads as the same term. [AppendJSON] loses types: it is for programs
// that know what they have asked for.
//
//	parse.go   terms from text
//	scan.go    what they are made of: numbers, quoted characters, names
//	format.go  terms as text
//	json.go    terms as JSON
//
// # Limitations
//
// The package promises no stability. Of the syntax of binaries it knows integers with a size, and strings in Latin-1 and UTF-8.
package erlterm
