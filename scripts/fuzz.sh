#!/bin/sh
# Runs each Go fuzz target for the time given.
#   scripts/fuzz.sh 60s
set -eu
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Go itself sometimes fails a target whose time is up with "context deadline exceeded" and nothing else
# (golang.org/issue/75804). What a target finds, it names: a file with the failing input, or a panic.
fuzz() {
    status=0
    go test -run '^$' -fuzz "^$2\$" -fuzztime "$1" "$3" >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ] && grep -q '^ *context deadline exceeded$' "$log" &&
        ! grep -Eq 'Failing input|panic|fatal error|hung or terminated' "$log"; then
        sed 's/^--- FAIL: /(out of time) /; /^FAIL/d; /^exit status/d' "$log"
        return
    fi
    cat "$log"
    return "$status"
}

for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
    listed=$(go test -list '^Fuzz' "$package")
    for target in $(echo "$listed" | grep '^Fuzz'); do
        fuzz "$1" "$target" "$package"
    done
done
