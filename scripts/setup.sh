#!/bin/sh
# Makes a machine ready: installs the Debian packages (bookworm or trixie) that are missing, and says which before it does. Where
# it cannot install, it says what is missing and ends with status 1. Says nothing when all is there, which takes half a second.
#   scripts/setup.sh build [COMMAND:PACKAGE...]  for make build and make demo: Erlang, rebar3, Go
#   scripts/setup.sh test [COMMAND:PACKAGE...]   for make test too: a C compiler for the race detector, openssl, ip, ...
#   scripts/setup.sh all [COMMAND:PACKAGE...]    for make check too: shellcheck, dialyzer, edoc
# The pairs at the end are further commands that must be there.
set -eu
stage=${1-}
case $stage in
    build | test | all) shift ;;
    *) sed -n '2,/^set -eu/s/^# //p' "$0" >&2; exit 2 ;;
esac
further=$*
cd "$(dirname "$0")/.."
PATH=$PWD/_tools/go/bin:$PATH

otp=25
go=1.26
go_toolchain=1.26.8
# For rebar3, and for the headers of the sources.
commands="make:make rebar3:rebar3"
applications="asn1 crypto inets parsetools public_key ssl syntax_tools tools"
headers="kernel/include/dist_util.hrl"
if [ "$stage" != build ]; then
    commands="$commands gcc:gcc git:git openssl:openssl ip:iproute2"
    applications="$applications common_test eunit runtime_tools proper"
    headers="$headers eunit/include/eunit.hrl common_test/include/ct.hrl proper/include/proper.hrl"
fi
if [ "$stage" = all ]; then
    commands="$commands shellcheck:shellcheck"
    applications="$applications dialyzer edoc xmerl"
fi

# What Erlang lacks, as words: applications and include files.
erlang_lacks() {
    # shellcheck disable=SC2086 # lists of words
    erl -noinput -boot start_clean -eval '
        list_to_integer(erlang:system_info(otp_release)) >= '"$otp"' orelse
            begin io:put_chars("old"), halt() end,
        [io:put_chars([Name, $\s])
         || Name <- init:get_plain_arguments(),
            [App | Rest] <- [filename:split(Name)],
            Dir <- [code:lib_dir(list_to_atom(App))],
            is_tuple(Dir) orelse not filelib:is_file(filename:join([Dir | Rest]))],
        halt().' -extra $applications $headers
}

# The Debian packages that are missing, apart from Go.
packages() {
    for pair in $commands $further; do
        PATH=$PATH:/usr/sbin command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"
    done
    # The race detector needs cgo.
    [ "$stage" = build ] || echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || echo libc6-dev
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    if command -v erl >/dev/null; then
        lacks=$(erlang_lacks)
    else
        lacks="base $applications $headers"
    fi
    for name in $lacks; do
        case $name in
            old) echo old ;;
            proper/*) echo erlang-proper-dev ;;
            */*) echo erlang-dev ;;
            *) echo "erlang-$name" | tr _ - ;;
        esac
    done
}

# A Go that is too old for go.mod may be able to fetch the right one by itself (1.21 and later).
go_is_ready() {
    version=$(go env GOVERSION 2>/dev/null) || return 1
    printf 'go%s\n%s\n' "$go" "$version" | sort -CV
}

root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    if ! command -v apt-get >/dev/null || ! root true 2>/dev/null; then
        echo "setup: install these packages (the names are Debian's), then run this again: $*" >&2
        exit 1
    fi
    echo "setup: installing these packages with apt-get, and those that they need: $*" >&2
    root apt-get -qq update
    root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"
}

# Debian's Go is older than quic-go wants: it only fetches the toolchain, as a Go module, which the
# checksum database vouches for. A module's files carry no mode bits, and its go.mod another name.
fetch_go() {
    echo "setup: fetching Go $go_toolchain" >&2
    module=golang.org/toolchain@v0.0.1-go$go_toolchain.$(go env GOOS)-$(go env GOARCH)
    fetched=$(cd / && GO111MODULE=on GOTOOLCHAIN=local go mod download -json "$module" |
        sed -n 's/^	"Dir": "\(.*\)",*$/\1/p')
    mkdir -p _tools
    rm -rf _tools/go.new _tools/go
    cp -R "$fetched" _tools/go.new
    chmod -R u+w _tools/go.new
    chmod +x _tools/go.new/bin/* _tools/go.new/pkg/tool/*/*
    for dir in src src/cmd; do
        cp "_tools/go.new/$dir/_go.mod" "_tools/go.new/$dir/go.mod"
    done
    mv _tools/go.new _tools/go
    hash -r
}

missing=$(packages | sort -u)
command -v go >/dev/null || missing="$missing golang-go"
case $missing in
    *old*) echo "setup: Erlang/OTP $otp or later is needed" >&2; exit 1 ;;
    ?*)
        # shellcheck disable=SC2086 # a list of words
        apt_install $missing
        still=$(packages | sort -u)
        [ -z "$still" ] || { echo "setup: still missing after apt-get install: $still" >&2; exit 1; }
        ;;
esac
go_is_ready || fetch_go
