#!/bin/sh
# Runs the Erlang tests against the application that make build has left in _build/default.
#   scripts/test-erlang.sh eunit
#   scripts/test-erlang.sh ct [SUITE [CASE]]  without SUITE all but the rehearsal of docs/MIGRATION.md, which takes a minute
#   scripts/test-erlang.sh consumers [CASE]   those of test/consumers, which take minutes
set -eu
cd "$(dirname "$0")/.."
unset ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS

ebin=$PWD/_build/default/lib/quic_dist/ebin # absolute: Common Test changes the folder
mkdir -p _build
tests=$(mktemp -d "$PWD/_build/test.XXXXXX")
trap 'rm -rf "$tests"' EXIT
erlc -Werror +debug_info -pa "$ebin" -o "$tests" erlang/test/*.erl
for data in erlang/test/*_SUITE_data; do
    [ ! -e "$data" ] || cp -R "$data" "$tests"
done

# Evaluates $1, which must give true; the arguments behind it are init:get_plain_arguments().
erlang() {
    expression=$1
    shift
    erl -noinput -pa "$ebin" -pa "$tests" \
        -eval "halt(case begin $expression end of true -> 0; _ -> 1 end)." -extra "$@"
}

# Runs Common Test on what is in $tests: all of it, or a suite, or a case.
run_suites() {
    [ -n "$(find "$tests" -name '*_SUITE.beam')" ] || exit 0
    logs=$PWD/_build/ct-logs
    mkdir -p "$logs"
    # A case that is skipped because its set-up crashed counts as a failure.
    # shellcheck disable=SC2016 # Erlang's own dollar signs and quotes
    erlang '
        [Logs, Tests | Only] = init:get_plain_arguments(),
        %% A case stands by itself, or in groups, and then is run in each of them.
        Selected = case [list_to_atom(Name) || Name <- Only] of
            [] -> [];
            [Suite] -> [{suite, Suite}];
            [Suite, Case] ->
                Groups = [{group, all} || not lists:member(Case, Suite:all())],
                [{suite, Suite}, {testcase, Case}] ++ Groups
        end,
        {Passed, Failed, {_, Skipped}} = ct:run_test(
            [{dir, Tests}, {logdir, Logs}, {auto_compile, false} | Selected]),
        Passed > 0 andalso Failed + Skipped =:= 0' "$logs" "$tests" "$@"
}

case $1 in
    eunit)
        # shellcheck disable=SC2046 # a list of words
        erlang 'ok =:= eunit:test([list_to_atom(M) || M <- init:get_plain_arguments()])' \
            $(cd "$tests" && find . -name '*_tests.beam' | sort | sed 's/..\(.*\).beam/\1/')
        ;;
    ct)
        shift
        [ $# -gt 0 ] || rm "$tests/quic_epmd_migration_SUITE.beam"
        run_suites "$@"
        ;;
    consumers)
        shift
        find "$tests" -name '*_SUITE.beam' -delete
        erlc -Werror +debug_info -o "$tests" test/consumers/*.erl
        run_suites consumers_SUITE "$@"
        ;;
esac
