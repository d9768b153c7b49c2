#!/bin/sh
# Keeps some of what fuzzing on this machine found interesting in the repository, where each run of the tests takes it: of
# each target up to 48 inputs of at most 2 KB, of all sizes. To be run after a long make fuzz.
set -eu
cd "$(dirname "$0")/.."
cache=$(go env GOCACHE)/fuzz/$(go list -m)
find . -path '*/testdata/fuzz/Fuzz*' -prune -exec rm -r {} +
find "$cache" -mindepth 2 -type d -name 'Fuzz*' | while read -r found; do
    package=${found#"$cache/"}
    package=${package%/*}
    target=$package/testdata/fuzz/${found##*/}
    grep -qs "^func ${found##*/}(" "$package"/*_test.go || continue
    mkdir -p "$target"
    find "$found" -type f -size -2049c -printf '%s %f\n' | sort -n | awk '
        { name[NR] = $2 }
        END { n = NR < 48 ? NR : 48; for (i = 0; i < n; i++) print name[1 + int(i * NR / n)] }' |
        while read -r name; do cp "$found/$name" "$target/"; done
done
