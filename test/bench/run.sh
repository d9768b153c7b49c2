#!/bin/sh
# make bench: carriers side by side on loopback, with the Erlang that is first in PATH or that ERL names.
# ONLY, CARRIERS and ROUNDS select, see quic_dist_bench.erl. A selection has a result file of its own.
set -eu
cd "$(dirname "$0")/../.."
[ -z "${ERL-}" ] || PATH=$(dirname "$ERL"):$PATH
release=$(erl -noinput -boot start_clean -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')
out=_build/bench/otp-$release
json=_build/bench/results-otp$release.json
[ -z "${ONLY-}${CARRIERS-}" ] || json=_build/bench/selection-otp$release.json

# Compiled by the release that is measured: another one may not load them.
mkdir -p "$out/bench" "$out/quic_dist/ebin"
erlc -o "$out/quic_dist/ebin" -pa "$out/quic_dist/ebin" erlang/src/*.erl
cp erlang/src/quic_dist.app.src "$out/quic_dist/ebin/quic_dist.app"
ln -sfn ../../../../erlang/priv "$out/quic_dist/priv"
erlc -o "$out/bench" test/bench/*.erl

rm -f "$json.new"
status=0
erl -noinput -pa "$PWD/$out/bench" "$PWD/$out/quic_dist/ebin" \
    -run quic_dist_bench main "$PWD/$out" "$json.new" "${CARRIERS-}" "${ONLY-}" "${ROUNDS-3}" || status=$?
if [ -e "$json.new" ]; then
    mv "$json.new" "$json"
    _build/bench/report "$json"
fi
exit "$status"
