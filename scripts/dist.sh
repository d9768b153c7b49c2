#!/bin/sh
# Builds the executable for each system that releases are made for, or for those that are named, and packs it: archives, bills
# of materials and SHA256SUMS go into the folder that is named. A released version has to give the archives that checksums.txt
# pins.
#   scripts/dist.sh _build/dist [OS-ARCH...]
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: scripts/dist.sh FOLDER [OS-ARCH...]" >&2; exit 2; }

mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64 freebsd-amd64
rm -f "$out"/quicdistd-* "$out/SHA256SUMS"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# The bytes depend on the toolchain, and on what it is told: everybody builds releases with this one, for the oldest processors.
GOTOOLCHAIN=go$(sed -n 's/^go_toolchain=//p' scripts/setup.sh)
export GOTOOLCHAIN GOFLAGS=-mod=readonly GOAMD64=v1 GOARM64=v8.0
vsn=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' erlang/src/quic_dist.app.src)
for target in "$@"; do
    QUIC_DIST_TARGET=$target escript scripts/executable.escript build "$built/$target/quicdistd"
done
root=$PWD
(cd scripts/dist && go run . -version "$vsn" -root "$root" -out "$out" "$built"/*/quicdistd)

# Of the pinned archives those for the systems that were built.
pinned=$(for target in "$@"; do grep "  quicdistd-$vsn-$target\.tar\.gz$" checksums.txt || true; done | sort)
if [ -z "$pinned" ]; then
    echo "dist: $out is complete; checksums.txt has no release $vsn"
elif made=$(grep '\.tar\.gz$' "$out/SHA256SUMS" | sort) && [ "$made" = "$pinned" ]; then
    echo "dist: $out is release $vsn, as checksums.txt has it"
else
    echo "dist: these sources do not give the archives of release $vsn that checksums.txt pins: they differ from the" \
        "release's, or the version is to be raised" >&2
    exit 1
fi
