#!/bin/sh
# Runs a command as on a machine that has nothing but the release: no Erlang, no Elixir, no Go, no C compiler; no file can be
# written but those of a new /tmp, and with CAGE_TMP=none only those of /tmp/out; the user owns nothing. Needs root.
#   cage.sh FOLDER COMMAND...  FOLDER is found at /mnt
set -eu
if [ "${CAGED-}" != yes ]; then
    exec unshare -m env CAGED=yes "$0" "$@"
fi
unset CAGED
mount --bind "$1" /mnt
mount -o remount,bind,ro /mnt
shift
for tools in /usr/lib/erlang /usr/lib/elixir /usr/lib/go* /usr/share/go* /usr/local/go /usr/lib/gcc /usr/libexec/gcc "${GOROOT-/none}"; do
    [ ! -d "$tools" ] || mount -t tmpfs none "$tools"
done
mount -t tmpfs -o mode=1777 none /tmp
mkdir -m 1777 /tmp/out
if [ "${CAGE_TMP-}" = none ]; then
    mount -t tmpfs -o mode=1777 none /tmp/out
    mount -o remount,ro /tmp
fi
mount -o remount,bind,ro /
PATH=/usr/bin:/bin
cd /
exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent "$@"
