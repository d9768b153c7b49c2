#!/bin/sh
# Prints the ten slowest tests, in seconds.
#   scripts/slowest-tests.sh LOG [START]  Go's tests are those in LOG, which go test -v wrote; the cases of Common Test are
#                                         those in _build/ct-logs, with START those that ran since this file was written
set -eu
cd "$(dirname "$0")/.."

{
    # A package's line follows those of its tests.
    awk '
        /^--- (PASS|FAIL): / { gsub(/[()s]/, "", $4); name[++n] = $3; time[n] = $4 }
        /^(ok|FAIL)[ \t]+[^ \t]+[ \t]/ {
            for (i = 1; i <= n; i++) printf "%8.1f  %s %s\n", time[i], $2, name[i]
            n = 0
        }' "$1"
    find _build/ct-logs -name suite.log ${2+-newer "$2"} -exec cat {} + 2>/dev/null | awk '
        $1 == "=cases" { path = "" }
        $1 == "=case" { split($2, name, ":") }
        # The groups that a case is in, as a path.
        $1 == "=group_props" && match($0, /[{]name,[^}]*/) {
            group = substr($0, RSTART + 6, RLENGTH - 6) "/"
            if (name[2] == "init_per_group") path = path group
            else path = substr(path, 1, length(path) - length(group))
        }
        $1 == "=elapsed" && name[2] !~ /_per_(suite|group)$/ { printf "%8.1f  %s %s%s\n", $2, name[1], path, name[2] }'
} | sort -rn | head -n 10
