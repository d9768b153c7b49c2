#!/bin/sh
# The report tool of make bench is a module of its own, so that users of ours never see its plotting library; ./... does
# not enter it. What holds of our Go holds of it.
set -eu
cd "$(dirname "$0")/.."

staticcheck=$(go tool -n -modfile=tools.mod staticcheck)
cd test/bench/report
wrong=$("$(go env GOROOT)/bin/gofmt" -l .)
[ -z "$wrong" ] || { echo "gofmt -w these files of test/bench/report:" "$wrong" >&2; exit 1; }
go vet ./...
go mod tidy -diff
go fix -diff ./...
"$staticcheck" ./...
