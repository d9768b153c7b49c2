#!/bin/sh
# The documentation comments make pages, in _build/doc, without a warning.
set -eu
cd "$(dirname "$0")/.."

said=$(erl -noinput -eval '
    edoc:files(filelib:wildcard("erlang/src/*.erl"), [{dir, "_build/doc"}, {preprocess, true}]),
    halt().' 2>&1)
[ -z "$said" ] || { echo "$said" >&2; exit 1; }
