%% @doc `quicdistd' by hand against real nodes: calls and their values, what goes wrong and with
%% which exit status, round trips, names, and what `doctor' finds.
-module(quic_dist_cli_SUITE).

-export([all/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([
    values/1,
    exceptions/1,
    output/1,
    large_values/1,
    no_atoms_are_left/1,
    ping_and_doctor/1,
    other_cookies/1,
    not_allowed/1,
    names_and_epmd/1,
    without_epmd/1,
    names_in_use/1,
    certificates/1,
    end_in_the_middle/1,
    quick/1
]).
%% On nodes
-export([killed/0]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, call/4, wait_log/3, wait_until/2]).

%% Exit statuses, as `quicdistd call -h' has them.
-define(OK, 0).
-define(FAILED, 1).
-define(UNREACHABLE, 3).
-define(REFUSED, 4).
-define(LOST, 5).

suite() ->
    [{timetrap, quic_dist_node:scale(60000)}].

all() ->
    [
        values,
        exceptions,
        output,
        large_values,
        no_atoms_are_left,
        ping_and_doctor,
        other_cookies,
        not_allowed,
        names_and_epmd,
        without_epmd,
        names_in_use,
        certificates,
        end_in_the_middle,
        quick
    ].

init_per_suite(Config) ->
    cookie_file("cookie", atom_to_list(quic_dist_node:cookie())),
    Config.

end_per_suite(_Config) ->
    quic_dist_node:end_run().

end_per_testcase(_Case, Config) ->
    quic_dist_node:end_case(Config).

%% Running the command

cookie_file(Name, Cookie) ->
    File = filename:join(quic_dist_node:dir(), Name),
    ok = file:write_file(File, Cookie),
    ok = file:change_mode(File, 8#400),
    File.

%% The exit status, standard output, and standard error.
cli(Words) -> cli(Words, []).

cli(Words, Env) ->
    Errors = filename:join(quic_dist_node:dir(), quic_dist_node:unique("stderr")),
    Script = "exec \"$0\" \"$@\" 2>" ++ Errors,
    Cookie = filename:join(quic_dist_node:dir(), "cookie"),
    Args = ["-c", Script, quic_dist_node:executable() | Words],
    {exit_status, Status, Out} = quic_dist_node:run(Args, #{
        exec => "/bin/sh", env => [{"QUICDISTD_COOKIE_FILE", Cookie} | Env], timeout => 30000
    }),
    {ok, Said} = file:read_file(Errors),
    ct:pal("quicdistd ~0tp: ~w~n~ts~ts", [Words, Status, Out, Said]),
    {Status, unicode:characters_to_list(iolist_to_binary(Out)), unicode:characters_to_list(Said)}.

name(#{node := Node}) -> atom_to_list(Node).

call_of(Node, M, F, A) ->
    ["call", name(Node), atom_to_list(M), atom_to_list(F), A].

says(Text, Pattern) ->
    ?assertMatch({match, _}, re:run(Text, Pattern, [unicode, dotall])).

%% Cases

%% What a function returns is printed as a term that Erlang reads as the same, and arguments arrive
%% as they were written.
values(_Config) ->
    Node = quic_dist_node:start(#{}),
    Terms = [
        42, -7, 1 bsl 70, -(1 bsl 70), 1.5, -0.25, 1.0e100, ok, 'hello world', '\x{3bb}', [],
        "text", [1, 300], [955, $x], [a | b], {}, {a, {b}}, #{}, <<>>, <<"text">>,
        #{a => 1, "k" => [#{}], <<"b">> => 2.0}, <<"\x{3bb}"/utf8>>, <<0, 255>>, <<5:3>>,
        fun lists:map/2, list_to_tuple(lists:seq(1, 300))
    ],
    Argument = lists:flatten(io_lib:format("[[~w]]", [Terms])),
    {?OK, Printed, ""} = cli(call_of(Node, erlang, hd, Argument)),
    {ok, Tokens, _} = erl_scan:string(Printed ++ "."),
    ?assertEqual({ok, Terms}, erl_parse:parse_term(Tokens)),
    Init = call(Node, fun() -> pid_to_list(whereis(init)) end) ++ "\n",
    {?OK, Init, ""} = cli(call_of(Node, erlang, whereis, "[init]")),
    {?OK, "true\n", ""} = cli(["call", name(Node), "erlang", "is_alive"]),
    {?OK, Json, ""} =
        cli(call_of(Node, maps, from_list, "[[{a,1},{<<\"b\">>,\"text\"}]]") ++ ["--json"]),
    says(Json, "\"result\":{\"a\":1,\"b\":\"text\"},\"term\":"),
    %% Nobody but the node itself heard of it, and it is gone when it has its answer.
    {?OK, "[]\n", ""} = cli(call_of(Node, erlang, nodes, "[]")),
    {?OK, Hidden, ""} = cli(call_of(Node, erlang, nodes, "[hidden]")),
    says(Hidden, "^\\[.*@.*\\]\n$"),
    wait_until(gone, fun() -> call(Node, erlang, nodes, [connected]) =:= [] end).

%% What does not return says how, with the status 1; so do values by which functions say the same.
exceptions(_Config) ->
    Node = quic_dist_node:start(#{}),
    {?FAILED, "", Error} = cli(call_of(Node, erlang, atom_to_list, "[1]")),
    says(Error, "error:badarg\n  \\[{erlang,atom_to_list,\\[1\\]"),
    {?FAILED, "", Throw} = cli(call_of(Node, erlang, throw, "[{a,\"b\"}]")),
    says(Throw, "throw:{a,\"b\"}\n$"),
    {?FAILED, "", Exit} = cli(call_of(Node, erlang, exit, "[done]")),
    says(Exit, "exit:done\n$"),
    {?FAILED, "", Undef} = cli(["call", name(Node), "Elixir.Nope", "f?"]),
    says(Undef, "error:undef\n.*'Elixir.Nope','f\\?'"),
    {?FAILED, "{error,enoent}\n", ""} = cli(call_of(Node, file, read_file, "[\"/no/such\"]")),
    {?FAILED, Json, ""} = cli(call_of(Node, erlang, throw, "[[1]]") ++ ["--json"]),
    says(Json, "\"raised\":{\"class\":\"throw\",\"reason\":\\[1\\]"),
    %% The process that ran it was ended by another one.
    {?FAILED, "", Killed} = cli(call_of(Node, quic_dist_cli_SUITE, killed, "[]")),
    says(Killed, "ended: killed\n$").

%% On a node: ends its own process from outside.
killed() ->
    Self = self(),
    spawn(fun() -> exit(Self, kill) end),
    receive
        never -> ok
    end.

%% What a function prints comes out on standard error, its value on standard output.
output(_Config) ->
    Node = quic_dist_node:start(#{}),
    Format = "[\"h\\x{e9} ~p ~ts~n\",[7,[955]]]",
    {?OK, "ok\n", [$h, 233, $\s, $7, $\s, 955, $\n]} = cli(call_of(Node, io, format, Format)),
    {?OK, "ok\n", "text"} = cli(call_of(Node, io, put_chars, "[<<\"text\">>]")),
    {?OK, "eof\n", _} = cli(call_of(Node, io, get_line, "[\"> \"]")).

%% Megabytes come in one piece, and what exceeds the bound of 64 MiB is refused in words.
large_values(_Config) ->
    Node = quic_dist_node:start(#{}),
    {?OK, Out, ""} = cli(call_of(Node, binary, copy, "[<<\"x\">>,5000000]")),
    ?assertEqual(5000000 + length("<<\"\">>\n"), length(Out)),
    {?REFUSED, "", Error} = cli(call_of(Node, binary, copy, "[<<\"x\">>,70000000]")),
    says(Error, "a frame of 7000\\d+ bytes, where at most").

%% The node gives us a name of those that it has given before, so that no call leaves an atom
%% behind.
no_atoms_are_left(_Config) ->
    Node = quic_dist_node:start(#{}),
    Count = fun() ->
        {?OK, Out, ""} = cli(call_of(Node, erlang, system_info, "[atom_count]")),
        wait_until(gone, fun() -> call(Node, erlang, nodes, [connected]) =:= [] end),
        list_to_integer(string:trim(Out))
    end,
    _ = [Count() || _ <- lists:seq(1, 3)],
    First = Count(),
    ?assertEqual([First, First, First], [Count() || _ <- lists:seq(1, 3)]).

%% ping says who answers and how quickly; doctor finds nothing wrong.
ping_and_doctor(_Config) ->
    Node = quic_dist_node:start(#{}),
    Release = erlang:system_info(otp_release),
    {?OK, Text, ""} = cli(["ping", name(Node), "--count", "3"]),
    says(Text, [name(Node), ": pong\n.*cookie.*OTP ", Release, ", quicdistd .*\\(3 to the VM\\)"]),
    {?OK, Json, ""} = cli(["ping", name(Node), "--json"]),
    Streams = "\".*\"streams\":\"bulk\",\"lanes\":8",
    says(Json, ["\"identity\":\"cookie\",\"otp\":\"", Release, Streams]),
    {?OK, Found, ""} = cli(["doctor", name(Node)]),
    lists:foreach(
        fun(Step) -> says(Found, ["(^|\n)", Step, " +ok"]) end,
        [
            "name", "here", "address", "resolve", "udp", "identity", "handshake", "release",
            "round trip"
        ]
    ),
    says(Found, "\nmtu +ok +packets of 14\\d\\d bytes pass"),
    {?OK, Steps, ""} = cli(["doctor", name(Node), "--json"]),
    says(Steps, "\"ok\":true"),
    %% Another node than the one that was meant.
    [_, Host] = string:split(name(Node), "@"),
    [Port, _] = string:split(name(Node), "@"),
    {?REFUSED, "", Other} = cli(["ping", "other@" ++ Host, "--address", Host ++ ":" ++ Port]),
    says(Other, ["the node there is ", name(Node)]).

%% With another cookie nobody gets as far as the VM; the words say where to look, and do not have
%% the cookie in them. A VM whose sidecar takes everybody still wants the cookie.
other_cookies(_Config) ->
    Node = quic_dist_node:start(#{}),
    Other = [{"QUICDISTD_COOKIE_FILE", cookie_file("other", "SOMETHINGELSE\n")}],
    {?REFUSED, "", Error} = cli(["call", name(Node), "erlang", "node"], Other),
    says(Error, "closed by the peer \\(refused\\): its log says why"),
    nomatch = string:find(Error, "SOMETHINGELSE"),
    wait_log(Node, "its cookie is not the one that this node has for it", 5000),
    {?REFUSED, Found, ""} = cli(["doctor", name(Node)], Other),
    says(Found, "\nudp +ok .*\nidentity +FAIL .*inbound connection turned away"),
    Unverified = quic_dist_node:start(#{quic_dist => [{insecure_no_verify, true}]}),
    {?REFUSED, "", Error2} = cli(["ping", name(Unverified)], Other),
    says(Error2, "cookie").

%% Who is not on the list is refused, with and without a name of his own.
not_allowed(_Config) ->
    Node = quic_dist_node:start(#{quic_dist => [{allow, ["tool@*", "*@db"]}]}),
    {?REFUSED, "", Error} = cli(["ping", name(Node)]),
    says(Error, "refused"),
    wait_log(Node, "the option allow does not name it", 5000),
    {?OK, _, ""} = cli(["ping", name(Node), "--name", "tool@here"]),
    call(Node, net_kernel, allow, [['x@y']]),
    {?REFUSED, "", _} = cli(["ping", name(Node), "--name", "tool@here"]).

%% Nodes with names are found by epmd, which names lists.
names_and_epmd(_Config) ->
    Name = quic_dist_node:unique("cli"),
    Node = quic_dist_node:start(#{name => {long, Name ++ "@127.0.0.1"}}),
    #{listen := {_, Port}} = quic_dist_node:info(Node),
    {?OK, Names, ""} = cli(["names", "127.0.0.1"]),
    says(Names, [Name, " +", integer_to_list(Port), " +epmd\n"]),
    {?OK, Text, ""} = cli(["ping", name(Node)]),
    says(Text, "the port mapper of 127.0.0.1 .* says so"),
    {?UNREACHABLE, "", Error} = cli(["ping", "nobody" ++ Name ++ "@127.0.0.1"]),
    says(Error, "does not know the name nobody.*is the node up"),
    quic_dist_node:stop(Node),
    {?UNREACHABLE, "", _} = cli(["ping", name(Node)]).

%% The registry of quic_epmd is asked as epmd is, and a node with two carriers reached by QUIC; one
%% that has TCP alone is said to. A file of nodes does without both.
without_epmd(_Config) ->
    NamePort = quic_dist_node:free_port(),
    Start = fun(Carrier) ->
        quic_dist_node:start(#{
            carrier => Carrier,
            name => {long, quic_dist_node:unique("cli") ++ "@127.0.0.1"},
            args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
            quic_dist => [{name_port, NamePort}]
        })
    end,
    [Both, Tcp] = [Start([quic, inet_tcp]), Start(inet_tcp)],
    Asked = ["--epmd-port", integer_to_list(NamePort)],
    {?OK, _, ""} = cli(["ping", name(Both) | Asked]),
    {?OK, Found, ""} = cli(["doctor", name(Both) | Asked]),
    says(Found, "address +ok +.*the port mapper of 127.0.0.1 .* says so"),
    {?UNREACHABLE, "", Error} = cli(["ping", name(Tcp) | Asked]),
    says(Error, "for another carrier than those of this node"),
    {?OK, Names, ""} = cli(["names" | Asked]),
    [says(Names, hd(string:split(name(Node), "@")) ++ " +[0-9]+ +epmd\n") || Node <- [Both, Tcp]],
    #{listen := {_, Port}} = quic_dist_node:info(Both),
    File = filename:join(quic_dist_node:dir(), quic_dist_node:unique("nodes")),
    ok = file:write_file(File, io_lib:format("~s quic :~w~n", [name(Both), Port])),
    {?OK, _, ""} = cli(["ping", name(Both), "--discovery", "none", "--nodes-file", File]).

%% A name that is another's is not taken from it.
names_in_use(_Config) ->
    Node = quic_dist_node:start(#{}),
    Other = quic_dist_node:start(#{}),
    quic_dist_node:connect(Node, Other),
    {?REFUSED, "", Error} = cli(["ping", name(Node), "--name", name(Other)]),
    says(Error, "it is connected with a node of the name " ++ name(Other)),
    ?assertEqual([maps:get(node, Other)], call(Node, erlang, nodes, [])).

%% With certificates the node has to show one, and so have we: that of a host, or with a name.
certificates(_Config) ->
    Dir = filename:join(quic_dist_node:dir(), "certs"),
    {?OK, _, ""} = cli(["cert", "ca", "--out", Dir]),
    File = fun(Name) -> filename:join(Dir, Name) end,
    Name = integer_to_list(quic_dist_node:free_port()) ++ "@127.0.0.1",
    Issue = fun(For) ->
        {?OK, _, ""} = cli(["cert", "node", For, "-ca", File("ca.pem"), "-out", Dir])
    end,
    lists:foreach(Issue, [Name, "127.0.0.1", "tool@h"]),
    Node = quic_dist_node:start(#{
        name => {long, Name},
        args => ["-no_epmd"],
        quic_dist => [
            {certfile, File(Name ++ ".pem")},
            {keyfile, File(Name ++ ".key")},
            {cacertfile, File("ca.pem")}
        ]
    }),
    With = fun(Own) ->
        Files = ["--certfile", File(Own ++ ".pem"), "--keyfile", File(Own ++ ".key")],
        Files ++ ["--cacertfile", File("ca.pem")]
    end,
    {?OK, Text, ""} = cli(["ping", name(Node) | With("127.0.0.1")]),
    says(Text, "identity +certificate of .*" ++ Name),
    {?OK, _, ""} = cli(["ping", name(Node), "--name", "tool@h" | With("tool@h")]),
    {2, "", NoName} = cli(["ping", name(Node) | With("tool@h")]),
    says(NoName, "say --name"),
    {?REFUSED, "", _} = cli(["ping", name(Node), "--name", "other@h" | With("tool@h")]),
    {?REFUSED, "", _} = cli(["ping", name(Node)]),
    {?REFUSED, Found, ""} = cli(["doctor", name(Node)]),
    says(Found, "identity +FAIL").

%% A node that ends, and one that does not answer, end a call.
end_in_the_middle(_Config) ->
    Node = quic_dist_node:start(#{}),
    {?LOST, "", Late} = cli(call_of(Node, timer, sleep, "[infinity]") ++ ["--timeout", "4s"]),
    says(Late, "no answer in time"),
    {?LOST, "", Ended} = cli(call_of(Node, erlang, halt, "[]")),
    says(Ended, "the connection ended").

%% A call takes next to no time beside the derivation of the cookie's key. The bound is for the
%% machines that tests run on; the figure is in the log.
quick(_Config) ->
    Node = quic_dist_node:start(#{}),
    Once = fun() ->
        {Time, {?OK, _, ""}} = timer:tc(fun() -> cli(["call", name(Node), "erlang", "node"]) end),
        Time div 1000
    end,
    Times = [Once() || _ <- lists:seq(1, 5)],
    ct:pal("milliseconds: ~w", [Times]),
    ?assert(lists:min(Times) < quic_dist_node:scale(1000)).
