#!/bin/sh
# Runs the Erlang tests against the application that make build has left in _build/default.
#   scripts/test-erlang.sh eunit
#   scripts/test-erlang.sh ct [SUITE [CASE]]  without SUITE all but the rehearsal of docs/MIGRATION.md, which takes a minute, two
#                                             at a time
#   scripts/test-erlang.sh consumers [CASE]   those of test/consumers, which take minutes
set -eu
cd "$(dirname "$0")/.."
unset ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS

ebin=$PWD/_build/default/lib/quic_dist/ebin # absolute: Common Test changes the folder
if [ "$1" = suite ]; then # one of many, for which all is compiled
    tests=$2
else
    mkdir -p _build
    tests=$(mktemp -d "$PWD/_build/test.XXXXXX")
    trap 'rm -rf "$tests"' EXIT
    erlc -Werror +debug_info -pa "$ebin" -o "$tests" erlang/test/*.erl
    for data in erlang/test/*_SUITE_data; do
        [ ! -e "$data" ] || cp -R "$data" "$tests"
    done
fi

# Evaluates $1, which must give true; the arguments behind it are init:get_plain_arguments().
erlang() {
    expression=$1
    shift
    erl -noinput -pa "$ebin" -pa "$tests" \
        -eval "halt(case begin $expression end of true -> 0; _ -> 1 end)." -extra "$@"
}

# Runs Common Test on a suite in $tests, or a case of it. $1 is how many cases have to pass at least: some suites skip
# themselves where what they need is not there.
run_suite() {
    logs=$PWD/_build/ct-logs/$2
    mkdir -p "$logs"
    # A case that is skipped because its set-up crashed counts as a failure.
    # shellcheck disable=SC2016 # Erlang's own dollar signs and quotes
    erlang '
        [Least, Logs, Tests | Names] = init:get_plain_arguments(),
        [Suite | Case] = [list_to_atom(Name) || Name <- Names],
        %% A case stands by itself, or in groups, and then is run in each of them.
        Groups = [{group, all} || Name <- Case, not lists:member(Name, Suite:all())],
        {Passed, Failed, {_, Skipped}} = ct:run_test(
            [{dir, Tests}, {suite, Suite}, {logdir, Logs}, {auto_compile, false} | Groups] ++
            [{testcase, Name} || Name <- Case]),
        Passed >= list_to_integer(Least) andalso Failed + Skipped =:= 0' "$1" "$logs" "$tests" "$2" ${3+"$3"}
}

# Runs these suites, $1 of them at a time: for most of their time they wait.
run_suites() {
    at_once=$1
    shift
    printf '%s\n' "$@" | xargs -n 1 -P "$at_once" scripts/test-erlang.sh suite "$tests"
}

case $1 in
    eunit)
        # shellcheck disable=SC2046 # a list of words
        erlang 'ok =:= eunit:test([list_to_atom(M) || M <- init:get_plain_arguments()])' \
            $(cd "$tests" && find . -name '*_tests.beam' | sort | sed 's/..\(.*\).beam/\1/')
        ;;
    ct)
        shift
        if [ $# -gt 0 ]; then
            run_suite 1 "$@"
        else
            # The longest begin, and those that measure what a limit is set for have the machine to themselves.
            longest="quic_dist_SUITE quic_dist_faults_SUITE quic_dist_order_SUITE"
            measuring="quic_dist_auth_SUITE quic_dist_cli_SUITE quic_dist_inside_SUITE"
            # shellcheck disable=SC2086 # lists of words
            apart=$(printf '%s\n' $longest $measuring quic_epmd_migration_SUITE)
            others=$(cd "$tests" && find . -name '*_SUITE.beam' | sort | sed 's/..\(.*\).beam/\1/' | grep -vxF "$apart")
            status=0
            # shellcheck disable=SC2086 # lists of words
            run_suites 2 $longest $others || status=1
            # shellcheck disable=SC2086 # a list of words
            run_suites 1 $measuring || status=1
            exit "$status"
        fi
        ;;
    suite)
        # All of what one says together.
        status=0
        run_suite 0 "$3" >"$tests/$3.log" 2>&1 || status=$?
        cat "$tests/$3.log"
        exit "$status"
        ;;
    consumers)
        shift
        erlc -Werror +debug_info -o "$tests" test/consumers/*.erl
        run_suite 1 consumers_SUITE "$@"
        ;;
esac
