%% @doc A node loses peers that have gone silent, because VM and sidecar died or because the
%% network is cut.
-module(quic_dist_silence_SUITE).

-export([suite/0, all/0, end_per_testcase/2]).
-export([
    vm_and_sidecar_killed/1,
    vm_and_sidecar_killed_and_started_again/1,
    sidecar_killed_beside_a_quiet_link/1,
    tick_time_raised_at_run_time/1,
    tick_time_that_is_short/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, connect/2, sidecar/1]).
-import(quic_dist_wait, [scale/1]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [
        vm_and_sidecar_killed,
        vm_and_sidecar_killed_and_started_again,
        sidecar_killed_beside_a_quiet_link,
        tick_time_raised_at_run_time,
        tick_time_that_is_short
    ].

end_per_testcase(_, _) ->
    ok = quic_dist_link:close().

%% Peers lose a node whose VM and sidecar are killed at one moment within 6 s, long before their
%% tick time ends.
vm_and_sidecar_killed(_) ->
    A = start(#{}),
    B = start(#{}),
    connect(A, B),
    watch(B),
    kill_both(A),
    ?assertEqual(connection_closed, nodedown(B, A, 6000)).

%% A reset answers packets for the former life of a node that is back at once on its port, so that
%% its peers lose it as soon.
vm_and_sidecar_killed_and_started_again(_) ->
    A = #{node := Name} = start(#{}),
    B = start(#{}),
    connect(A, B),
    watch(B),
    kill_both(A),
    _ = start(#{name => {long, atom_to_list(Name)}, args => ["-no_epmd"]}),
    ?assertEqual(connection_closed, nodedown(B, A, 6000)).

%% The peer at the other end of a quiet link loses a node within a second when that node's sidecar
%% is killed. It does not wait for its own next keep-alive.
sidecar_killed_beside_a_quiet_link(_) ->
    A = start(#{}),
    B = start(#{}),
    connect(A, B),
    watch(B),
    %% The keep-alives are sent so long after the last packet: now the next is far off.
    timer:sleep(1000),
    quic_dist_os:signal(sidecar(A), kill),
    ?assertEqual(connection_closed, nodedown(B, A, 1500)).

%% A link outlives a silence of more than twice the tick time that the nodes were started with, if
%% they have been given a longer one since.
tick_time_raised_at_run_time(_) ->
    over_link(#{kernel => [{net_ticktime, 3}]}, fun(A, B, Cut) ->
        lists:foreach(
            fun(Node) -> call(Node, fun() -> net_kernel:set_net_ticktime(60, 1) end) end, [A, B]
        ),
        settled_ticktime(A),
        settled_ticktime(B),
        watch(A),
        watch(B),
        Cut(down),
        ?assertEqual([], downs(10000)),
        Cut(up),
        #{node := NameB} = B,
        ?assertEqual(NameB, call(A, fun() -> erpc:call(NameB, erlang, node, [], infinity) end)),
        ?assertEqual([], downs(0))
    end).

%% A link does not outlive a silence longer than the tick time.
tick_time_that_is_short(_) ->
    over_link(#{kernel => [{net_ticktime, 4}]}, fun(A, B, Cut) ->
        watch(A),
        Cut(down),
        ?assertEqual(net_tick_timeout, nodedown(A, B, 8000))
    end).

over_link(Options, Test) ->
    case quic_dist_link:open("") of
        {ok, Ends} ->
            [A, B] = [start(maps:merge(Options, End)) || End <- Ends],
            [#{exec := {Ip, ["netns", "exec", Namespace | _]}} | _] = Ends,
            connect(A, B),
            Test(A, B, fun(State) ->
                "" = os:cmd(
                    lists:join(" ", [Ip, "-n", Namespace, "link set wan0", atom_to_list(State)])
                )
            end);
        {error, Reason} ->
            {skip, Reason}
    end.

settled_ticktime(Node) ->
    quic_dist_wait:wait_until(tick_time, fun() ->
        call(Node, fun() -> net_kernel:get_net_ticktime() end) =:= 60
    end).

start(Options) ->
    quic_dist_node:start(Options#{
        args => ["-connect_all", "false" | maps:get(args, Options, [])]
    }).

kill_both(#{os_pid := Vm} = Node) ->
    Sidecar = sidecar(Node),
    os:cmd(lists:flatten(io_lib:format("kill -KILL ~b ~b", [Sidecar, Vm]))).

downs(Within) ->
    receive
        {nodedown, _, _, _} = Down -> [Down]
    after Within ->
        []
    end.
