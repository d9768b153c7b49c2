%% @doc The streams of a link go over what the option path says: they move from QUIC to TLS over TCP
%% and back, and nobody notices.
-module(quic_dist_path_SUITE).

-export([suite/0, all/0, end_per_testcase/2]).
-export([
    moves_to_tcp/1,
    one_node_wants_tcp/1,
    tcp_port_of_another_program/1,
    vm_and_sidecar_killed/1,
    sidecar_killed/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, connect/2, name/1, sidecar/1, wait_log/3]).
-import(quic_dist_wait, [scale/1, wait_until/2]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}].

all() ->
    [
        moves_to_tcp,
        one_node_wants_tcp,
        tcp_port_of_another_program,
        vm_and_sidecar_killed,
        sidecar_killed
    ].

end_per_testcase(_, _) ->
    [] = quic_dist_node:stop_all(),
    ok.

%% Both nodes see that the link is over TCP. Messages of all sizes pass before, while it moves and
%% after, in order, on both data planes.
moves_to_tcp(_) ->
    lists:foreach(
        fun(Plane) ->
            {A, B} = pair(#{data_plane => Plane}, #{data_plane => Plane}),
            passes(A, B),
            wait_transport(A, B, tcp),
            wait_transport(B, A, tcp),
            passes(A, B),
            passes(B, A),
            ok = quic_dist_node:stop(A),
            ok = quic_dist_node:stop(B)
        end,
        [socket, stdio]
    ).

%% With a node that has the default, the link stays on QUIC.
one_node_wants_tcp(_) ->
    {A, B} = pair(#{}, #{path => quic}),
    timer:sleep(1000),
    ?assertEqual([quic], transports(A, B)),
    ?assertEqual([quic], transports(B, A)).

%% A node whose TCP port is not free says so, and has links over QUIC.
tcp_port_of_another_program(_) ->
    Port = quic_dist_run:free_port(),
    {ok, Socket} = gen_tcp:listen(Port, []),
    A = start(#{}, #{name => {long, quic_dist_run:port_name(Port)}}),
    B = start(#{}),
    wait_log(A, "nothing listens at the TCP port of the node's number", 5000),
    connect(B, A),
    timer:sleep(1000),
    ?assertEqual([quic], transports(B, A)),
    gen_tcp:close(Socket).

%% Both kernels tell the other side: its nodes are down in a moment.
vm_and_sidecar_killed(_) ->
    lists:foreach(
        fun(Killed) ->
            {A, B} = pair(#{}, #{}),
            wait_transport(B, A, tcp),
            wait_transport(A, B, tcp),
            {Dead, Alive} =
                case Killed of
                    dialler -> {A, B};
                    acceptor -> {B, A}
                end,
            watch(Alive),
            #{os_pid := Vm} = Dead,
            os:cmd(lists:flatten(io_lib:format("kill -KILL ~b ~b", [sidecar(Dead), Vm]))),
            ?assertEqual(connection_closed, nodedown(Alive, Dead, 2000)),
            ok = quic_dist_node:stop(Alive)
        end,
        [dialler, acceptor]
    ).

%% The next sidecar knows no link of the one before, whatever it was over.
sidecar_killed(_) ->
    {A, B} = pair(#{}, #{}),
    wait_transport(A, B, tcp),
    watch(A),
    watch(B),
    quic_dist_os:signal(sidecar(B), kill),
    ?assertEqual(connection_closed, nodedown(B, A, 2000)),
    ?assertEqual(connection_closed, nodedown(A, B, 4000)),
    wait_until(connected, fun() -> quic_dist_node:ping(A, B) =:= pong end),
    wait_transport(A, B, tcp).

pair(OfA, OfB) ->
    A = start(OfA),
    B = start(OfB),
    connect(A, B),
    {A, B}.

start(Options) ->
    start(Options, #{}).

start(Options, More) ->
    quic_dist_node:start(More#{
        args => ["-connect_all", "false"],
        quic_dist => maps:to_list(maps:merge(#{resume => true, path => tcp}, Options))
    }).

%% What a process of A sends to one of B arrives as it was sent, in order.
passes(A, B) ->
    NameB = name(B),
    ok = call(A, fun() ->
        Sent = [{N, binary:copy(<<N>>, (N rem 5) * (N rem 7) * 10000)} || N <- lists:seq(1, 200)],
        Self = self(),
        Pid = erlang:spawn(NameB, fun() ->
            Self ! {self(), [receive {_, _} = M -> M end || _ <- lists:seq(1, 200)]}
        end),
        lists:foreach(fun(M) -> Pid ! M end, Sent),
        receive
            {Pid, Sent} -> ok;
            {Pid, Other} -> {error, length(Other)}
        end
    end).

wait_transport(Node, Peer, Transport) ->
    wait_until({Transport, transports(Node, Peer)}, fun() ->
        [Transport] =:= transports(Node, Peer)
    end).

transports(Node, Peer) ->
    #{connections := Connections} = peer(Node, Peer),
    lists:usort([Transport || #{transport := Transport} <- Connections]).

peer(Node, Peer) ->
    #{peers := #{} = Peers} = call(Node, fun() -> quic_dist:info() end),
    maps:get(name(Peer), Peers).
