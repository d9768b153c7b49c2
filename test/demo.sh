#!/bin/sh
# make demo: two Erlang nodes talk over QUIC, and every command is shown as one would type it.
set -eu
cd "$(dirname "$0")/.."
ebin=_build/default/lib/quic_dist/ebin
a=47001@127.0.0.1
b=47002@127.0.0.1

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# The command line of a node, and what runs it; the output is marked with the node's name.
show() { printf '$ erl -name %s -setcookie demo -no_epmd -proto_dist quic -pa %s\n' "$1" "$ebin"; }
node() {
    name=$1
    shift
    erl -noinput -name "$name" -setcookie demo -no_epmd -proto_dist quic -pa "$ebin" "$@" 2>&1 |
        sed -u "s/^/    $name | /"
}

say "Node $b, in the background. The number in its name is its UDP port; there is no epmd."
show "$b"
node "$b" -eval 'timer:apply_after(60000, erlang, halt, [])' &

say "Node $a. Each expression is one that you can type into a shell of the same command line."
show "$a"
# The evaluator of the expressions behind -extra: shows each, then what it gives.
evaluate='Show = fun(Text) ->
    timer:sleep(300),
    io:format("~ts~n", [Text]),
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    io:format("=> ~tp~n~n", [Value])
end,
Await = fun Await(0) -> ok; Await(Tries) ->
    case net_adm:ping(list_to_atom(hd(init:get_plain_arguments()))) of
        pong -> ok;
        pang -> timer:sleep(100), Await(Tries - 1)
    end
end,
logger:set_primary_config(level, error),
Await(100),
lists:foreach(Show, tl(init:get_plain_arguments())),
halt(0).'
node "$a" -eval "$evaluate" -extra "$b" \
    "net_adm:ping('$b')." \
    "[node() | nodes()]." \
    "quic_dist:info()." \
    "maps:get(listen, erpc:call('$b', quic_dist, info, []))." \
    "spawn('$b', fun() -> io:format(user, \"hello, I run on ~w~n\", [node()]) end)." \
    "Data = rand:bytes(10000000), {Micros, Data} = timer:tc(erpc, call, ['$b', erlang, iolist_to_binary, [Data]]), {byte_size(Data), bytes_there_and_back_in_ms, Micros div 1000}." \
    "erpc:cast('$b', init, stop, [])."
wait
say "Both nodes have ended, and so have their sidecars. README.md has the rest."
