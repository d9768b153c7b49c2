#!/bin/sh
# Runs each Go fuzz target for the time given.
#   scripts/fuzz.sh 60s
set -eu
cd "$(dirname "$0")/.."

for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
    listed=$(go test -list '^Fuzz' "$package")
    for target in $(echo "$listed" | grep '^Fuzz'); do
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$package"
    done
done
