// Package term reads and writes terms for people, in the syntax of Erlang's source, and writes them as JSON for
// programs.
//
// [Parse] reads what erl_parse:parse_term reads, except for records, operators, macros and variables, which have no
// place in an argument of a command. [Append] writes a term on one line, much like io:format with ~tp. [Parse] reads
// that as the same term, unless it holds pids, ports, references or functions. [AppendJSON] loses types: it is for
// programs that know what they asked for.
//
//	parse.go   terms from text
//	scan.go    their parts: numbers, quoted characters, names
//	format.go  terms as text
//	json.go    terms as JSON
//
// # Limitations
//
// Of the syntax of binaries it knows integers with a size, and strings in Latin-1 and UTF-8.
package term
