#!/bin/sh
# Runs each Go fuzz target for the time given, as many at once as there are processors.
#   scripts/fuzz.sh 60s
set -eu
cd "$(dirname "$0")/.."

# One target. Go itself sometimes fails a target whose time is up with "context deadline exceeded" and nothing else
# (golang.org/issue/75804). What a target finds, it names: a file with the failing input, or a panic.
fuzz() {
    log=$(mktemp)
    status=0
    go test -run '^$' -fuzz "^$3\$" -fuzztime "$1" -parallel 1 "$2" >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] && grep -q '^ *context deadline exceeded$' "$log" &&
        ! grep -Eq 'Failing input|panic|fatal error|hung or terminated' "$log"; then
        sed -i 's/^--- FAIL: /(out of time) /; /^FAIL/d; /^exit status/d' "$log"
        status=0
    fi
    echo "$3: $(grep -o 'execs: [0-9]*' "$log" | tail -n 1)"
    [ "$status" -eq 0 ] || cat "$log"
    rm -f "$log"
    return "$status"
}

if [ $# -eq 3 ]; then
    fuzz "$@"
    exit
fi
targets=$(
    for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
        listed=$(go test -list '^Fuzz' "$package")
        echo "$listed" | sed -n "s|^Fuzz|$package &|p"
    done
)
echo "$targets" | xargs -P "$(nproc)" -L 1 scripts/fuzz.sh "$1"
