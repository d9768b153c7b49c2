#!/bin/bash
# The newcomer's test: set-up brings everything on a machine that has nothing. Makes a minimal Debian in a chroot, with git and
# make alone, clones HEAD into it, and runs make demo and make test there. It also checks that make demo installed neither a
# compiler nor a linter. Takes about half an hour for each suite. Needs root, a network and 4 GB in TMPDIR.
#   scripts/test-fresh.sh [SUITE...]             bookworm and trixie if none is named
#   MAKE="eunit check" scripts/test-fresh.sh     other targets than test
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-fresh: needs root, for chroot and mount" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "test-fresh: install the package debootstrap" >&2; exit 1; }
[ $# -gt 0 ] || set -- bookworm trixie
read -r -a targets <<<"${MAKE:-test}"

machine=
trap '[ -z "$machine" ] || rm -rf --one-file-system "$machine"' EXIT

# Runs a command in the machine, in its project's folder. The mounts and processes end with the command.
inside() {
    # shellcheck disable=SC2016 # the inner shell's own dollar signs
    unshare --mount --pid --fork --kill-child sh -euc '
        mount --bind "$1" "$1" # ip netns exec wants a root folder that is a mount
        mount -t proc proc "$1/proc"
        mount -t sysfs sysfs "$1/sys"
        mount --rbind /dev "$1/dev"
        exec chroot "$@"' sh "$machine" /usr/bin/env -i "${environment[@]}" sh -euc 'cd /root/quic_dist && exec "$@"' sh "$@"
}

# Of the host: what reaches the network, and how much slower the machine is than one of its own.
environment=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
for name in http_proxy https_proxy no_proxy GOPROXY GOSUMDB GONOSUMDB QUIC_DIST_TEST_SCALE; do
    [ -z "${!name-}" ] || environment+=("$name=${!name}")
done
# An authority of the host's own, such as a proxy's.
authorities=/usr/local/share/ca-certificates

for suite in "$@"; do
    machine=$(mktemp -d)
    debootstrap --variant=minbase --include=git,make "$suite" "$machine" >"$machine.log" 2>&1 ||
        { tail "$machine.log" >&2; exit 1; }
    rm "$machine.log"
    chmod 755 "$machine" # other users of the machine enter its root folder
    cp /etc/resolv.conf /etc/hosts "$machine/etc/"
    if [ -n "$(ls "$authorities" 2>/dev/null)" ]; then
        mkdir -p "$machine$authorities"
        cp "$authorities"/* "$machine$authorities/"
    fi
    git clone -q . "$machine/root/quic_dist"

    echo "test-fresh: $suite: make demo"
    inside make demo
    for program in gcc shellcheck; do
        [ ! -e "$machine/usr/bin/$program" ] ||
            { echo "test-fresh: $suite: make demo has installed $program, which it does not need" >&2; exit 1; }
    done
    echo "test-fresh: $suite: make ${targets[*]}"
    inside make "${targets[@]}"
    echo "test-fresh: $suite: passed"
    rm -rf --one-file-system "$machine"
    machine=
done
