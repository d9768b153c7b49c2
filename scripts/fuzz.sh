#!/bin/sh
# Runs each Go fuzz target for the time given.
#   scripts/fuzz.sh 60s
set -eu
cd "$(dirname "$0")/.."

go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r package; do
    go test -list '^Fuzz' "$package" | grep '^Fuzz' | while read -r target; do
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$package" </dev/null
    done
done
