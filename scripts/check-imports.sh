#!/bin/sh
# Who may know what, so that each piece of knowledge has one place:
#   etf        imports the standard library only, and so does
#   signals
#   portproto  imports the standard library and etf
#   streams    does not import portproto; cmd/quicdistd alone imports both
#   web, registry, epmd, discovery and nodename import neither
#   erlterm    imports the standard library and etf; dist these and erlterm, whatever carries it
#   open_port  is called by quic_dist_pipe alone
#   terms become bytes, and bytes terms, in quic_dist_proto alone
set -eu
cd "$(dirname "$0")/.."

# One line for each import: PACKAGE IMPORTED, without this module's name.
# shellcheck disable=SC2016 # the template's own dollar signs
imports=$(go list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}
{{end}}' ./... | sed 's#quic_dist/#./#g')

wrong=$(
    # A path is the standard library's unless it is ours or begins with a host's name.
    echo "$imports" | awk '
        { foreign = $2 ~ "^[^/]*[.]" }
        ($1 == "./etf" || $1 == "./signals") && foreign { print $1 " imports " $2 }
        $1 == "./portproto" && foreign && $2 != "./etf" { print $1 " imports " $2 }
        $1 == "./erlterm" && foreign && $2 != "./etf" { print $1 " imports " $2 }
        $1 == "./dist" && foreign && $2 != "./etf" && $2 != "./erlterm" { print $1 " imports " $2 }
        $1 ~ "^[.]/(web|registry|epmd|discovery|nodename)$" && ($2 == "./portproto" || $2 == "./streams") { print $1 " imports " $2 }
        $2 == "./portproto" { portproto[$1] = 1 }
        $2 == "./streams" { streams[$1] = 1 }
        END {
            if ("./streams" in portproto) print "./streams imports ./portproto"
            for (p in portproto) if (p in streams && p != "./cmd/quicdistd") print p " imports both sides"
        }'
    code() { grep -n "$1" erlang/src/*.erl | grep -v ':[0-9]*: *%' | grep -v "^erlang/src/$2.erl:"; }
    code '\<open_port(' quic_dist_pipe || true
    code '\<\(term_to_\(binary\|iovec\)\|binary_to_term\)(' quic_dist_proto || true
)
[ -z "$wrong" ] || { echo "$wrong" >&2; exit 1; }
