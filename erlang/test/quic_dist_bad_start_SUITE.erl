%% @doc A boot with a wrong executable, certificate, option or UDP port fails with one line that
%% says what to do. A VM replaces a sidecar that sends garbage.
-module(quic_dist_bad_start_SUITE).

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    no_executable/1,
    not_an_executable/1,
    executable_for_another_processor/1,
    executable_of_another_version/1,
    executable_that_ends/1,
    executable_of_another_protocol/1,
    executable_without_hello/1,
    udp_port_in_use/1,
    bad_certificates/1,
    bad_options/1,
    repaired_without_restart/1,
    hello_cut_at_every_byte/1,
    asked_before_its_end_is_known/1,
    garbage_from_sidecar/1,
    executable_that_is_silent/1,
    executable_that_says_text/1,
    executable_that_takes_no_configuration/1
]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [distribute/2, env/1, start/2, start_alone/2]).
-import(quic_dist_fixtures, [fake_env/1, fixture/1, vsn/0]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, info/1, log/1, next_sidecar/3, ping/2, stop/1, wait_log/3
]).
-import(quic_dist_os, [gone/2, signal/2]).
-import(quic_dist_run, [free_port/0]).
-import(quic_dist_wait, [scale/1, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

%% PROTOCOL.md and quic_dist_sidecar: how long a sidecar may take for its hello.
-define(HELLO_TIMEOUT, 5000).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [
        no_executable,
        not_an_executable,
        executable_for_another_processor,
        executable_of_another_version,
        executable_that_ends,
        executable_of_another_protocol,
        executable_without_hello,
        udp_port_in_use,
        bad_certificates,
        bad_options,
        repaired_without_restart,
        hello_cut_at_every_byte,
        asked_before_its_end_is_known,
        garbage_from_sidecar,
        {group, silence}
    ].

groups() ->
    [{silence, [parallel], [
        executable_that_is_silent,
        executable_that_says_text,
        executable_that_takes_no_configuration
    ]}].

init_per_suite(Config) ->
    quic_dist_fixtures:fakes(),
    quic_dist_fixtures:quicdistd("quicdistd", #{}),
    quic_dist_fixtures:quicdistd("quicdistd-9.9.9", #{vsn => "9.9.9"}),
    quic_dist_fixtures:make_pems(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% Boots erl and asserts that it gives up with one message, which has all these words.
boot_fails(Config, Options, Env, Within, Words) ->
    boot_fails(Config, quic_dist_run:ebin(), Options, Env, Within, Words).

boot_fails(Config, Ebin, Options, Env, Within, Words) ->
    UdpPort = integer_to_list(free_port()),
    boot_fails(Config, Ebin, UdpPort, Options, Env, Within, Words).

boot_fails(Config, Ebin, UdpPort, Options, Env, Within, Words) ->
    Name = UdpPort ++ "@127.0.0.1",
    Args =
        ["-proto_dist", "quic", "-name", Name, "-no_epmd", "-pa", Ebin, "-noinput"] ++
            lists:append([
                ["-quic_dist", atom_to_list(Key), lists:flatten(io_lib:format("~0tp", [Value]))]
             || {Key, Value} <- Options
            ]),
    {Microseconds, Output} = timer:tc(fun() ->
        Limits = #{env => env(Config) ++ Env, timeout => Within + 5000},
        quic_dist_command:boot_fails(Args, Limits, Words)
    end),
    ct:pal("~ts", [Output]),
    %% The message is there once, and is all there is but for what a sidecar itself says.
    Lines = string:lexemes(Output, "\n"),
    ?assertMatch([_], [L || L <- Lines, not lists:prefix("quicdistd: ", L)], Output),
    within(Within, Microseconds div 1000, boot).

%% A missing executable, named by the option or searched in priv, ends the boot. The message has
%% the places tried and what to do.
no_executable(Config) ->
    boot_fails(Config, [{executable, "/nowhere/quicdistd"}], [], 3000, [
        "/nowhere/quicdistd: no such file", "make build", "option executable"
    ]),
    Ebin = library_without_executable(Config),
    boot_fails(Config, Ebin, [], [], 3000, [
        filename:join(filename:dirname(Ebin), "priv"),
        "/quicdistd: no such file",
        "make build",
        "option executable"
    ]).

library_without_executable(Config) ->
    Top = filename:join([?config(priv_dir, Config), "lib", "quic_dist"]),
    Ebin = filename:join(Top, "ebin"),
    ok = filelib:ensure_dir(filename:join(Ebin, "x")),
    ok = filelib:ensure_dir(filename:join([Top, "priv", "x"])),
    [
        {ok, _} = file:copy(File, filename:join(Ebin, filename:basename(File)))
     || File <- filelib:wildcard(filename:join(quic_dist_run:ebin(), "*"))
    ],
    Ebin.

%% The message says of a folder, a text file and a file without permission what each is.
not_an_executable(Config) ->
    Dir = ?config(priv_dir, Config),
    boot_fails(Config, [{executable, Dir}], [], 3000, [Dir, "is a directory", "option executable"]),
    Text = filename:join(Dir, "text"),
    ok = file:write_file(Text, "not a program\n"),
    boot_fails(Config, [{executable, Text}], [], 3000, [Text ++ ": not executable", "chmod +x"]),
    ok = file:change_mode(Text, 8#755),
    boot_fails(Config, [{executable, Text}], [], 3000, [
        Text, "not an executable of a known kind", "is it a quicdistd for"
    ]).

%% The message names the processor that the executable is for, and the platform that is wanted.
executable_for_another_processor(Config) ->
    File = filename:join(?config(priv_dir, Config), "quicdistd"),
    %% s390x is big-endian, so that even the header's other fields differ from ours.
    Header = <<16#7f, "ELF", 2, 2, 1, 0:72, 2:16, 22:16, 1:32, 0:384>>,
    ok = file:write_file(File, Header),
    ok = file:change_mode(File, 8#755),
    boot_fails(Config, [{executable, File}], [], 3000, [
        File, "64-bit ELF executable for s390x", "is it a quicdistd for"
    ]).

%% The VM refuses a quicdistd of another version, and names both versions.
executable_of_another_version(Config) ->
    File = fixture("quicdistd-9.9.9"),
    boot_fails(Config, [{executable, File}], [], 3000, [
        File, "9.9.9", "install both from one release"
    ]).

%% The message has the exit status of a program that ends before its hello.
executable_that_ends(Config) ->
    fake_fails(Config, "exit", 3000, ["ended", "before its hello"]).

%% The VM refuses a sidecar of another protocol, and names both numbers.
executable_of_another_protocol(Config) ->
    fake_fails(Config, "protocol", 3000, [
        "protocol 2", "protocol 1", "install both from one release"
    ]).

%% The VM refuses a sidecar whose first message is not a hello.
executable_without_hello(Config) ->
    fake_fails(Config, "no_hello", 3000, ["did not begin with a hello"]).

%% The VM gives up a silent program after the time for the hello.
executable_that_is_silent(Config) ->
    fake_fails(Config, "silent", ?HELLO_TIMEOUT + 2000, ["sent no hello within 5000 ms"]).

%% The VM refuses a program that prints text for people.
executable_that_says_text(Config) ->
    fake_fails(Config, "text", ?HELLO_TIMEOUT + 2000, ["no quicdistd"]).

%% The VM also gives up a sidecar that hangs after its hello.
executable_that_takes_no_configuration(Config) ->
    fake_fails(Config, "hello_only", ?HELLO_TIMEOUT + 2000, ["did not take its configuration"]).

fake_fails(Config, Mode, Within, Words) ->
    File = fixture("fakesidecar"),
    boot_fails(Config, [{executable, File}], fake_env(Mode), Within, Words).

%% The message names a UDP port that another program has, and says what to do.
udp_port_in_use(Config) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}]),
    {ok, UdpPort} = inet:port(Socket),
    Text = integer_to_list(UdpPort),
    %% It is waited for, in case it is a predecessor's.
    boot_fails(Config, quic_dist_run:ebin(), Text, [], [], 6000, [Text, "another program has it"]),
    ok = gen_udp:close(Socket).

%% An unusable certificate file ends the boot. The message has the file's name and what is wrong.
bad_certificates(Config) ->
    Cert = fun quic_dist_fixtures:pem/1,
    Encrypted = [{certfile, Cert("encrypted.pem")}, {keyfile, Cert("encrypted.key")}],
    Garbage = filename:join(?config(priv_dir, Config), "garbage.pem"),
    ok = file:write_file(Garbage, "no certificate\n"),
    Missing = "/nowhere/cert.pem",
    lists:foreach(
        fun({Options, Words}) ->
            boot_fails(Config, Options, [], 3000, ["bad_certificate" | Words])
        end,
        [
            {[{certfile, Missing}], [Missing, "no such file"]},
            {[{certfile, ?config(priv_dir, Config)}], [?config(priv_dir, Config), "directory"]},
            {[{certfile, Garbage}], [Garbage, "not PEM"]},
            {[{certfile, Cert("ec.pem")}], [Cert("ec.pem"), "holds no private key", "set keyfile"]},
            {[{certfile, Cert("ec.pem")}, {keyfile, Cert("ed25519.key")}], [
                Cert("ec.pem"), Cert("ed25519.key"), "do not belong together"
            ]},
            {Encrypted, [Cert("encrypted.key"), "set password"]},
            {Encrypted ++ [{password, "wrong"}], [Cert("encrypted.key"), "cannot be decrypted"]},
            {[{cacertfile, Cert("ec.key")}], [Cert("ec.key"), "holds no certificate"]}
        ]
    ).

%% An unknown option, or a value of another type, ends the boot. The message names the option and
%% what is accepted.
bad_options(Config) ->
    lists:foreach(
        fun({Options, Words}) -> boot_fails(Config, Options, [], 3000, Words) end,
        [
            {[{certfiel, "x"}], ["certfiel", "certfile", "cacertfile"]},
            {[{listen_port, 70000}], ["listen_port", "70000", "0 to 65535"]},
            {[{keyfile, "x"}], ["keyfile", "certfile"]}
        ]
    ).

%% Distribution that failed for want of a good executable, a good certificate or the UDP port
%% starts once these are there, without a restart of the node.
repaired_without_restart(Config) ->
    Alone = start_alone(Config, #{env => fake_env("exit")}),
    B = start(Config, #{}),
    UdpPort = free_port(),
    Set = fun(Options) ->
        call(Alone, fun() ->
            Old = application:get_all_env(quic_dist),
            [application:unset_env(quic_dist, Key) || {Key, _} <- Old],
            [ok = application:set_env(quic_dist, Key, Value) || {Key, Value} <- Options],
            ok
        end)
    end,
    Name = list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1"),
    Refused = fun(Options) ->
        Set(Options),
        Start = fun() -> net_kernel:start(Name, #{name_domain => longnames}) end,
        ?assertMatch({error, _}, call(Alone, Start)),
        ?assertEqual(nonode@nohost, call(Alone, erlang, node, []))
    end,
    Refused([{executable, "/nowhere/quicdistd"}]),
    Refused([{executable, fixture("fakesidecar")}]),
    Refused([{certfile, "/nowhere/cert.pem"}]),
    {ok, Socket} = gen_udp:open(UdpPort, [{ip, {127, 0, 0, 1}}]),
    Refused([]),
    ok = gen_udp:close(Socket),
    Set([]),
    connect(distribute(Alone, UdpPort), B).

%% A sidecar that dies in its hello, after any number of bytes, is an error like any other.
hello_cut_at_every_byte(Config) ->
    Alone = start_alone(Config, #{env => fake_env("half")}),
    Executable = fixture("fakesidecar"),
    Refused = call(
        Alone,
        fun() ->
            ok = application:set_env(quic_dist, executable, Executable),
            [hello_cut_at(N) || N <- lists:seq(0, 40)]
        end
    ),
    [
        ?assertMatch({match, _}, re:run(Text, "ended .* before its hello"), Text)
     || Text <- Refused
    ].

%% On a node.
hello_cut_at(Bytes) ->
    true = os:putenv("QUIC_DIST_FAKE_BYTES", integer_to_list(Bytes)),
    {ok, Sup} = quic_dist_sup:start_link(),
    {error, {down, Text}} = quic_dist_channel:listen(#{
        node => <<"a@127.0.0.1">>, address => <<"127.0.0.1">>, port_min => 0, port_max => 0
    }),
    unlink(Sup),
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive
        {'DOWN', Monitor, process, Sup, _} -> Text
    end.

%% Garbage between the frames of a sidecar that was good so far costs one line of the log. The VM
%% replaces the sidecar, on the same UDP port, and continues.
garbage_from_sidecar(Config) ->
    B = start(Config, #{}),
    [garbage(Config, B, Garbage) || Garbage <- garbage()].

garbage() ->
    Frame = fun(Body) -> <<(byte_size(Body)):32, Body/binary>> end,
    Message = fun(Tag, Fields) -> Frame(iolist_to_binary(quic_dist_proto:control(Tag, Fields))) end,
    Broke = "broke the control protocol",
    Hello = #{protocol => 1, build => vsn(), os => <<>>, arch => <<>>},
    [
        {empty, <<0:32>>, usr1, Broke},
        {bad_term, Frame(<<1, 131, 255>>), usr1, Broke},
        {unknown_type, Frame(<<9, 1, 2, 3>>), usr1, Broke},
        {too_large, Frame(<<2, 1:32, 0:((1 bsl 18) + 1)/unit:8>>), usr1, Broke},
        {cut, <<100:32, 1, 131, 104>>, usr2, "ended with status 9"},
        {second_hello, Message(hello, Hello), usr1, Broke},
        {answer_to_nothing, Message(dialled, channel(#{id => 4711})), usr1, Broke},
        {bad_address, Message(accepted, channel(#{node => <<"a@h">>})), usr1, Broke}
    ].

channel(Fields) ->
    Fields#{channel => 99, address => <<"nonsense">>, port => 1, streams => single, credit => 1}.

garbage(Config, B, {Name, Bytes, Signal, Words}) ->
    ct:pal("garbage: ~w", [Name]),
    Inject = filename:join(?config(priv_dir, Config), atom_to_list(Name)),
    ok = file:write_file(Inject, Bytes),
    A = start_behind_proxy(Config, [{"QUIC_DIST_FAKE_INJECT", Inject}]),
    connect(A, B),
    watch(A),
    #{listen := Listen, os_pid := Sidecar} = info(A),
    _ = os:cmd(lists:concat(["kill -", string:uppercase(atom_to_list(Signal)), " ", Sidecar])),
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    Next = next_sidecar(A, Sidecar, 2000),
    ?assertMatch(#{listen := Listen, os_pid := Next}, info(A)),
    gone(Sidecar, 2000),
    %% Whatever the peer still thinks of the old connection.
    call(B, erlang, disconnect_node, [maps:get(node, A)]),
    connect(B, A),
    ?assertMatch([_], wait_log(A, Words, 2000)),
    ?assertMatch([_], wait_log(A, "^error", 5000), log(A)),
    stop(A).

%% The man in the middle is a process between the VM and quicdistd, which no socket lets in.
start_behind_proxy(Config, Env) ->
    start(Config, #{
        quic_dist => [{executable, fixture("fakesidecar")}, {data_plane, stdio}],
        kernel => [{net_setuptime, 30}],
        env => [{"QUIC_DIST_FAKE_REAL", fixture("quicdistd")} | Env] ++ fake_env("proxy")
    }).

%% The next sidecar answers a request that went to a dead one, before the VM knew of its end.
asked_before_its_end_is_known(Config) ->
    A = start_behind_proxy(Config, []),
    B = start(Config, #{}),
    #{os_pid := Sidecar} = info(A),
    signal(Sidecar, hup),
    Stdin = lists:concat(["/proc/", Sidecar, "/fd/0"]),
    wait_until(deaf, fun() -> file:read_link(Stdin) =:= {error, enoent} end, 1000),
    ?assertEqual(pong, ping(A, B)),
    ?assertMatch([_], wait_log(A, "ended \\(epipe\\)", 5000), log(A)),
    _ = next_sidecar(A, Sidecar, 2000).
