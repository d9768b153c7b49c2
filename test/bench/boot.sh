#!/bin/sh
# How long a node takes from its command line until its code runs and it is alive: with -proto_dist quic, and with inet_tcp. Medians of
# ROUNDS (21), taken in turn. Fails if quic is more than LIMIT (150) ms later.
#   make build && test/bench/boot.sh
set -eu
cd "$(dirname "$0")/../.."

ebin=$PWD/_build/default/lib/quic_dist/ebin
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# One boot in ms, with these arguments. Without epmd: starting that would be another matter.
boot() {
    began=$(date +%s%N)
    ended=$(erl -noinput -name n@127.0.0.1 -start_epmd false -erl_epmd_port 17017 -setcookie c -pa "$ebin" "$@" \
        -eval 'true = is_alive(), io:put_chars(integer_to_list(os:system_time(nanosecond))), halt(0, [{flush, true}]).')
    echo $(((ended - began) / 1000000))
}

median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }

for _ in $(seq "${ROUNDS:-21}"); do
    boot >>"$out/inet_tcp"
    boot -proto_dist quic >>"$out/quic"
done
tcp=$(median "$out/inet_tcp") quic=$(median "$out/quic")
echo "boot: inet_tcp $tcp ms, quic $quic ms: $((quic - tcp)) ms later"
[ $((quic - tcp)) -le "${LIMIT:-150}" ]
