#!/bin/sh
# Builds the executable for each system that releases are made for, and packs it: archives, bills of materials and
# SHA256SUMS go into the folder that is named. A released version has to give the archives that checksums.txt pins.
#   scripts/dist.sh _build/dist
set -eu
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: scripts/dist.sh FOLDER" >&2; exit 2; }

mkdir -p "$1"
out=$(cd "$1" && pwd)
rm -f "$out"/quicdistd-* "$out/SHA256SUMS"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

# The bytes depend on the toolchain: everybody builds releases with this one.
GOTOOLCHAIN=go$(sed -n 's/^go_toolchain=//p' scripts/setup.sh)
export GOTOOLCHAIN
vsn=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' erlang/src/quic_dist.app.src)
for target in linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64 freebsd-amd64; do
    QUIC_DIST_TARGET=$target escript scripts/executable.escript build "$built/$target/quicdistd"
done
root=$PWD
(cd scripts/dist && go run . -version "$vsn" -root "$root" -out "$out" "$built"/*/quicdistd)

pinned=$(grep "  quicdistd-$vsn-" checksums.txt || true)
if [ -z "$pinned" ]; then
    echo "dist: $out is complete; checksums.txt has no release $vsn"
elif made=$(grep '\.tar\.gz$' "$out/SHA256SUMS") && [ "$made" = "$pinned" ]; then
    echo "dist: $out is release $vsn, as checksums.txt has it"
else
    echo "dist: these sources do not give the archives of release $vsn that checksums.txt pins: they differ from the" \
        "release's, or the version is to be raised" >&2
    exit 1
fi
