%% @doc A node that dials what is no node, or a node that does not trust it, says why in one line,
%% and goes on working.
-module(quic_dist_dial_SUITE).

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([
    unknown_host/1,
    nobody_listens/1,
    silent_peer/1,
    talking_peer/1,
    echoing_peer/1,
    peer_of_another_protocol/1,
    peer_of_another_wire_version/1,
    names_that_do_not_fit/1,
    keys_of_every_kind/1,
    strangers/1
]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [env/1, start/2]).
-import(quic_dist_fixtures, [fixture/1, pem/1]).
-import(quic_dist_node, [call/4, connect/2, info/1, log/1, log_lines/2, pang/3]).
-import(quic_dist_os, [gone/2, signal/2]).
-import(quic_dist_run, [free_port/0]).
-import(quic_dist_wait, [scale/1, wait_until/3]).

%% Of the dialling nodes, in seconds and in milliseconds: kernel's own default is 7.
-define(SETUP_TIME, 2).
-define(PANG, 2000).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [{group, dial}, {group, tls}].

groups() ->
    [
        {dial, [], [
            unknown_host,
            nobody_listens,
            silent_peer,
            talking_peer,
            echoing_peer,
            peer_of_another_protocol,
            peer_of_another_wire_version,
            names_that_do_not_fit
        ]},
        {tls, [], [keys_of_every_kind, strangers]}
    ].

init_per_suite(Config) ->
    quic_dist_fixtures:fakes(),
    quic_dist_fixtures:make_pems(),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_group(dial, Config0) ->
    %% One dialler for all cases: each leaves it working.
    Config = quic_dist_case:of_case(dial, Config0),
    A = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    B = start(Config, #{}),
    [{a, A}, {b, B} | Config0];
init_per_group(tls, Config) ->
    Config.

end_per_group(dial, Config) ->
    quic_dist_case:end_case(dial, Config);
end_per_group(tls, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% Asserts that a ping fails in time with one line in the log that has all these words, and that the
%% next good one works.
dial_fails(Config, Name, Within, Words) ->
    {A, B} = {?config(a, Config), ?config(b, Config)},
    Text = atom_to_list(Name),
    pang(A, Name, Within),
    Line = "cannot connect to " ++ Text ++ ": ",
    Found = logged(A, Line),
    ?assertMatch([_], Found, log(A)),
    Missing = [Word || Word <- Words, string:find(hd(Found), Word) =:= nomatch],
    ?assertEqual([], Missing, hd(Found)),
    ?assertMatch("warning " ++ _, hd(Found)),
    call(A, erlang, disconnect_node, [maps:get(node, B)]),
    connect(A, B).

%% The log lines that hold this text, once there is one.
logged(Node, Text) ->
    wait_until(
        {logged, Text},
        fun() ->
            Lines = string:lexemes(log(Node), "\n"),
            case [Line || Line <- Lines, string:find(Line, Text) =/= nomatch] of
                [] -> log(Node);
                Found -> {ok, Found}
            end
        end,
        2000
    ).

name(UdpPort) ->
    list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1").

%% The host does not exist.
unknown_host(Config) ->
    dial_fails(Config, '20000@no-such-host.invalid', ?PANG + 500, ["no-such-host.invalid", "DNS"]).

%% Nothing listens on the UDP port, and the kernel says so at once.
nobody_listens(Config) ->
    dial_fails(Config, name(free_port()), 1000, [
        "127.0.0.1", "nothing listens on this UDP port"
    ]).

%% A program listens on the UDP port and never answers.
silent_peer(Config) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}, {active, false}]),
    {ok, UdpPort} = inet:port(Socket),
    dial_fails(Config, name(UdpPort), ?PANG + 500, ["no QUIC answer within"]),
    ok = gen_udp:close(Socket).

%% A program on the UDP port answers, and does not speak QUIC.
talking_peer(Config) ->
    answering(fun(_) -> <<"who are you?">> end, fun(UdpPort) ->
        dial_fails(Config, name(UdpPort), ?PANG + 500, ["not QUIC", "another program"])
    end).

%% The UDP port sends everything back, and the node does not take itself for its peer.
echoing_peer(Config) ->
    answering(fun(Data) -> Data end, fun(UdpPort) ->
        dial_fails(Config, name(UdpPort), ?PANG + 500, [])
    end),
    ?assertEqual([], log_lines(?config(a, Config), "^error")).

answering(Answer, Test) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}, {active, false}, binary]),
    {ok, UdpPort} = inet:port(Socket),
    Server = spawn_link(fun() -> answer(Socket, Answer) end),
    Test(UdpPort),
    unlink(Server),
    ok = gen_udp:close(Socket).

answer(Socket, Answer) ->
    case gen_udp:recv(Socket, 0) of
        {ok, {Ip, UdpPort, Data}} ->
            _ = gen_udp:send(Socket, Ip, UdpPort, Answer(Data)),
            answer(Socket, Answer);
        {error, _} ->
            ok
    end.

%% The peer is a QUIC server of another protocol.
peer_of_another_protocol(Config) ->
    fake_peer(Config, ["h3", "1"], ["speaks QUIC but not erldist/1"]).

%% The peer's sidecar speaks another version of the wire.
peer_of_another_wire_version(Config) ->
    fake_peer(Config, ["erldist/1", "2"], ["wire version 2", "1"]).

fake_peer(Config, Args, Words) ->
    Options = #{exec => fixture("fakepeer"), env => env(Config)},
    Command = quic_dist_command:open(Args, Options),
    [UdpPort] = quic_dist_command:expect(Command, "^(\\d+)\n", 5000),
    dial_fails(Config, name(list_to_integer(UdpPort)), 1000, Words),
    {_, Port, OsPid, _} = Command,
    signal(OsPid, kill),
    gone(OsPid, 1000),
    _ = catch_close(Port),
    ok.

catch_close(Port) ->
    try
        port_close(Port)
    catch
        error:badarg -> true
    end.

%% The name has no UDP port, no host, or one of the wrong form.
names_that_do_not_fit(Config) ->
    NoPort = ["no UDP port is known", "port@host", "option nodes"],
    [
        dial_fails(Config, Name, 1000, Words)
     || {Name, Words} <- [
            {'someone@127.0.0.1', NoPort},
            {'0@127.0.0.1', NoPort},
            {'65536@127.0.0.1', NoPort},
            {'-1@127.0.0.1', NoPort},
            {'20000x@127.0.0.1', NoPort},
            {'20000@nodots', ["long names", "no dot"]}
        ]
    ],
    %% These are no names at all, and net_kernel itself asks nobody.
    {A, B} = {?config(a, Config), ?config(b, Config)},
    NoNames = ['nohost', '@', 'a@', '@127.0.0.1', 'a@b@c', '20000@127.0.0.1@x'],
    [pang(A, Name, 1000) || Name <- NoNames],
    connect(A, B).

%% Nodes that trust one authority connect, with keys of every kind, a chain with an intermediate,
%% certificate and key in one file, and an encrypted key.
keys_of_every_kind(Config) ->
    Nodes = [trusting(Config, Options) || Options <- identities()],
    [connect(A, B) || A <- Nodes, B <- Nodes, A =/= B],
    [?assertEqual([], log_lines(Node, "^(warning|error)")) || Node <- Nodes],
    [
        ?assertNot(is_map_key(password, maps:get(options, info(Node))))
     || Node <- Nodes
    ].

trusting(Config, Options) ->
    start(Config, #{
        quic_dist => [{cacertfile, pem("ca.pem")} | Options],
        kernel => [{net_setuptime, ?SETUP_TIME}]
    }).

identities() ->
    File = fun quic_dist_fixtures:pem/1,
    [
        [{certfile, File("ec-chain.pem")}, {keyfile, File("ec.key")}],
        [{certfile, File("rsa-both.pem")}],
        [{certfile, File("ed25519.pem")}, {keyfile, File("ed25519.key")}],
        [{certfile, File("encrypted.pem")}, {keyfile, File("encrypted.key")}, {password, "secret"}]
    ].

%% A node with an authority and a node with a foreign, a missing or an expired certificate do not
%% connect, in either direction. Both logs say why.
strangers(Config) ->
    File = fun quic_dist_fixtures:pem/1,
    [Identity | _] = identities(),
    Good = trusting(Config, Identity),
    Own = start(Config, #{
        quic_dist => [
            {certfile, File("stranger.pem")},
            {keyfile, File("stranger.key")},
            {cacertfile, File("stranger-ca.pem")}
        ],
        kernel => [{net_setuptime, ?SETUP_TIME}]
    }),
    None = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    Expired = trusting(Config, [{certfile, File("expired.pem")}, {keyfile, File("expired.key")}]),
    RefusesIt = "this node refuses the peer's certificate",
    [
        begin
            refused(Stranger, Good, Dialling),
            refused(Good, Stranger, Dialled)
        end
     || {Stranger, Dialling, Dialled} <- [
            %% It looks first, and does not like what it sees.
            {Own, RefusesIt, RefusesIt},
            {None, "this node has no certfile, and the peer demands a certificate",
                "this node refuses the peer: it shows no certificate of its own"},
            {Expired, "the peer refuses this node's certificate", RefusesIt}
        ]
    ],
    connect(trusting(Config, lists:last(identities())), Good).

%% Asserts that `From' cannot connect to `To', and that both say why.
refused(From, To = #{node := Name}, Words) ->
    Turned = fun() -> length(log_lines(To, "inbound connection turned away")) end,
    Before = Turned(),
    pang(From, Name, ?PANG + 500),
    Found = logged(From, "cannot connect to " ++ atom_to_list(Name) ++ ": "),
    ?assertNotEqual(nomatch, string:find(lists:last(Found), Words), Found),
    wait_until({turned_away, To}, fun() -> Turned() > Before end, 2000).
