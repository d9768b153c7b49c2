%% @doc `quicdistd' works by hand against real nodes: calls and their values, errors and exit
%% statuses, round trips, names, and the findings of `doctor'.
-module(quic_dist_cli_SUITE).

-export([all/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1]).
-export([
    values/1,
    exceptions/1,
    output/1,
    terminal/1,
    texts/1,
    cookie_from_standard_input/1,
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

-import(quic_dist_node, [call/2, call/4, wait_log/3]).
-import(quic_dist_wait, [wait_until/2]).

%% Exit statuses, as `quicdistd call -h' has them.
-define(OK, 0).
-define(FAILED, 1).
-define(USAGE, 2).
-define(UNREACHABLE, 3).
-define(REFUSED, 4).
-define(LOST, 5).

%% It measures times that have a limit: no other suite runs beside it.
suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, quic_dist_wait:scale(60000)}, {userdata, alone}].

all() ->
    [
        values,
        exceptions,
        output,
        terminal,
        texts,
        cookie_from_standard_input,
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
    cookie_file("cookie", atom_to_list(quic_dist_run:cookie())),
    Config.

end_per_suite(_Config) ->
    ok.

%% Running the command

cookie_file(Name, Cookie) ->
    File = filename:join(quic_dist_run:dir(), Name),
    ok = file:write_file(File, Cookie),
    ok = file:change_mode(File, 8#400),
    File.

%% The exit status, standard output, and standard error.
cli(Words) -> cli(Words, []).

cli(Words, Env) ->
    Errors = filename:join(quic_dist_run:dir(), quic_dist_run:unique("stderr")),
    Script = "exec \"$0\" \"$@\" 2>" ++ Errors,
    Cookie = filename:join(quic_dist_run:dir(), "cookie"),
    Args = ["-c", Script, quic_dist_run:executable() | Words],
    {exit_status, Status, Out} = quic_dist_command:run(Args, #{
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

%% A function's value is printed as a term that Erlang reads back, and arguments arrive as they
%% were written.
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

%% A call that does not return says how it ended, with status 1. So does a value by which a
%% function reports an error.
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

%% What a function prints goes to standard error, its value to standard output.
output(_Config) ->
    Node = quic_dist_node:start(#{}),
    Format = "[\"h\\x{e9} ~p ~ts~n\",[7,[955]]]",
    {?OK, "ok\n", [$h, 233, $\s, $7, $\s, 955, $\n]} = cli(call_of(Node, io, format, Format)),
    {?OK, "ok\n", "text"} = cli(call_of(Node, io, put_chars, "[<<\"text\">>]")),
    {?OK, "eof\n", _} = cli(call_of(Node, io, get_line, "[\"> \"]")).

%% What a function prints cannot command the terminal that shows it. A file gets it unchanged.
terminal(_Config) ->
    Node = quic_dist_node:start(#{}),
    Words = call_of(Node, io, put_chars, "[\"\\e[31mred\\e]0;title\\x{7}\\x{9b}1m\\n\"]"),
    {?OK, "ok\n", "\e[31mred\e]0;title\x{7}\x{9b}1m\n"} = cli(Words),
    Quoted = ["'" ++ Word ++ "'" || Word <- [quic_dist_run:executable() | Words]],
    Cookie = filename:join(quic_dist_run:dir(), "cookie"),
    Script = ["-qec", lists:append(lists:join(" ", Quoted)), "/dev/null"],
    {exit_status, ?OK, Screen} = quic_dist_command:run(Script, #{
        exec => os:find_executable("script"),
        env => [{"QUICDISTD_COOKIE_FILE", Cookie}],
        timeout => 30000
    }),
    ?assertEqual("\\u001b[31mred\\u001b]0;title\\u0007\\u009b1m\r\nok\r\n", Screen).

%% A text is no list of arguments; in one it is an argument.
texts(_Config) ->
    Node = quic_dist_node:start(#{}),
    {?USAGE, "", Error} = cli(call_of(Node, erlang, list_to_atom, "\"abc\"")),
    says(Error, "the arguments are a list: '\\[\"abc\"\\]'"),
    {?OK, "abc\n", ""} = cli(call_of(Node, erlang, list_to_atom, "[\"abc\"]")).

%% The cookie comes from standard input where it is in no file: that is how a container gives it.
cookie_from_standard_input(_Config) ->
    Node = quic_dist_node:start(#{}),
    Script = "printf %s \"$COOKIE\" | exec \"$0\" ping --cookie-file - " ++ name(Node),
    Run = fun(Cookie) ->
        quic_dist_command:run(["-c", Script, quic_dist_run:executable()], #{
            exec => "/bin/sh",
            env => [{"COOKIE", Cookie}, {"HOME", "/nonexistent"}],
            timeout => 30000
        })
    end,
    {exit_status, ?OK, Pong} = Run(atom_to_list(quic_dist_run:cookie())),
    says(Pong, ": pong\n"),
    {exit_status, ?REFUSED, _} = Run("another").

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

%% ping says which node answers and how quickly; doctor finds nothing wrong.
ping_and_doctor(_Config) ->
    Node = quic_dist_node:start(#{}),
    Release = erlang:system_info(otp_release),
    {?OK, Text, ""} = cli(["ping", name(Node), "--count", "3"]),
    says(Text, [
        "^", name(Node), ": pong\n  address     127.0.0.1:[0-9]+ \\(from its name\\)\n",
        ".*cookie.*OTP ", Release, ", quicdistd .*bulk, at most 8 lanes and [0-9]+ connections\n",
        ".* at worst, of 3\n$"
    ]),
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
    says(Other, [name(Node), " answered, not other@", Host, ": use that name"]),
    {?REFUSED, Wrong, ""} = cli(["doctor", "other@" ++ Host, "--address", Host ++ ":" ++ Port]),
    says(Wrong, ["identity +FAIL .*-> call it ", name(Node), "\n$"]).

%% A call with another cookie does not reach the VM. The message says where to look, and does not
%% contain the cookie. A VM whose sidecar accepts every peer still demands the cookie.
other_cookies(_Config) ->
    Node = quic_dist_node:start(#{}),
    Other = [{"QUICDISTD_COOKIE_FILE", cookie_file("other", "SOMETHINGELSE\n")}],
    {?REFUSED, "", Error} = cli(["call", name(Node), "erlang", "node"], Other),
    says(Error, "refused by the peer. See its log. Usual causes: a different cookie;"),
    nomatch = string:find(Error, "SOMETHINGELSE"),
    wait_log(Node, "its cookie is not the one that this node has for it", 5000),
    {?REFUSED, Found, ""} = cli(["doctor", name(Node)], Other),
    says(Found, "\nudp +ok .*\nidentity +FAIL .*inbound connection turned away"),
    Unverified = quic_dist_node:start(#{quic_dist => [{insecure_no_verify, true}]}),
    {?REFUSED, "", Error2} = cli(["ping", name(Unverified)], Other),
    says(Error2, "cookie").

%% A caller that `allow' does not list is refused, with and without a name of its own.
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
    Name = quic_dist_run:unique("cli"),
    Node = quic_dist_node:start(#{name => {long, Name ++ "@127.0.0.1"}}),
    #{listen := {_, Port}} = quic_dist_node:info(Node),
    {?OK, Names, ""} = cli(["names", "127.0.0.1"]),
    says(Names, [Name, " +", integer_to_list(Port), " +epmd\n"]),
    {?OK, Text, ""} = cli(["ping", name(Node)]),
    says(Text, "from the port mapper of 127.0.0.1"),
    {?UNREACHABLE, "", Error} = cli(["ping", "nobody" ++ Name ++ "@127.0.0.1"]),
    says(Error, "does not know the name nobody.*is the node up"),
    quic_dist_node:stop(Node),
    {?UNREACHABLE, "", _} = cli(["ping", name(Node)]).

%% The registry of quic_epmd is asked as epmd is, and a node with two carriers reached by QUIC; one
%% that has TCP alone is said to. A file of nodes does without both.
without_epmd(_Config) ->
    NamePort = quic_dist_run:free_port(),
    Start = fun(Carrier) ->
        quic_dist_node:start(#{
            carrier => Carrier,
            name => {long, quic_dist_run:unique("cli") ++ "@127.0.0.1"},
            args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
            quic_dist => [{name_port, NamePort}]
        })
    end,
    [Both, Tcp] = [Start([quic, inet_tcp]), Start(inet_tcp)],
    Asked = ["--epmd-port", integer_to_list(NamePort)],
    {?OK, _, ""} = cli(["ping", name(Both) | Asked]),
    {?OK, Found, ""} = cli(["doctor", name(Both) | Asked]),
    says(Found, "address +ok +.*from the port mapper of 127.0.0.1"),
    {?UNREACHABLE, "", Error} = cli(["ping", name(Tcp) | Asked]),
    says(Error, "for another carrier than those of this node"),
    {?OK, Names, ""} = cli(["names" | Asked]),
    [says(Names, hd(string:split(name(Node), "@")) ++ " +[0-9]+ +epmd\n") || Node <- [Both, Tcp]],
    #{listen := {_, Port}} = quic_dist_node:info(Both),
    File = filename:join(quic_dist_run:dir(), quic_dist_run:unique("nodes")),
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
    Dir = filename:join(quic_dist_run:dir(), "certs"),
    {?OK, _, ""} = cli(["cert", "ca", "--out", Dir]),
    File = fun(Name) -> filename:join(Dir, Name) end,
    Name = integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1",
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
    says(Found, "identity +FAIL.*-> that node wants certificates: give --certfile, --keyf"),
    %% Those that a certificate does not help are told another thing.
    OtherDir = Dir ++ "2",
    Foreign = fun(File2) -> filename:join(OtherDir, File2) end,
    {?OK, _, ""} = cli(["cert", "ca", "--out", OtherDir]),
    {?OK, _, ""} = cli(["cert", "node", "127.0.0.1", "--ca", Foreign("ca.pem"), "--out", OtherDir]),
    {?REFUSED, Other, ""} = cli([
        "doctor", name(Node), "--cacertfile", Foreign("ca.pem"),
        "--certfile", Foreign("127.0.0.1.pem"), "--keyfile", Foreign("127.0.0.1.key")
    ]),
    says(Other, "identity +FAIL.*-> one side does not trust the other").

%% A node that ends, and one that does not answer, end a call.
end_in_the_middle(_Config) ->
    Node = quic_dist_node:start(#{}),
    {?LOST, "", Late} = cli(call_of(Node, timer, sleep, "[infinity]") ++ ["--timeout", "4s"]),
    says(Late, "^quicdistd call: call: no answer within 4s \\(--timeout\\)\n$"),
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
    ?assert(lists:min(Times) < quic_dist_wait:scale(1000)).
