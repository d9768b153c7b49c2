#!/bin/sh
# Tools with libraries of their own are modules of their own, so that users of ours never see those; ./... does not enter
# them. What holds of our Go holds of them.
set -eu
cd "$(dirname "$0")/.."

staticcheck=$(go tool -n -modfile=tools.mod staticcheck)
for module in test/bench/report scripts/dist; do
    (
        cd "$module"
        wrong=$("$(go env GOROOT)/bin/gofmt" -l .)
        [ -z "$wrong" ] || { echo "gofmt -w these files of $module:" "$wrong" >&2; exit 1; }
        go vet ./...
        go mod tidy -diff
        go fix -diff ./...
        "$staticcheck" ./...
    )
done
