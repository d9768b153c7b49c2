%% @doc A link that can outlive its QUIC connections ends as it does without that where a peer has
%% died, ends the link, or stays silent for the tick time. Each case begins with an outage.
%%
%% Of each pair A dials, through a relay.
-module(quic_dist_resume_ends_SUITE).

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    peer_killed/1,
    peer_restarted/1,
    dialler_restarted/1,
    disconnected/1,
    disconnected_by_the_acceptor/1,
    sidecar_killed/1,
    sidecar_of_the_acceptor_killed/1,
    halted/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, call/4, cast/2, connect/2, next_sidecar/3, sidecar/1]).
-import(quic_dist_os, [gone/2]).
-import(quic_dist_outage, [again/3, pair/1, pair/2]).
-import(quic_dist_wait, [scale/1, within/3]).
-import(quic_dist_watch, [nodedown/3]).

%% How long a dialler may take to notice, when packets pass again, that the peer has ended: the rest
%% of a try that has begun, the longest pause between two, and a try. An acceptor notices by its own
%% next packet, at most some four seconds later, and then waits three seconds for the dialler.
-define(NOTICED, 4000).
-define(NOTICED_BY_ACCEPTOR, 10000).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(60000)}].

all() ->
    [{group, socket} | [{group, stdio} || quic_dist_case:thorough()]].

groups() ->
    [{Plane, [], [{group, ends}]} || Plane <- quic_dist_case:planes()] ++
        %% These mostly wait, and may do it together.
        [
            {ends, [parallel], [
                peer_killed,
                peer_restarted,
                dialler_restarted,
                disconnected,
                disconnected_by_the_acceptor,
                sidecar_killed,
                sidecar_of_the_acceptor_killed,
                halted
            ]}
        ].

init_per_group(Group, Config) ->
    quic_dist_case:in_plane(Group, Config).

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% A node loses a peer whose VM and sidecar are killed during an outage, within the tick time.
peer_killed(Config) ->
    {A, B, Relay} = pair(Config, #{kernel => [{net_ticktime, 4}]}),
    ok = quic_dist_relay:cut(Relay),
    kill_both(B),
    ?assertEqual(net_tick_timeout, nodedown(A, B, 7000)).

%% A node that dialled loses a peer at once if the peer is another after an outage, at the same
%% port; and connects to the new one.
peer_restarted(Config) ->
    {A, B, Relay} = pair(Config),
    ok = quic_dist_relay:cut(Relay),
    kill_both(B),
    C = again(Config, B, []),
    ok = quic_dist_relay:heal(Relay),
    ?assertEqual(connection_closed, nodedown(A, B, ?NOTICED)),
    connect(A, C).

%% A node that was dialled loses the dialler soon if that is another after an outage, at the same
%% port. The new one connects.
dialler_restarted(Config) ->
    {A, B, Relay} = pair(Config),
    ok = quic_dist_relay:cut(Relay),
    kill_both(A),
    C = again(Config, A, [{B, Relay}]),
    ok = quic_dist_relay:heal(Relay),
    ?assertEqual(connection_closed, nodedown(B, A, ?NOTICED_BY_ACCEPTOR)),
    connect(C, B).

%% disconnect_node ends a link at once during an outage, on the side that dialled. The other side
%% follows when the outage is over.
disconnected(Config) ->
    {A, B, Relay} = pair(Config),
    disconnected(A, B, Relay),
    connect(A, B).

%% disconnect_node ends a link at once during an outage, on the side that accepted.
disconnected_by_the_acceptor(Config) ->
    {A, B, Relay} = pair(Config),
    disconnected(B, A, Relay),
    connect(A, B).

disconnected(Node, #{node := PeerName} = Peer, Relay) ->
    ok = quic_dist_relay:cut(Relay),
    %% The side that dialled is making another connection.
    timer:sleep(1500),
    {Took, true} = timer:tc(fun() -> call(Node, erlang, disconnect_node, [PeerName]) end),
    within(500, Took div 1000, disconnect_node),
    ?assertEqual(disconnect, nodedown(Node, Peer, 500)),
    ok = quic_dist_relay:heal(Relay),
    ?assertEqual(connection_closed, nodedown(Peer, Node, ?NOTICED_BY_ACCEPTOR)).

%% A node whose sidecar is killed during an outage loses its peer at once. The peer loses the node
%% when the outage is over.
sidecar_killed(Config) ->
    {A, B, Relay} = pair(Config),
    sidecar_killed(A, B, Relay),
    connect(A, B).

%% That holds for the side that accepted, too.
sidecar_of_the_acceptor_killed(Config) ->
    {A, B, Relay} = pair(Config),
    sidecar_killed(B, A, Relay),
    connect(A, B).

sidecar_killed(Node, Peer, Relay) ->
    Sidecar = sidecar(Node),
    ok = quic_dist_relay:cut(Relay),
    timer:sleep(1500),
    quic_dist_os:kill(Sidecar),
    ?assertEqual(connection_closed, nodedown(Node, Peer, 1000)),
    _ = next_sidecar(Node, Sidecar, 1000),
    ok = quic_dist_relay:heal(Relay),
    ?assertEqual(connection_closed, nodedown(Peer, Node, ?NOTICED_BY_ACCEPTOR)).

%% The sidecar of a node that ends during an outage does not wait for the outage's end.
halted(Config) ->
    {#{os_pid := Beam} = A, #{node := NodeB}, Relay} = pair(Config),
    Sidecar = sidecar(A),
    ok = quic_dist_relay:cut(Relay),
    call(A, fun() -> [{nobody, NodeB} ! rand:bytes(1000) || _ <- lists:seq(1, 100)] end),
    timer:sleep(1500),
    cast(A, fun() -> halt() end),
    gone(Beam, 1000),
    gone(Sidecar, 3000).

kill_both(#{os_pid := Vm} = Node) ->
    Sidecar = sidecar(Node),
    os:cmd(lists:flatten(io_lib:format("kill -KILL ~b ~b", [Sidecar, Vm]))),
    ok.
