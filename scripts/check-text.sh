#!/bin/sh
# No file has blanks at the end of a line; Erlang files have no tabs and at most 100 columns.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 # columns are characters

ours() {
    find . \( -name .git -o -name erl_crash.dump -o -name _build -o -name _tools -o -path ./priv \) -prune -o \
        -type f \( "$@" \) -print0
}
tab=$(printf '\t')
wrong=$(
    ours -true | xargs -0 grep -nIH '[[:blank:]]$' || true
    ours -name '*.[eh]rl' -o -name '*.escript' -o -name '*.config' -o -name '*.app.src' |
        xargs -0 grep -nHE "$tab|.{101}" || true
)
[ -z "$wrong" ] || { echo "$wrong" >&2; exit 1; }
