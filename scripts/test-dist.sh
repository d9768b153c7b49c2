#!/bin/sh
# Releases can be built again: two copies of these sources in two folders, the second compiled from nothing, give the same
# archives, checksums and bills of materials.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
for copy in first the/second; do
    mkdir -p "$work/$copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -P --parents -t "$work/$copy"
done
"$work/first/scripts/dist.sh" "$work/out.1"
GOCACHE=$work/cache "$work/the/second/scripts/dist.sh" "$work/out.2"
diff -r "$work/out.1" "$work/out.2"
(cd "$work/out.2" && sha256sum --quiet -c SHA256SUMS)

# What is pinned and cannot be built again is refused.
vsn=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' erlang/src/quic_dist.app.src)
grep '\.tar\.gz$' "$work/out.1/SHA256SUMS" >"$work/first/checksums.txt"
"$work/first/scripts/dist.sh" "$work/out.3"
sed -i "s/^......../00000000/" "$work/first/checksums.txt"
if "$work/first/scripts/dist.sh" "$work/out.3" 2>"$work/said"; then
    echo "make dist takes archives of $vsn that are not those of checksums.txt" >&2
    exit 1
fi
grep -q "do not give the archives" "$work/said"
echo "make dist gives the same bytes twice"
