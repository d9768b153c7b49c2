%% @doc VMs and sidecars end in every way: they are killed, terminated or stopped by net_kernel,
%% also while they start or connect. Peers learn of each end, and the next sidecar serves the node,
%% at the same UDP port.
-module(quic_dist_life_SUITE).

-export([all/0, groups/0, suite/0, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    beam_killed/1,
    sidecar_killed/1,
    sidecar_killed_and_reconnected/1,
    both_sidecars_killed/1,
    sidecar_terminated/1,
    sidecar_killed_while_connecting/1,
    distribution_stopped/1,
    distribution_stopped_while_connecting/1,
    simultaneous_connects_while_sidecars_die/1,
    ten_sidecar_kills/1,
    sidecar_kills_that_are_far_apart/1,
    sidecar_killed_while_starting/1,
    udp_port_taken_meanwhile/1,
    udp_port_of_a_predecessor/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [distribute/2, resources/1, same_resources/2, start/2, start_alone/2]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, info/1, next_sidecar/3, pang/3, ping/2, sidecar/1, tell/2, wait_log/3
]).
-import(quic_dist_os, [gone/2, is_bound/1, kill/1, signal/2]).
-import(quic_dist_run, [free_port/0]).
-import(quic_dist_wait, [flush/0, scale/1, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [{group, Plane} || Plane <- quic_dist_case:planes()].

groups() ->
    Cases = [
        beam_killed,
        sidecar_killed,
        sidecar_killed_and_reconnected,
        both_sidecars_killed,
        sidecar_terminated,
        sidecar_killed_while_connecting,
        distribution_stopped,
        distribution_stopped_while_connecting,
        simultaneous_connects_while_sidecars_die,
        {group, slow}
    ],
    Planes = [{Plane, [], Cases} || Plane <- quic_dist_case:planes()],
    %% These mostly wait, and may do it together.
    Slow = [
        ten_sidecar_kills,
        sidecar_kills_that_are_far_apart,
        sidecar_killed_while_starting,
        udp_port_taken_meanwhile,
        udp_port_of_a_predecessor
    ],
    [{slow, [parallel], Slow} | Planes].

init_per_group(Group, Config) ->
    quic_dist_case:in_plane(Group, Config).

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% The end of a killed BEAM ends its sidecar, and its peers see it down, both within a second.
beam_killed(Config) ->
    A = #{os_pid := Beam, node := Name} = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(B),
    Sidecar = sidecar(A),
    {UdpPort, _} = string:to_integer(atom_to_list(Name)),
    ?assert(is_bound(UdpPort)),
    %% Another program that the BEAM has started, and that outlives it, does not hold the sidecar.
    call(A, fun() -> is_port(open_port({spawn, "sleep 2"}, [])) end),
    kill(Beam),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    gone(Sidecar, 1000),
    ?assertNot(is_bound(UdpPort)),
    pang(B, Name, 1000).

%% A killed sidecar costs its connections and nothing else. Both nodes see them down, another
%% sidecar listens on the same UDP port within a second, and either node can connect again.
sidecar_killed(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    #{listen := Listen, os_pid := Sidecar} = info(A),
    kill(Sidecar),
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    Next = next_sidecar(A, Sidecar, 1000),
    ?assertMatch(#{listen := Listen, os_pid := Next}, info(A)),
    %% The new sidecar tells the peer.
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    connect(B, A),
    ?assertMatch([_], wait_log(A, killed(Sidecar), 2000)).

%% A VM that writes to a sidecar in the moment in which that ends gets no status.
killed(OsPid) ->
    io_lib:format(
        "quicdistd \\(pid ~b\\) (was killed \\(SIGKILL\\)|ended \\(epipe\\)) while up", [OsPid]
    ).

%% The next ping after a sidecar was killed connects again, although the peer still believes that
%% the old connection lives.
sidecar_killed_and_reconnected(Config) ->
    A = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    connect(A, B),
    watch(A),
    kill(sidecar(A)),
    nodedown(A, B, 1000),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(NodeB, call(A, fun() -> erpc:call(NodeB, fun() -> node() end) end)).

%% Two nodes whose sidecars are killed at the same moment connect again.
both_sidecars_killed(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    Sidecars = [{Node, sidecar(Node)} || Node <- [A, B]],
    [kill(Sidecar) || {_, Sidecar} <- Sidecars],
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    [next_sidecar(Node, Sidecar, 1000) || {Node, Sidecar} <- Sidecars],
    connect(A, B).

%% A sidecar whose VM lives ignores the signals that systemd and terminals send to all processes of
%% a service. Its links stay up.
sidecar_terminated(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    C = start(Config, #{}),
    Sidecar = sidecar(A),
    [signal(Sidecar, Signal) || Signal <- [term, int, hup]],
    %% A sidecar that is ending connects to nobody.
    connect(A, C),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual([], flush()),
    ?assertEqual(Sidecar, sidecar(A)).

%% A process that waits for a connection gets its answer at once when the sidecar is killed.
sidecar_killed_while_connecting(Config) ->
    A = start(Config, #{}),
    silent(fun(UdpPort) ->
        Pings = start_pings(A, UdpPort, 20),
        Sidecar = sidecar(A),
        AtFirst = resources(A),
        kill(Sidecar),
        [
            receive
                {answer, N, Answer} -> ?assertEqual(pang, Answer)
            after scale(1000) ->
                error({no_answer, N})
            end
         || N <- Pings
        ],
        next_sidecar(A, Sidecar, 1000),
        %% One monitor and some processes for each ping, which are gone.
        ?assert(maps:get(monitors, resources(A)) < maps:get(monitors, AtFirst))
    end),
    connect(A, start(Config, #{})).

%% Pings to so many nodes that do not answer, all on their way; their answers come as messages.
start_pings(Node, UdpPort, Count) ->
    Self = self(),
    Numbers = lists:seq(1, Count),
    call(Node, fun() ->
        [
            spawn(fun() ->
                %% All of 127/8 is this host, and where the socket is bound is 127.0.0.1.
                To = lists:concat([UdpPort, "@127.0.0.", N]),
                tell(Self, {answer, N, net_adm:ping(list_to_atom(To))})
            end)
         || N <- Numbers
        ],
        ok
    end),
    wait_until(
        {dialling, Node},
        fun() ->
            Monitors = maps:get(monitors, resources(Node)),
            Monitors >= Count orelse Monitors
        end,
        2000
    ),
    Numbers.

silent(Test) ->
    %% Bound to every address: an answer to anything would come from the kernel else.
    {ok, Socket} = gen_udp:open(0, [{active, false}]),
    {ok, UdpPort} = inet:port(Socket),
    Test(UdpPort),
    ok = gen_udp:close(Socket).

%% net_kernel:stop does not wait for connections that are being set up.
distribution_stopped_while_connecting(Config) ->
    UdpPort = free_port(),
    A = distribute(start_alone(Config, #{}), UdpPort),
    silent(fun(Silent) ->
        Pings = start_pings(A, Silent, 5),
        Sidecar = sidecar(A),
        {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
        within(1500, Microseconds div 1000, net_kernel_stop),
        gone(Sidecar, 1000),
        [
            receive
                {answer, N, Answer} -> ?assertEqual(pang, Answer)
            after scale(1000) ->
                error({no_answer, N})
            end
         || N <- Pings
        ]
    end).

%% A sidecar that is killed in its first moments is replaced like any other.
sidecar_killed_while_starting(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    #{listen := Listen} = info(A),
    Last = lists:foldl(
        fun(_, Before) ->
            Next = wait_until(
                {another_than, Before},
                fun() ->
                    case info(A) of
                        #{os_pid := OsPid} when is_integer(OsPid), OsPid =/= Before -> {ok, OsPid};
                        Other -> Other
                    end
                end,
                3000
            ),
            %% Not kill/1, which asks for our mark in the environment: while a process becomes
            %% another program it has none.
            _ = os:cmd("kill -KILL " ++ integer_to_list(Next)),
            Next
        end,
        none,
        lists:seq(1, 5)
    ),
    next_sidecar(A, Last, 3000),
    ?assertMatch(#{listen := Listen}, info(A)),
    connect(B, A).

%% A node works however often its sidecar is killed under load, and its VM keeps nothing of the
%% former sidecars.
ten_sidecar_kills(Config) ->
    A = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    connect(A, B),
    {AtFirst, PeerAtFirst} = {resources(A), resources(B)},
    %% These connect by themselves, too.
    Senders = call(A, fun() ->
        [spawn(fun() -> keep_sending({nobody, NodeB}) end) || _ <- [1, 2]]
    end),
    lists:foreach(
        fun(_) ->
            Sidecar = sidecar(A),
            kill(Sidecar),
            %% The pause between two grows up to a second.
            next_sidecar(A, Sidecar, 3000),
            connect(A, B)
        end,
        lists:seq(1, 10)
    ),
    call(A, fun() -> [exit(Sender, kill) || Sender <- Senders] end),
    same_resources(A, AtFirst),
    same_resources(B, PeerAtFirst).

%% A sidecar that has served is replaced at once, however many were killed before it.
sidecar_kills_that_are_far_apart(Config) ->
    A = start(Config, #{}),
    lists:foreach(
        fun(_) ->
            Sidecar = sidecar(A),
            %% It has served for a second.
            receive
            after 1500 -> ok
            end,
            kill(Sidecar),
            next_sidecar(A, Sidecar, 1000)
        end,
        lists:seq(1, 7)
    ).

keep_sending(To) ->
    To ! binary:copy(<<"0123456789">>, 10000),
    receive
    after 10 -> keep_sending(To)
    end.

%% net_kernel:stop closes everything at once: peers see nodedown, the sidecar ends, its UDP port is
%% free, and nothing is left in the VM. Distribution can start again on the same port.
distribution_stopped(Config) ->
    B = start(Config, #{}),
    Alone = start_alone(Config, #{}),
    UdpPort = free_port(),
    watch(B),
    Resources = fun() ->
        call(Alone, fun() -> {length(processes()), length(erlang:ports()), length(ets:all())} end)
    end,
    %% What the first start loads and makes for good is not counted.
    once_distributed(Alone, B, UdpPort),
    Before = Resources(),
    once_distributed(Alone, B, UdpPort),
    once_distributed(Alone, B, UdpPort),
    wait_until({resources, Before}, fun() -> Resources() =:= Before orelse Resources() end, 3000).

once_distributed(Alone, B, UdpPort) ->
    A = distribute(Alone, UdpPort),
    connect(A, B),
    Sidecar = sidecar(A),
    {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
    within(1000, Microseconds div 1000, net_kernel_stop),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    gone(Sidecar, 1000),
    ?assertNot(is_bound(UdpPort)).

%% Nodes that connect to each other at one moment while their sidecars are killed are connected in
%% the end, and no process of either hangs.
simultaneous_connects_while_sidecars_die(Config) ->
    [A, B] = Nodes = [start(Config, #{}) || _ <- [a, b]],
    AtFirst = [resources(Node) || Node <- Nodes],
    lists:foreach(
        fun(Round) ->
            [call(Node, fun() -> disconnect_and_ping(maps:get(node, Peer)) end)
             || {Node, Peer} <- [{A, B}, {B, A}]],
            %% Before, in and after the handshake.
            receive
            after Round * 3 -> kill(sidecar(lists:nth(1 + Round rem 2, Nodes)))
            end
        end,
        lists:seq(1, 8)
    ),
    [
        wait_until({connected, Node}, fun() -> ping(Node, Peer) =:= pong end, 15000)
     || {Node, Peer} <- [{A, B}, {B, A}]
    ],
    call(A, erlang, disconnect_node, [maps:get(node, B)]),
    [same_resources(Node, Before) || {Node, Before} <- lists:zip(Nodes, AtFirst)].

%% On a node. Returns while the ping is under way.
disconnect_and_ping(Peer) ->
    erlang:disconnect_node(Peer),
    spawn(fun() -> net_adm:ping(Peer) end),
    ok.

%% A node whose UDP port another program takes while the sidecar is being replaced says so and
%% tries again. It has the port again when that is free.
udp_port_taken_meanwhile(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    #{listen := {Ip, UdpPort} = Listen, os_pid := First} = info(A),
    kill(First),
    %% Before the second restart there is a pause.
    kill(next_sidecar(A, First, 1000)),
    Socket = wait_until(
        {taken, UdpPort},
        fun() -> gen_udp:open(UdpPort, [{ip, Ip}]) end,
        1000
    ),
    wait_log(A, "another program has it", 3000),
    ?assertMatch(#{state := {down, _}}, info(A)),
    ok = gen_udp:close(Socket),
    connect(wait_up(A, Listen), B),
    connect(B, A).

%% Distribution starts although another process still has the UDP port, as the sidecar of a
%% restarted node has for up to two seconds.
udp_port_of_a_predecessor(Config) ->
    A = start_alone(Config, #{}),
    UdpPort = free_port(),
    {ok, Socket} = gen_udp:open(UdpPort, [{ip, {127, 0, 0, 1}}]),
    {ok, _} = timer:apply_after(2000, gen_udp, close, [Socket]),
    ?assertMatch(#{}, distribute(A, UdpPort)),
    ?assertEqual(undefined, erlang:port_info(Socket)).

wait_up(Node, Listen) ->
    wait_until(
        {up, Node},
        fun() ->
            case info(Node) of
                #{state := up, listen := Listen} -> {ok, Node};
                Other -> Other
            end
        end,
        7000
    ).
