%% @doc A VM or a sidecar that is stopped (SIGSTOP) or hangs blocks no other process for ever, and
%% the memory that it costs is bounded.
-module(quic_dist_stopped_SUITE).

-export([all/0, groups/0, suite/0, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    stopped_receiver/1,
    stopped_receiver_of_large_messages/1,
    sidecar_stopped/1,
    sidecar_stopped_under_load/1,
    halt_beside_a_stopped_sidecar/1,
    sidecar_that_hangs/1,
    suspended_with_its_sidecar/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [distribute/2, start/2, start_alone/2]).
-import(quic_dist_node, [
    call/2, call/3, call/4, cast/2, connect/2, connects/2, info/1, next_sidecar/3, pang/3,
    sidecar/1, tell/2, wait_log/3
]).
-import(quic_dist_os, [gone/2, signal/2]).
-import(quic_dist_run, [free_port/0]).
-import(quic_dist_wait, [scale/1, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

%% Of the dialling nodes, in seconds and in milliseconds: kernel's own default is 7.
-define(SETUP_TIME, 2).
-define(PANG, 2000).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [{group, Plane} || Plane <- quic_dist_case:planes()].

groups() ->
    Cases = [
        stopped_receiver,
        stopped_receiver_of_large_messages,
        {group, slow}
    ],
    Planes = [{Plane, [], Cases} || Plane <- quic_dist_case:planes()],
    %% These mostly wait, and may do it together.
    Slow = [
        sidecar_stopped,
        sidecar_stopped_under_load,
        halt_beside_a_stopped_sidecar,
        sidecar_that_hangs,
        suspended_with_its_sidecar
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

%% A stopped sidecar blocks nothing: a ping fails in time, and distribution can be stopped, after
%% which the sidecar is gone. Started again, distribution works.
sidecar_stopped(Config) ->
    B = start(Config, #{}),
    C = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    UdpPort = free_port(),
    A = distribute(start_alone(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}), UdpPort),
    connects(A, B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    pang(A, maps:get(node, C), ?PANG + 500),
    %% It does not block a node that dials this one either.
    pang(C, maps:get(node, A), ?PANG + 500),
    stop_distribution(A, Sidecar),
    distribute(A, UdpPort),
    connects(A, C).

%% A stopped sidecar blocks nothing either while processes fill the pipes and sockets that lead to
%% it.
sidecar_stopped_under_load(Config) ->
    B = start(Config, #{}),
    C = start(Config, #{}),
    UdpPort = free_port(),
    A = distribute(start_alone(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}), UdpPort),
    connects(A, B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    start_senders(A, maps:get(node, B), 4, 200, 100000),
    pang(A, maps:get(node, C), ?PANG + 500),
    ?assertMatch(#{}, call(A, fun() -> quic_dist:info() end, 2000)),
    ?assertMatch([_ | _], call(A, fun() -> [node() | nodes(connected)] end, 2000)),
    stop_distribution(A, Sidecar),
    distribute(A, UdpPort),
    connects(A, C).

%% init:stop ends a node whose sidecar is stopped, and the sidecar, which tells the peers.
halt_beside_a_stopped_sidecar(Config) ->
    A = #{os_pid := Beam} = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    cast(A, fun() -> init:stop() end),
    gone(Beam, 6000),
    gone(Sidecar, 1000),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)).

%% The VM replaces a sidecar that hangs within ten seconds, and logs it, although no request waits.
sidecar_that_hangs(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    ?assertEqual(connection_closed, nodedown(A, B, 10000)),
    next_sidecar(A, Sidecar, 1000),
    gone(Sidecar, 1000),
    ?assertMatch([_], wait_log(A, "has not answered for [0-9]+ ms: it is stopped or hangs", 2000)),
    connect(A, B).

%% A node that is suspended with its sidecar, longer than a sidecar may hang, keeps that sidecar
%% when both continue, even if the VM continues first.
suspended_with_its_sidecar(Config) ->
    A = #{os_pid := Beam} = start(Config, #{}),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    signal(Beam, stop),
    receive
    after 12000 -> ok
    end,
    signal(Beam, cont),
    %% The VM has taken up its work.
    ?assertMatch(#{os_pid := Sidecar}, info(A)),
    receive
    after 1000 -> ok
    end,
    signal(Sidecar, cont),
    %% It answers again.
    connect(A, start(Config, #{})),
    ?assertEqual(Sidecar, sidecar(A)).

%% net_kernel:stop returns within the time that a sidecar has to end, and then it has none.
stop_distribution(A, Sidecar) ->
    {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
    within(5000, Microseconds div 1000, net_kernel_stop),
    gone(Sidecar, 1000).

%% A stopped receiver suspends its senders, and no process's memory grows without bound. When it
%% continues all messages arrive, in order.
stopped_receiver(Config) ->
    stopped_receiver(Config, 250, 100000).

stopped_receiver_of_large_messages(Config) ->
    stopped_receiver(Config, 1, 64 bsl 20).

stopped_receiver(Config, Each, Size) ->
    A = start(Config, #{}),
    B = #{os_pid := Beam} = start(Config, #{}),
    connect(A, B),
    Sidecars = [sidecar(A), sidecar(B)],
    Senders = 8,
    Counters = start_receivers(B, Senders, Each),
    signal(Beam, stop),
    start_senders(A, maps:get(node, B), Senders, Each, Size),
    stalled(A),
    ?assert(sent(A) < Senders * Each),
    %% The peak, not what is left of it.
    Peaks = [peak_memory(Sidecar) || Sidecar <- Sidecars],
    ct:pal("peaks of the sidecars' memory, in kB: ~w; sent: ~w of ~w", [
        Peaks, sent(A), Senders * Each
    ]),
    signal(Beam, cont),
    [
        receive
            {received, N, InOrder} -> ?assertEqual(Each, InOrder)
        after scale(30000) ->
            error({not_received, N, call(A, fun() -> nodes() end)})
        end
     || N <- Counters
    ],
    Largest = lists:max(Peaks ++ [peak_memory(Sidecar) || Sidecar <- Sidecars]),
    ?assert(Largest < largest_sidecar(), {largest, Largest, bound, largest_sidecar()}).

%% Kilobytes: a channel of eight lanes by the formula of DESIGN.md, section 6, and 16 MB for the
%% program itself. Go's collector may let half as much again stand.
largest_sidecar() ->
    Outbox = 4096 + (2 + 8) * 128,
    Backlog = 2 * (4096 + 128),
    Streams = 1 + 8,
    Channel = Outbox + Backlog + Streams * (128 + 4096) + 2 * (128 + 8 * 64),
    (Channel + 16384) * 3 div 2.

peak_memory(OsPid) ->
    {ok, Status} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/status"),
    {match, [Kilobytes]} = re:run(Status, "VmHWM:\\s*(\\d+) kB", [{capture, [1], list}]),
    list_to_integer(Kilobytes).

%% Processes of `Node' that send Each messages of Size bytes to their receivers at `To'.
start_senders(Node, To, Senders, Each, Size) ->
    call(Node, fun() ->
        Sent = atomics:new(1, []),
        persistent_term:put({?MODULE, sent}, Sent),
        Load = binary:copy(<<"0123456789">>, Size div 10),
        [
            spawn(fun() ->
                [
                    begin
                        {receiver(S), To} ! {N, Load},
                        atomics:add(Sent, 1, 1)
                    end
                 || N <- lists:seq(1, Each)
                ]
            end)
         || S <- lists:seq(1, Senders)
        ],
        ok
    end).

receiver(N) -> list_to_atom("receiver_" ++ integer_to_list(N)).

sent(Node) ->
    call(Node, fun() -> atomics:get(persistent_term:get({?MODULE, sent}), 1) end).

%% Waits until the senders get no further, and longer than they need for what is bounded.
stalled(Node) ->
    wait_until(
        stalled,
        fun() ->
            Before = sent(Node),
            receive
            after 1500 -> ok
            end,
            sent(Node) =:= Before
        end,
        20000
    ).

%% Each receiver tells this process how many of its messages came, from the first on and in order.
start_receivers(Node, Senders, Each) ->
    Self = self(),
    Numbers = lists:seq(1, Senders),
    call(Node, fun() ->
        Caller = self(),
        [
            spawn(fun() ->
                register(receiver(N), self()),
                Caller ! {registered, N},
                InOrder = count(1, Each),
                tell(Self, {received, N, InOrder})
            end)
         || N <- Numbers
        ],
        [
            receive
                {registered, N} -> ok
            end
         || N <- Numbers
        ],
        ok
    end),
    Numbers.

count(N, Each) when N > Each ->
    Each;
count(N, Each) ->
    receive
        {N, _} -> count(N + 1, Each);
        {Other, _} -> {after_message, N - 1, came, Other}
    end.
