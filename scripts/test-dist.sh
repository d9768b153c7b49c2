#!/bin/sh
# Releases can be built again: two copies of these sources in two folders give the same archives, checksums and bills of
# materials, in which neither folder stands, whatever Go is told in the environment. The two share Go's build cache, which with
# -trimpath knows no folders; hence the executable for this system is built once more without a cache.
#   scripts/test-dist.sh          for all systems that releases are made for
#   scripts/test-dist.sh OS-ARCH  for that one, with the cache alone: seconds
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
for copy in first the/second; do
    mkdir -p "$work/$copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -P --parents -t "$work/$copy"
done
"$work/first/scripts/dist.sh" "$work/out.first" "$@"
GOFLAGS=-tags=lanedelay GOAMD64=v3 GOARM64=v9.0 "$work/the/second/scripts/dist.sh" "$work/out.second" "$@"
diff -r "$work/out.first" "$work/out.second"
(cd "$work/out.second" && sha256sum --quiet -c SHA256SUMS)
for archive in "$work"/out.first/*.tar.gz; do
    if tar -xzOf "$archive" | grep -aF "$work" >/dev/null; then
        echo "$(basename "$archive") has the builder's folder in it" >&2
        exit 1
    fi
done

vsn=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' erlang/src/quic_dist.app.src)
target=$(go env GOOS)-$(go env GOARCH)
if [ $# -eq 0 ]; then
    name=quicdistd-$vsn-$target
    GOTOOLCHAIN=go$(sed -n 's/^go_toolchain=//p' scripts/setup.sh) GOCACHE=$work/cache \
        escript "$work/the/second/scripts/executable.escript" build "$work/again"
    tar -xzOf "$work/out.first/$name.tar.gz" "$name/quicdistd" | cmp - "$work/again"
fi

# What is pinned and cannot be built again is refused.
grep '\.tar\.gz$' "$work/out.first/SHA256SUMS" >"$work/first/checksums.txt"
"$work/first/scripts/dist.sh" "$work/out.third" "$@"
sed -i "s/^......../00000000/" "$work/first/checksums.txt"
if "$work/first/scripts/dist.sh" "$work/out.third" "${1-$target}" 2>"$work/said"; then
    echo "make dist takes archives of $vsn that are not those of checksums.txt" >&2
    exit 1
fi
grep -q "do not give the archives" "$work/said"
echo "make dist gives the same bytes twice"
