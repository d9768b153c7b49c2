#!/bin/sh
# Every Go file is as gofmt writes it. The toolchain's own gofmt, since $PATH may have an older one.
set -eu
cd "$(dirname "$0")/.."

wrong=$(go list -f '{{.Dir}}' ./... | xargs "$(go env GOROOT)/bin/gofmt" -l)
[ -z "$wrong" ] || { echo "gofmt -w these files:" "$wrong" >&2; exit 1; }
