#!/bin/sh
# No file has blanks at the end of a line. Erlang files have no tabs and at most 100 columns. Go and Markdown have at most
# 120 columns, except:
#   Go        code with a string literal on the line
#   Markdown  code blocks, tables, HTML comments
#   both      a line with a URL
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 # columns are characters

ours() {
    find . \( -name .git -o -name erl_crash.dump -o -name _build -o -name _tools -o -path ./priv \) -prune -o \
        -type f \( "$@" \) -print0
}
tab=$(printf '\t')
# shellcheck disable=SC2016 # Go's and Markdown's own backticks
wrong=$(
    ours -true | xargs -0 grep -nIH '[[:blank:]]$' || true
    ours -name '*.[eh]rl' -o -name '*.escript' -o -name '*.config' -o -name '*.app.src' |
        xargs -0 grep -nHE "$tab|.{101}" || true
    ours -name '*.go' | xargs -0 grep -nHE '.{121}' | grep -v '://' |
        grep -E '^[^:]*:[0-9]*:[[:blank:]]*//|^[^"`]*$' || true
    ours -name '*.md' | xargs -0 awk '
        FNR == 1 { code = comment = 0 }
        /^ *(```|~~~)/ { code = !code; next }
        !code && /<!--/ { comment = 1 }
        comment { if (/-->/) comment = 0; next }
        !code && !/^ *\|/ && !/:\/\// { print FILENAME ":" FNR ":" $0 }' |
        grep -E '^[^:]*:[0-9]*:.{121}' || true
)
[ -z "$wrong" ] || { echo "$wrong" >&2; exit 1; }
