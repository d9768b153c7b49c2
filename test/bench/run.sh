#!/bin/sh
# make bench: carriers side by side on loopback. ONLY, CARRIERS and ROUNDS select; see quic_dist_bench.erl.
set -eu
cd "$(dirname "$0")/../.."
out=_build/bench
mkdir -p "$out"
erlc +debug_info -o "$out" test/bench/quic_dist_bench.erl
exec erl -noinput -pa "$PWD/$out" "$PWD/_build/default/lib/quic_dist/ebin" \
    -run quic_dist_bench main "$PWD/$out" "${CARRIERS-}" "${ONLY-}" "${ROUNDS-3}"
