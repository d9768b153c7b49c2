%% @doc Options come from flags, files and the environment. A wrong option ends the boot with one
%% line that says what is accepted; a mistake that OTP would not report is a warning.
-module(quic_dist_options_SUITE).

-export([all/0, suite/0]).
-export([
    configuration_sources/1,
    precedence_of_sources/1,
    wrong_options/1,
    wrong_options_without_listening/1,
    wrong_kernel_parameters/1,
    odd_kernel_parameters/1,
    wrong_options_of_a_running_node/1,
    name_in_use/1,
    options_that_come_too_late/1,
    carriers_of_others/1,
    carrier_given_twice/1,
    names_that_nobody_finds/1,
    option_given_twice/1,
    tools_that_are_locked_out/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_command, [boot_fails/2]).
-import(quic_dist_node, [
    call/2, call/4, info/1, listens/1, log_lines/2, name/1, ping/2, ping_both_ways/2, start/1,
    wait_log/3
]).
-import(quic_dist_run, [dir/0, file/2, free_port/0, port_name/1, unique/1]).
-import(quic_dist_wait, [scale/1]).

-define(LATE, "set after distribution started, and not in use: ").
-define(UNUSED, "this node does not use QUIC: its carrier is ").
-define(NOBODY, "no other node can find this one").
-define(NO_PORT, " is not a UDP port").
-define(TOOLS, "the option allow names no tools").

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [
        configuration_sources,
        precedence_of_sources,
        wrong_options,
        wrong_options_without_listening,
        wrong_kernel_parameters,
        odd_kernel_parameters,
        wrong_options_of_a_running_node,
        name_in_use,
        options_that_come_too_late,
        carriers_of_others,
        carrier_given_twice,
        names_that_nobody_finds,
        option_given_twice,
        tools_that_are_locked_out
    ].

%% Options are taken from boot flags, from the file of -quic_dist_optfile, from -config on plain erl
%% and from application:set_env before distribution is started.
configuration_sources(_Config) ->
    [P1, P2, P3, P4, P5] = [free_port() || _ <- lists:seq(1, 5)],
    Terms = file("terms.config", io_lib:format("{listen_port, ~w}.~n{log_level, info}.~n", [P2])),
    List = file("list.config", io_lib:format("[{listen_port, ~w}].~n", [P3])),
    Sys = file(
        "sys.config", io_lib:format("[{quic_dist, [{listen_port, ~w}, {lanes, 2}]}].~n", [P4])
    ),
    Flags = ["listen_port", integer_to_list(P1), "streams", "sender", "connections", "3"],
    [
        begin
            Name = unique("n") ++ "@127.0.0.1",
            Node = start(#{name => {long, Name}, args => ["-no_epmd" | Args]}),
            ?assertEqual({{127, 0, 0, 1}, Port}, listens(Node)),
            #{options := Options} = info(Node),
            ?assertEqual(Others, maps:with(maps:keys(Others), Options))
        end
     || {Port, Args, Others} <- [
            {P1, ["-quic_dist" | Flags], #{streams => sender, connections => 3, lanes => 8}},
            {P2, ["-quic_dist_optfile", Terms], #{log_level => info, streams => bulk}},
            {P3, ["-quic_dist_optfile", List], #{log_level => notice, connections => auto}},
            {P4, ["-config", Sys], #{lanes => 2}}
        ]
    ],
    Later = start(#{name => none, args => ["-no_epmd"]}),
    call(Later, fun() ->
        ok = application:set_env(quic_dist, listen_port, P5),
        {ok, _} = net_kernel:start('later@127.0.0.1', #{name_domain => longnames})
    end),
    ?assertEqual({{127, 0, 0, 1}, P5}, listens(Later)).

%% A boot flag counts before the option file, and that before the environment. Options that only
%% lower sources name count too.
precedence_of_sources(_Config) ->
    [P1, P2, P3] = [free_port(), free_port(), free_port()],
    Options = fun(Port, Address) -> [{listen_port, Port}, {listen_address, Address}] end,
    File = file("options", io_lib:format("~p.~n", [Options(P2, "127.0.0.2")])),
    Sys = file("sys.config", io_lib:format("~p.~n", [[{quic_dist, Options(P3, "127.0.0.3")}]])),
    Flag = ["-quic_dist", "listen_port", integer_to_list(P1)],
    [
        begin
            Name = unique("n") ++ "@x.invalid",
            Node = start(#{name => {long, Name}, args => ["-no_epmd" | lists:append(Args)]}),
            ?assertEqual(Expected, listens(Node))
        end
     || {Expected, Args} <- [
            {{{127, 0, 0, 2}, P1}, [Flag, ["-quic_dist_optfile", File], ["-config", Sys]]},
            {{{127, 0, 0, 2}, P2}, [["-quic_dist_optfile", File], ["-config", Sys]]},
            {{{127, 0, 0, 3}, P1}, [["-config", Sys], Flag]}
        ]
    ].

%% A wrong option stops the boot soon, with status 1 and one line that names the option, its value,
%% its source and what is accepted.
wrong_options(_Config) ->
    [
        boot_fails(["-name", "wrong@127.0.0.1", "-no_epmd" | Args], Words)
     || {Args, Words} <- wrong_options()
    ].

%% A wrong option stops the boot of a node that does not listen, too.
wrong_options_without_listening(_Config) ->
    Args = ["-quic_dist", "log_level", "loud"],
    boot_fails(["-name", "n@127.0.0.1", "-no_epmd", "-dist_listen", "false" | Args], [
        "log_level", "loud", "boot flag", "error, warning, notice"
    ]).

%% An unusable parameter of Kernel stops the boot, with a line that names the parameter.
wrong_kernel_parameters(_Config) ->
    Source = "parameters of application kernel",
    [
        boot_fails(["-name", "wrong@127.0.0.1", "-no_epmd", "-kernel" | Args], Words)
     || {Args, Words} <- [
            {["inet_dist_use_interface", "lo"],
                ["inet_dist_use_interface = lo", Source, "any, loopback or an address"]},
            {["inet_dist_use_interface", "\"127.0.0.1\""], ["inet_dist_use_interface", "a tuple"]},
            {["inet_dist_use_interface", "{10,0,0}"], ["{10,0,0}", Source]},
            {["inet_dist_listen_min", "a"], ["inet_dist_listen_min = a", Source, "0 to 65535"]},
            {["inet_dist_listen_min", "70000"], ["inet_dist_listen_min = 70000", Source]},
            {["inet_dist_listen_min", "9200", "inet_dist_listen_max", "9100"],
                ["inet_dist_listen_max = 9100", "at least inet_dist_listen_min, 9200"]},
            {["inet_dist_listen_min", "9200", "inet_dist_listen_max", "b"],
                ["inet_dist_listen_max = b", "0 to 65535"]}
        ]
    ].

%% A node starts with odd times for which OTP takes its default, or the nearest possible time.
odd_kernel_parameters(_Config) ->
    [A, B] = [
        start(#{kernel => Kernel})
     || Kernel <- [
            [{net_ticktime, long}, {net_setuptime, short}],
            [{net_ticktime, 0}, {net_setuptime, 6.5}]
        ]
    ],
    ping_both_ways(A, B).

wrong_options() ->
    Flag = "boot flag -quic_dist",
    Missing = filename:join(dir(), "missing"),
    Script = file("script", "#!/bin/sh\nexit 7\n"),
    ok = file:change_mode(Script, 8#755),
    Syntax = file("syntax", "{listen_port, }.\n"),
    NoPair = file("no_pair", "{listen_port, 1, 2}.\n"),
    Value = file("value", "{listen_port, a}.\n"),
    Sys = file("sys.config", "[{quic_dist, [{listen_port, -1}]}].\n"),
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Taken} = inet:port(Socket),
    TakenPort = integer_to_list(Taken),
    [
        {["-quic_dist", "listen_port", "70000"], ["listen_port", "70000", Flag, "0 to 65535"]},
        {["-quic_dist", "listen_port", "{2,1}"], ["listen_port", "{2,1}", Flag, "{Min, Max}"]},
        {["-quic_dist", "listen_port"], ["listen_port", "no value", Flag, "Key Value"]},
        {["-quic_dist", "nonsense", "1"], ["nonsense", Flag, "one of certfile, ", "log_level"]},
        {["-quic_dist", "listen_address", "10.0.0"], ["listen_address", "10.0.0", Flag, "::1"]},
        {["-quic_dist", "nodes", "[{a, b}]"], ["nodes", Flag, "a list of {Node, Host, UdpPort}"]},
        {["-quic_dist", "log_level", "loud"], ["log_level", "loud", Flag, "warning, notice"]},
        {["-quic_dist", "streams", "two"], ["streams = two", Flag, "single, bulk or sender"]},
        {["-quic_dist", "lanes", "65"], ["lanes = 65", Flag, "1 to 64"]},
        {["-quic_dist", "connections", "0"], ["connections = 0", Flag, "auto, or 1 to 16"]},
        {["-quic_dist", "resume", "perhaps"], ["resume = perhaps", Flag, "true or false"]},
        {["-quic_dist", "keyfile", "/k.pem"], ["keyfile", "/k.pem", Flag, "with certfile"]},
        {["-quic_dist", "certfile", Missing], ["certfile", Missing, "no such file"]},
        {["-quic_dist", "executable", Missing], [Missing ++ ": no such file", "make build"]},
        {["-quic_dist", "executable", Script], [Script, "a script", "status 7", "quicdistd"]},
        {["-quic_dist", "listen_address", "192.0.2.1"], ["192.0.2.1", "not an address of"]},
        {["-quic_dist", "listen_port", TakenPort], [TakenPort, "in use"]},
        {["-quic_dist_optfile", Missing], [Missing, "cannot be read", "a readable file"]},
        {["-quic_dist_optfile"], ["-quic_dist_optfile", "one file name"]},
        {["-quic_dist_optfile", Syntax], [Syntax, "line 1", "syntax error", "{Key, Value}"]},
        {["-quic_dist_optfile", NoPair], [NoPair, "not {Key, Value}"]},
        {["-quic_dist_optfile", Value], ["listen_port = a", "option file " ++ Value, "0 to 65535"]},
        {["-config", Sys], ["listen_port = -1", "environment of application quic_dist", "65535"]}
    ].

%% In a VM that runs already a wrong option makes net_kernel:start return an error, logs the line,
%% and harms nothing: after a correction distribution starts. A password is in neither.
wrong_options_of_a_running_node(_Config) ->
    Node = start(#{name => none, args => ["-no_epmd"]}),
    Port = free_port(),
    Name = list_to_atom(port_name(Port)),
    Start = fun(Env) ->
        call(Node, fun() ->
            [application:set_env(quic_dist, Key, Value) || {Key, Value} <- Env],
            Result = net_kernel:start(Name, #{name_domain => longnames}),
            [application:unset_env(quic_dist, Key) || {Key, _} <- Env],
            Result
        end)
    end,
    ?assertMatch({error, _}, Start([{listen_port, wrong}])),
    _ = wait_log(Node, "listen_port = wrong.*environment.*0 to 65535", 5000),
    ?assertMatch({error, _}, Start([{password, "pass phrase"}])),
    _ = wait_log(Node, "password = .*environment.*certfile", 5000),
    ?assertEqual([], log_lines(Node, "pass phrase")),
    ?assertMatch({ok, _}, Start([])),
    ?assertEqual({{127, 0, 0, 1}, Port}, listens(Node)).

%% A name that another node has registered with epmd stops the boot with OTP's own message.
name_in_use(_Config) ->
    Name = unique("twice") ++ "@127.0.0.1",
    _ = start(#{name => {long, Name}}),
    boot_fails(["-name", Name], [Name, "in use by another Erlang node"]).

warnings(Node, Words) -> log_lines(Node, "^warning .*" ++ Words).

start_application(Node) ->
    {ok, _} = call(Node, application, ensure_all_started, [quic_dist]),
    ok.

%% A warning at the application's start names options that were set while distribution ran, as
%% config/runtime.exs sets them. Without such options there is no warning.
options_that_come_too_late(_Config) ->
    Options = #{quic_dist => [{lanes, 3}]},
    Node = start(Options),
    start_application(Node),
    ?assertEqual([], warnings(Node, "")),
    call(Node, fun() ->
        ok = application:stop(quic_dist),
        ok = application:set_env(quic_dist, allow, ["*@127.0.0.1"]),
        ok = application:set_env(quic_dist, status_port, 0),
        %% The flag counts.
        ok = application:set_env(quic_dist, lanes, 4)
    end),
    start_application(Node),
    [Line] = warnings(Node, ?LATE),
    ?assertMatch({match, _}, re:run(Line, ?LATE "allow, status_port\\. .*config/runtime\\.exs")),
    Wrong = start(#{}),
    call(Wrong, fun() -> application:set_env(quic_dist, lane, 4) end),
    start_application(Wrong),
    ?assertMatch([_], warnings(Wrong, ?LATE "lane\\.")),
    Secret = start(#{}),
    call(Secret, fun() ->
        [application:set_env(quic_dist, Key, "s3cret") || Key <- [certfile, password]]
    end),
    start_application(Secret),
    ?assertMatch([_], warnings(Secret, ?LATE "certfile, password\\.")),
    ?assertEqual([], log_lines(Secret, "s3cret")).

%% A node that runs the application and has another carrier warns, unless it uses another part of
%% this library or is no node.
carriers_of_others(_Config) ->
    [
        begin
            Node = start(Options),
            start_application(Node),
            ?assertEqual(Expected, length(warnings(Node, ?UNUSED)), {Options})
        end
     || {Expected, Options} <- [
            {1, #{carrier => inet_tcp}},
            {0, #{carrier => quic}},
            {0, #{name => none}},
            {0, #{carrier => webdist, webdist => [{port, free_port()}]}},
            {0, #{
                carrier => inet_tcp,
                args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
                quic_dist => [{name_port, free_port()}]
            }}
        ]
    ].

%% A warning names a -proto_dist too many, such as that of ERL_AFLAGS.
carrier_given_twice(_Config) ->
    Node = start(#{carrier => inet_tcp, args => ["-proto_dist", "quic"]}),
    start_application(Node),
    [Line] = warnings(Node, ?UNUSED),
    Words = "inet_tcp\\. -proto_dist is given 2 times \\(inet_tcp; quic\\).*ERL_AFLAGS",
    ?assertMatch({match, _}, re:run(Line, Words)).

%% A node that no other node can find warns when it starts, and so does one whose name looks like a
%% port and is none. Other nodes do not warn.
names_that_nobody_finds(_Config) ->
    N = fun() -> unique("n") ++ "@127.0.0.1" end,
    Common = ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(free_port())],
    [
        begin
            Node = start(Options),
            ?assertMatch(
                Expected,
                {length(warnings(Node, ?NOBODY)), length(warnings(Node, ?NO_PORT))},
                Options
            )
        end
     || {Expected, Options} <- [
            {{1, 0}, #{name => {long, N()}, args => ["-no_epmd"]}},
            {{1, 1}, #{name => {long, "99999@127.0.0.1"}, args => ["-no_epmd"]}},
            {{0, 1}, #{name => {long, "0@127.0.0.1"}}},
            {{0, 0}, #{}},
            {{0, 0}, #{name => {long, N()}}},
            {{0, 0}, #{name => {long, N()}, args => ["-no_epmd" | Common]}},
            {{0, 0}, #{name => {long, N()}, args => ["-no_epmd", "-hidden"]}},
            {{0, 0}, #{name => {long, N()}, args => ["-no_epmd", "-boot", "no_dot_erlang"]}},
            {{0, 0}, #{name => {long, N()}, args => ["-no_epmd", "-dist_listen", "false"]}},
            {{0, 0}, #{
                name => {long, N()}, args => ["-no_epmd"], quic_dist => [{listen_port, free_port()}]
            }}
        ]
    ].

%% A warning names an option whose two flags disagree. Two equal flags give no warning.
option_given_twice(_Config) ->
    Node = start(#{args => ["-quic_dist", "lanes", "3", "-quic_dist", "lanes", "4"]}),
    ?assertMatch([_], warnings(Node, "the option lanes is given more than once with -quic_dist")),
    Same = start(#{
        args => ["-quic_dist", "lanes", "3", "-quic_dist", "cert", "a", "-quic_dist", "lanes", "3"],
        quic_dist => [{certfile, "a"}],
        name => none
    }),
    ?assertEqual([], warnings(Same, "more than once")).

%% A notice at the start says that `allow' lets in no tool of a release. The line about a refused
%% tool has the pattern that would let it in.
tools_that_are_locked_out(_Config) ->
    Notices = fun(Node) -> length(log_lines(Node, "^notice .*" ?TOOLS)) end,
    Without = start(#{quic_dist => [{allow, ["a@127.0.0.1"]}]}),
    ?assertEqual(1, Notices(Without)),
    [
        ?assertEqual({Allow, 0}, {Allow, Notices(start(#{quic_dist => [{allow, Allow}]}))})
     || Allow <- [["*@127.0.0.1"], ["a@b", "undefined@*"], ["*"]]
    ],
    ?assertEqual(0, Notices(start(#{}))),
    Own = atom_to_list(name(Without)),
    Tool = start(#{name => {long, "rpc-021b-" ++ Own}, args => ["-no_epmd", "-hidden"]}),
    ?assertEqual(pang, ping(Tool, name(Without))),
    _ = wait_log(
        Without, "allow does not name it; what would: \\*-" ++ Own, 5000
    ),
    ok.
