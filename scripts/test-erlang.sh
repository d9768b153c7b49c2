#!/bin/sh
# Runs the Erlang tests against the application that make build has left in _build/default.
#   scripts/test-erlang.sh eunit
#   scripts/test-erlang.sh ct [SUITE [CASE]]  without SUITE all suites, two to four at a time, and at the end the
#                                             ten slowest cases
#   scripts/test-erlang.sh consumers [CASE]   those of test/consumers, which take minutes
#   scripts/test-erlang.sh rabbitmq           those of test/rabbitmq, with Debian's RabbitMQ
# A suite says by `userdata' in its suite/0 when it runs: `alone', because it measures times, or `by_name' only.
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

# The suites that run in this way: together, alone or by_name. Those that took longest in the last run come first, and
# before these the ones that were not in it, the largest first.
suites() {
    names=$(erlang '
        [When, Tests] = init:get_plain_arguments(),
        lists:all(
            fun(File) ->
                Suite = list_to_atom(filename:basename(File, ".beam")),
                case proplists:get_value(userdata, Suite:suite(), together) =:= list_to_atom(When) of
                    true -> io:format("~s~n", [Suite]);
                    false -> ok
                end =:= ok
            end,
            filelib:wildcard(Tests ++ "/*_SUITE.beam"))' "$1" "$tests")
    for suite in $names; do
        took=$(cat "$times/$suite" 2>/dev/null || echo 99999)
        echo "$took $(wc -c <"erlang/test/$suite.erl") $suite"
    done | sort -k 1,1nr -k 2,2nr | cut -d ' ' -f 3
}

# Runs suites, $1 of them at a time: for most of their time they wait.
run_suites() {
    at_once=$1
    shift
    printf '%s\n' "$@" | xargs -n 1 -P "$at_once" scripts/test-erlang.sh suite "$tests"
}

times=_build/ct-times # how long each suite took, in seconds, a file each

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
            mkdir -p "$times"
            touch "$tests/began"
            together=$(suites together)
            alone=$(suites alone)
            at_once=$(getconf _NPROCESSORS_ONLN)
            [ "$at_once" -ge 2 ] || at_once=2
            [ "$at_once" -le 4 ] || at_once=4 # they take ports from the same range
            status=0
            # shellcheck disable=SC2086 # lists of words
            run_suites "$at_once" $together || status=1
            # shellcheck disable=SC2086 # a list of words
            run_suites 1 $alone || status=1
            echo "The slowest cases, in seconds:"
            scripts/slowest-tests.sh /dev/null "$tests/began"
            exit "$status"
        fi
        ;;
    suite)
        # All of what one says together.
        status=0
        began=$(date +%s)
        run_suite 0 "$3" >"$tests/$3.log" 2>&1 || status=$?
        echo $(($(date +%s) - began)) >"$times/$3"
        cat "$tests/$3.log"
        exit "$status"
        ;;
    consumers)
        shift
        erlc -Werror +debug_info -o "$tests" test/consumers/*.erl
        run_suite 1 consumers_SUITE "$@"
        ;;
    rabbitmq)
        plugins=$(echo /usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins) # have the AMQP client
        ERL_LIBS=$plugins erlc -Werror +debug_info -o "$tests" test/rabbitmq/*.erl
        run_suite 1 rabbitmq_SUITE
        ;;
esac
