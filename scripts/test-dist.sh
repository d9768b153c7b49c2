#!/bin/sh
# Releases can be built again: two copies of these sources in two folders give the same archives, checksums and bills of
# materials, and the executable for this system is the same when even Go's standard library is compiled again (for all six
# systems that would take a quarter of an hour).
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
for copy in first the/second; do
    mkdir -p "$work/$copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -P --parents -t "$work/$copy"
done
"$work/first/scripts/dist.sh" "$work/out.1"
"$work/the/second/scripts/dist.sh" "$work/out.2"
diff -r "$work/out.1" "$work/out.2"
(cd "$work/out.2" && sha256sum --quiet -c SHA256SUMS)

vsn=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' erlang/src/quic_dist.app.src)
name=quicdistd-$vsn-$(go env GOOS)-$(go env GOARCH)
GOTOOLCHAIN=go$(sed -n 's/^go_toolchain=//p' scripts/setup.sh) GOCACHE=$work/cache \
    escript "$work/the/second/scripts/executable.escript" build "$work/again"
tar -xzOf "$work/out.1/$name.tar.gz" "$name/quicdistd" | cmp - "$work/again"

# What is pinned and cannot be built again is refused.
grep '\.tar\.gz$' "$work/out.1/SHA256SUMS" >"$work/first/checksums.txt"
"$work/first/scripts/dist.sh" "$work/out.3"
sed -i "s/^......../00000000/" "$work/first/checksums.txt"
if "$work/first/scripts/dist.sh" "$work/out.3" 2>"$work/said"; then
    echo "make dist takes archives of $vsn that are not those of checksums.txt" >&2
    exit 1
fi
grep -q "do not give the archives" "$work/said"
echo "make dist gives the same bytes twice"
