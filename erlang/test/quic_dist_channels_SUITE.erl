%% @doc Channels leave nothing behind, outlive the folder of their sockets, and refuse the flags
%% that their mode forbids.
-module(quic_dist_channels_SUITE).

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([
    many_reconnects/1,
    folder_lost/1,
    sidecar_out_of_reach/1,
    refused_flags/1
]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [resources/1, same_resources/2, start/2, tmp_dir/1]).
-import(quic_dist_fixtures, [fake_env/1, fixture/1]).
-import(quic_dist_node, [call/2, call/4, connect/2, info/1, sidecar/1, stop/1, tell/2, wait_log/3]).
-import(quic_dist_os, [descriptors/1]).
-import(quic_dist_wait, [flush/0, scale/1, wait_until/3]).
-import(quic_dist_watch, [watch/1]).

-define(MB, 1048576).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000 + 60 * reconnects())}].

all() ->
    [{group, Plane} || Plane <- quic_dist_case:planes()].

groups() ->
    Cases = [many_reconnects, folder_lost, sidecar_out_of_reach, refused_flags],
    [{Plane, [], Cases} || Plane <- quic_dist_case:planes()].

init_per_suite(Config) ->
    quic_dist_fixtures:fakes(),
    quic_dist_fixtures:quicdistd("quicdistd", #{}),
    Config.

end_per_suite(_Config) ->
    ok.

init_per_group(Group, Config) ->
    quic_dist_case:in_plane(Group, Config).

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% Connections that come and go leave nothing behind, neither in the VMs nor in the sidecars. There
%% are two hundred, or as many as QUIC_DIST_TEST_CHANNELS says.
many_reconnects(Config) ->
    A = #{node := NodeA} = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    Count = reconnects(),
    Reconnect = fun(_) ->
        true = call(A, erlang, disconnect_node, [NodeB]),
        %% One of some thousand attempts that follow at once is refused, over inet_tcp as well.
        wait_until(connected, fun() -> call(A, net_kernel, connect_node, [NodeB]) end, 20000),
        %% Before that B would take another connection for one at the same time.
        call(B, fun() -> await_node(NodeA) end)
    end,
    connect(A, B),
    lists:foreach(Reconnect, lists:seq(1, 50 + Count div 5)),
    settle(A, B),
    Before = [of_sidecar(Node) || Node <- [A, B]],
    {AtFirst, PeerAtFirst} = {resources(A), resources(B)},
    lists:foreach(Reconnect, lists:seq(1, Count)),
    same_resources(A, AtFirst),
    same_resources(B, PeerAtFirst),
    %% Go's runtime keeps threads that it has started, and memory for a while. A QUIC connection
    %% alone would be 50 KB and more.
    Slack = #{descriptors => 0, threads => 8, bytes => 4 * ?MB + 500 * Count},
    NoMore = fun({Old, New}) ->
        lists:all(
            fun({What, More}) -> maps:get(What, New) =< maps:get(What, Old) + More end,
            maps:to_list(Slack)
        )
    end,
    wait_until(
        {no_more, Before},
        fun() ->
            After = [of_sidecar(Node) || Node <- [A, B]],
            ct:log("~p connections: ~p before, ~p after", [Count, Before, After]),
            lists:all(NoMore, lists:zip(Before, After)) orelse After
        end,
        5000
    ).

reconnects() ->
    list_to_integer(os:getenv("QUIC_DIST_TEST_CHANNELS", "200")).

of_sidecar(Node) ->
    OsPid = sidecar(Node),
    #{
        descriptors => length(descriptors(OsPid)),
        threads => status(OsPid, "Threads"),
        bytes => 1024 * status(OsPid, "VmRSS")
    }.

%% A number of proc(5)'s status file.
status(OsPid, Name) ->
    {ok, Text} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/status"),
    {match, [Number]} = re:run(Text, Name ++ ":\\s+([0-9]+)", [{capture, all_but_first, list}]),
    list_to_integer(Number).

%% On a node.
await_node(Node) ->
    case lists:member(Node, nodes(connected)) of
        true ->
            ok;
        false ->
            receive
            after 1 -> await_node(Node)
            end
    end.

%% Waits until the former channels are gone.
settle(A, B) ->
    wait_until(
        channels,
        fun() ->
            Channels = [maps:get(channels, info(Node)) || Node <- [A, B]],
            Channels =:= [1, 1] orelse Channels
        end,
        5000
    ).

%% A node survives the loss of the folder for temporary files, at the last logout of its user or by
%% a cleaner: links stay, and it connects both ways.
folder_lost(Config) ->
    A = start(Config, #{}),
    [B, C, D] = [start(Config, #{}) || _ <- "bcd"],
    connect(A, B),
    watch(A),
    Dir = tmp_dir(?config('case', Config)),
    ok = file:del_dir_r(Dir),
    connect(A, C),
    connect(D, A),
    ?assertEqual([], flush()),
    ok = filelib:ensure_dir(filename:join(Dir, "x")).

%% The log has a line, with the name of the socket, when the VM cannot take a connection over from
%% its sidecar.
sidecar_out_of_reach(Config) ->
    A = start(Config, #{}),
    call(A, fun() ->
        {links, Links} = process_info(whereis(net_kernel), links),
        [Acceptor] = [
            Pid
         || Pid <- Links,
            is_pid(Pid),
            {current_function, {quic_dist, acceptor, 2}} =:= process_info(Pid, current_function)
        ],
        Acceptor !
            {accepted, #{
                id => 4711,
                port => undefined,
                address => {127, 0, 0, 1},
                udp_port => 1,
                streams => bulk,
                credit => 0,
                claim => {<<"stranger@127.0.0.1">>, undefined},
                socket => <<0, "nobody-listens-here">>,
                token => binary:copy(<<0>>, 32)
            }},
        ok
    end),
    Line =
        "warning quic_dist: cannot accept stranger@127.0.0.1: cannot reach the sidecar: "
        "@nobody-listens-here: connection refused",
    ?assertMatch([_], wait_log(A, Line, 2000)),
    connect(start(Config, #{}), A).

%% A side that knows that its channel's mode is not single refuses the atom cache, whether it dials
%% or accepts. No other side does, and data arrives.
refused_flags(Config) ->
    Single = #{quic_dist => [{streams, single}]},
    A = start_observed(Config, Single),
    [
        begin
            B = start_observed(Config, Options),
            ?assertEqual([single, Mode], handshake(A, B)),
            true = call(B, erlang, disconnect_node, [maps:get(node, A)]),
            ?assertEqual([Mode, single], handshake(B, A)),
            stop(B)
        end
     || {Mode, Options} <- [
            {single, Single},
            {bulk, announcing("bulk")},
            {sender, announcing("sender")}
        ]
    ],
    %% Sidecars that mean it.
    C = start_observed(Config, #{}),
    D = start_observed(Config, #{}),
    ?assertEqual([bulk, bulk], handshake(C, D)).

%% Options of a node whose sidecar says that its channels have this mode, and keeps to one stream.
announcing(Mode) ->
    #{
        quic_dist => [{executable, fixture("fakesidecar")}, {streams, single}],
        env => [
            {"QUIC_DIST_FAKE_REAL", fixture("quicdistd")},
            {"QUIC_DIST_FAKE_STREAMS", Mode}
            | fake_env("announce")
        ]
    }.

%% A node that tells this process of each of its handshakes: {handshake, Node's name, the channel's
%% mode, the flags that both sides have agreed on}.
start_observed(Config, Options) ->
    #{node := Name} = Node = start(Config, Options),
    Self = self(),
    call(Node, fun() ->
        {module, _} = code:ensure_loaded(quic_dist_plane),
        Tracer = spawn(fun() -> observe(Self, Name, undefined) end),
        _ = erlang:trace(all, true, [call, {tracer, Tracer}]),
        1 = erlang:trace_pattern({quic_dist_plane, open, 1}, true, []),
        1 = erlang:trace_pattern({erlang, setnode, 3}, true, []),
        ok
    end),
    Node.

observe(Self, Name, Mode) ->
    receive
        {trace, _, call, {quic_dist_plane, open, [#{streams := Streams}]}} ->
            observe(Self, Name, Streams);
        {trace, _, call, {erlang, setnode, [_, _, {Flags, _}]}} ->
            tell(Self, {handshake, Name, Mode, Flags}),
            observe(Self, Name, undefined)
    end.

%% Connects two nodes, checks the flags that they agree on, and returns each one's mode.
handshake(A, #{node := NameB} = B) ->
    connect(A, B),
    Seen = [
        receive
            {handshake, Name, Mode, Flags} -> {Mode, Flags}
        after scale(5000) ->
            error({no_handshake, Name, flush()})
        end
     || #{node := Name} <- [A, B]
    ],
    {Modes, [Agreed, Agreed]} = lists:unzip(Seen),
    Refused = call(A, dist_util, strict_order_flags, []) band (bnot Agreed),
    ?assertEqual(Modes =/= [single, single], Refused =/= 0, {Modes, Agreed}),
    Atoms = [list_to_atom("atom" ++ integer_to_list(N)) || N <- lists:seq(1, 1000)],
    ?assertEqual(Atoms, call(A, erpc, call, [NameB, lists, reverse, [lists:reverse(Atoms)]])),
    Modes.
