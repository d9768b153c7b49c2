#!/bin/sh
# Carriers side by side, with the Erlang that is first in PATH or that ERL names.
#   test/bench/run.sh      make bench: on loopback, see quic_dist_bench.erl
#   test/bench/run.sh wan  make wan: over emulated links, see ../wan/quic_dist_wan.erl
# ONLY, LINKS, CARRIERS, ROUNDS and SECONDS select. A selection has a result file of its own.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin # ip
[ -z "${ERL-}" ] || PATH=$(dirname "$ERL"):$PATH
release=$(erl -noinput -boot start_clean -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')
out=_build/bench/otp-$release
case ${1-} in
    wan) driver=quic_dist_wan kind=wan selection=wan-selection ;;
    *) driver=quic_dist_bench kind=results selection=selection ;;
esac
[ -z "${ONLY-}${LINKS-}${CARRIERS-}" ] || kind=$selection
json=_build/bench/$kind-otp$release.json

# Compiled by the release that is measured: another one may not load them.
mkdir -p "$out/bench" "$out/quic_dist/ebin"
erlc -o "$out/quic_dist/ebin" -pa "$out/quic_dist/ebin" erlang/src/*.erl
cp erlang/src/quic_dist.app.src "$out/quic_dist/ebin/quic_dist.app"
ln -sfn ../../../../priv "$out/quic_dist/priv"
erlc -o "$out/bench" test/bench/*.erl test/wan/*.erl

rm -f "$json.new"
status=0
erl -noinput -pa "$PWD/$out/bench" "$PWD/$out/quic_dist/ebin" -run "$driver" main "$PWD/$out" "$json.new" || status=$?
if [ -e "$json.new" ]; then
    mv "$json.new" "$json"
    _build/bench/report "$json"
fi
exit "$status"
