%% @doc A link outlives its QUIC connections: nodes on both sides of a relay lose nothing but time
%% when the relay forgets its flows, blocks one direction, changes its address or drops everything.
%% A link ends as it does without that where a peer has died, or stays silent for the tick time.
%%
%% A dials, through the relay. B is the acceptor. B cannot dial A through the relay.
-module(quic_dist_resume_SUITE).

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    nothing_is_lost/1,
    nothing_is_lost_in_mode_single/1,
    nothing_is_lost_in_mode_sender/1,
    nothing_is_lost_over_three_connections/1
]).
-export([
    short_cut/1,
    cut_beyond_the_tick_time/1,
    quiet_dialler/1,
    unheard_dialler/1,
    signals/1,
    busy_dist_port/1
]).
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
-export([mnesia_transactions/1, certificates/1]).

-include_lib("stdlib/include/assert.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_case, [start/2]).
-import(quic_dist_node, [
    call/2, call/4, cast/2, connect/2, connects/2, name/1, next_sidecar/3, sidecar/1, tell/2
]).
-import(quic_dist_os, [gone/2]).
-import(quic_dist_run, [free_port/0, port_name/1]).
-import(quic_dist_wait, [flush/0, scale/1, settled/3, wait_until/2, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

-define(MB, 1048576).

%% How long connections are lost at random moments, in ms.
-define(UNREST, 6000).

%% How long a link may take to go on when packets pass again: the rest of a try that has begun, the
%% longest pause between two, and a try.
-define(RESUMED, 4000).

%% Tables of Mnesia: balances, and how many transfers each process has made.
-define(ACCOUNT, quic_dist_resume_account).
-define(COMMITS, quic_dist_resume_commits).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(60000)}, {userdata, by_name}].

all() ->
    [{group, Plane} || Plane <- quic_dist_case:planes()].

groups() ->
    [
        {socket, [], [
            nothing_is_lost,
            nothing_is_lost_in_mode_single,
            nothing_is_lost_in_mode_sender,
            nothing_is_lost_over_three_connections,
            {group, cuts},
            {group, ends},
            mnesia_transactions,
            certificates
        ]},
        {stdio, [], [nothing_is_lost, {group, cuts}, {group, ends}]},
        %% These mostly wait, and may do it together.
        {cuts, [parallel], [
            short_cut,
            cut_beyond_the_tick_time,
            quiet_dialler,
            unheard_dialler,
            signals,
            busy_dist_port
        ]},
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

%% Nodes

%% Two connected nodes with a relay between them. Their lost nodes are told to the caller.
pair(Config) -> pair(Config, #{}).

pair(Config, Options) ->
    Port = free_port(),
    Relay = quic_dist_relay:start(Port),
    B = node_at(Config, Port, [], Options),
    A = node_at(Config, free_port(), [{B, Relay}], Options),
    connects(A, B),
    watch(A),
    watch(B),
    {A, B, Relay}.

%% A node with this UDP port that finds peers through relays.
node_at(Config, Port, Peers, Options) ->
    Nodes = [{name(Peer), "127.0.0.1", quic_dist_relay:port(Relay)} || {Peer, Relay} <- Peers],
    start(Config, Options#{
        name => {long, port_name(Port)},
        args => ["-no_epmd"],
        quic_dist => [{resume, true}, {nodes, Nodes} | maps:get(quic_dist, Options, [])]
    }).

%% The node that a pair's A or B is when it is started again: its name is the same.
again(Config, #{node := Name}, Peers) ->
    {Port, "@" ++ _} = string:to_integer(atom_to_list(Name)),
    Node = node_at(Config, Port, Peers, #{}),
    watch(Node),
    Node.

kill_both(#{os_pid := Vm} = Node) ->
    Sidecar = sidecar(Node),
    os:cmd(lists:flatten(io_lib:format("kill -KILL ~b ~b", [Sidecar, Vm]))),
    ok.

%% The nodedowns that the test has been told of.
no_nodedown() ->
    ?assertEqual([], [Down || Down <- flush(), element(1, Down) =:= nodedown]).

%% Nothing is lost

%% Messages of several senders in both directions arrive once each, and in the order of each sender,
%% while connections are lost at random moments.
nothing_is_lost(Config) -> nothing_is_lost_with(Config, []).

nothing_is_lost_in_mode_single(Config) -> nothing_is_lost_with(Config, [{streams, single}]).

nothing_is_lost_in_mode_sender(Config) -> nothing_is_lost_with(Config, [{streams, sender}]).

nothing_is_lost_over_three_connections(Config) ->
    nothing_is_lost_with(Config, [{streams, sender}, {connections, 3}]).

nothing_is_lost_with(Config, Options) ->
    {A, B, Relay} = pair(Config, #{quic_dist => Options}),
    Stop = talk(A, B),
    unrest([Relay], ?UNREST),
    Counts = Stop(),
    no_nodedown(),
    Conversations = quic_dist_relay:conversations(Relay),
    ct:log("messages: ~w, conversations: ~b", [Counts, Conversations]),
    ?assert(Conversations >= 2).

%% Lets relays fail, first all of them and then at random moments for so many ms. All new flows pass
%% afterwards.
unrest(Relays, Time) ->
    _ = rand:seed(exsss),
    ct:log("seed: ~p", [rand:export_seed()]),
    lists:foreach(fun quic_dist_relay:forget/1, Relays),
    unrest_until(Relays, erlang:monotonic_time(millisecond) + Time).

unrest_until(Relays, Deadline) ->
    timer:sleep(50 + rand:uniform(1500)),
    case quic_dist_wait:left(Deadline) of
        0 ->
            ct:log("healed"),
            lists:foreach(fun quic_dist_relay:heal/1, Relays);
        _ ->
            Faults = [forget, forget, mute, deafen, rebind, cut, forget_and_cut],
            Fault = lists:nth(rand:uniform(length(Faults)), Faults),
            ct:log("~w", [Fault]),
            ok = fail(Fault, lists:nth(rand:uniform(length(Relays)), Relays)),
            unrest_until(Relays, Deadline)
    end.

fail(forget, Relay) ->
    quic_dist_relay:forget(Relay);
fail(mute, Relay) ->
    quic_dist_relay:mute(Relay);
fail(deafen, Relay) ->
    quic_dist_relay:deafen(Relay);
fail(rebind, Relay) ->
    quic_dist_relay:rebind(Relay);
fail(cut, Relay) ->
    quic_dist_relay:cut(Relay, rand:uniform(500));
fail(forget_and_cut, Relay) ->
    ok = quic_dist_relay:forget(Relay),
    quic_dist_relay:cut(Relay, rand:uniform(500)).

%% Three senders on each node send to receivers on the other, until the fun is called that this
%% returns. It waits until all messages have arrived, asserts that, and returns their numbers.
talk(A, #{node := NodeB}) ->
    Test = self(),
    Conductor = call(A, fun() -> spawn(fun() -> conduct(Test, NodeB) end) end),
    ?recv({Conductor, talking}),
    fun() ->
        _ = call(A, erlang, send, [Conductor, stop]),
        ?recv({Conductor, Result}, {complete, _} = Result, 20000)
    end.

%% On node A.
conduct(Test, NodeB) ->
    ToB = receivers(NodeB, self()),
    ToA = receivers(node(), self()),
    Senders = senders(node(), ToB) ++ senders(NodeB, ToA),
    tell(Test, {self(), talking}),
    receive
        stop -> [Sender ! stop || Sender <- Senders];
        {'DOWN', _, _, _, _} = Down -> self() ! Down
    end,
    tell(Test, {self(), completed(length(ToA ++ ToB), [])}).

%% The first is for all three senders, each other for one.
receivers(Node, Conductor) ->
    [
        element(1, spawn_monitor(Node, fun() -> take(Conductor, Senders, #{}, 0) end))
     || Senders <- [3, 1, 1, 1]
    ].

senders(Node, [Shared | Own]) ->
    [
        element(1, spawn_monitor(Node, fun() -> send_on(Nr, [Pid, Shared], 1) end))
     || {Nr, Pid} <- lists:enumerate(Own)
    ].

completed(0, Counts) ->
    {complete, Counts};
completed(Left, Counts) ->
    receive
        {complete, Count} -> completed(Left - 1, [Count | Counts]);
        {'DOWN', _, _, _, normal} -> completed(Left, Counts);
        {'DOWN', _, _, Pid, Reason} -> {failed, Pid, Reason}
    end.

send_on(Nr, Pids, N) ->
    Content = rand:bytes(bytes(N)),
    Message = {Nr, N, erlang:crc32(Content), Content},
    [Pid ! Message || Pid <- Pids],
    receive
        stop -> [Pid ! {last, Nr, N} || Pid <- Pids]
    after pause(N) -> send_on(Nr, Pids, N + 1)
    end.

bytes(N) when N rem 150 =:= 0 -> 500000;
bytes(N) when N rem 40 =:= 0 -> 70000;
bytes(N) -> N * 7919 rem 1500.

pause(N) when N rem 10 =:= 0 -> 40;
pause(_) -> 0.

take(Conductor, 0, _, Count) ->
    %% Nothing comes behind the last.
    receive
        Other -> exit({unexpected, element(1, Other), element(2, Other)})
    after 100 -> Conductor ! {complete, Count}
    end;
take(Conductor, Senders, Last, Count) ->
    receive
        {last, Nr, N} ->
            {Nr, N} = {Nr, maps:get(Nr, Last)},
            take(Conductor, Senders - 1, Last, Count);
        {Nr, N, Crc, Content} ->
            {Nr, N, Crc} = {Nr, maps:get(Nr, Last, 0) + 1, erlang:crc32(Content)},
            take(Conductor, Senders, Last#{Nr => N}, Count + 1)
    end.

%% Cuts

%% After a cut of four seconds a link goes on, with all that was sent meanwhile.
short_cut(Config) ->
    {A, B, Relay} = pair(Config),
    NodeB = name(B),
    Stop = talk(A, B),
    ok = quic_dist_relay:cut(Relay),
    timer:sleep(4000),
    ok = quic_dist_relay:heal(Relay),
    {Took, NodeB} = timer:tc(fun() ->
        call(A, fun() -> erpc:call(NodeB, erlang, node, [], infinity) end)
    end),
    within(?RESUMED, Took div 1000, resumed),
    Stop(),
    no_nodedown().

%% Both nodes lose each other in a cut that is longer than the tick time, and then connect again.
cut_beyond_the_tick_time(Config) ->
    {A, B, Relay} = pair(Config, #{kernel => [{net_ticktime, 4}]}),
    ok = quic_dist_relay:cut(Relay),
    ?assertEqual(net_tick_timeout, nodedown(A, B, 7000)),
    ?assertEqual(net_tick_timeout, nodedown(B, A, 3000)),
    ok = quic_dist_relay:heal(Relay),
    connect(A, B),
    Talk = talk(A, B),
    Talk(),
    no_nodedown().

%% The loss of a connection that only the acceptor uses is noticed by the dialler's next keep-alive,
%% which comes within four seconds.
quiet_dialler(Config) ->
    {A, #{node := NodeB} = B, Relay} = pair(Config),
    {Test, NodeA} = {self(), name(A)},
    call(A, fun() ->
        true = register(?MODULE, spawn(fun() -> ?recv(hello, tell(Test, hello), 20000) end)),
        %% What connecting has to say is said.
        NodeB = erpc:call(NodeB, erlang, node, [])
    end),
    timer:sleep(500),
    ok = quic_dist_relay:forget(Relay),
    hello = call(B, fun() -> {?MODULE, NodeA} ! hello end),
    ?recv(hello, ok, 4000 + ?RESUMED),
    no_nodedown().

%% The loss of what the dialler sends is noticed as soon as another, although the acceptor goes on
%% sending and is heard.
unheard_dialler(Config) ->
    {A, #{node := NodeB} = B, Relay} = pair(Config),
    {Test, NodeA} = {self(), name(A)},
    call(B, fun() ->
        true = register(?MODULE, spawn(fun() -> ?recv(hello, tell(Test, hello), 20000) end)),
        spawn(fun() -> trickle({nobody, NodeA}) end)
    end),
    timer:sleep(1000),
    ok = quic_dist_relay:mute(Relay),
    hello = call(A, fun() -> {?MODULE, NodeB} ! hello end),
    ?recv(hello, ok, ?RESUMED),
    no_nodedown().

trickle(To) ->
    To ! rand:bytes(100),
    timer:sleep(300),
    trickle(To).

%% Signals that are sent during an outage arrive after it, once each: messages to a pid and to an
%% alias, exit signals, those of links and monitors, spawn requests and their replies.
signals(Config) ->
    {A, B, Relay} = pair(Config),
    {Test, NodeB} = {self(), name(B)},
    call(A, fun() -> spawn(fun() -> probe(Test, NodeB) end), ok end),
    {Probe, Monitored, Linked} = ?recv({probe, _, _, _} = P, erlang:delete_element(1, P)),
    Go = fun() -> call(A, erlang, send, [Probe, go]) end,
    ok = quic_dist_relay:forget(Relay),
    ok = quic_dist_relay:cut(Relay),
    Go(),
    ?recv({Probe, sent}),
    call(B, fun() -> [exit(Pid, Reason) || {Pid, Reason} <- [{Monitored, one}, {Linked, two}]] end),
    timer:sleep(2000),
    Go(),
    ?assertEqual([], ?recv({Probe, early, Early}, Early)),
    ok = quic_dist_relay:heal(Relay),
    ?recv({Probe, Result}, ?assertEqual(done, Result), 20000),
    no_nodedown().

%% On node A.
probe(Test, NodeB) ->
    Outcome =
        try
            probed(Test, NodeB)
        catch
            Class:Reason:Stack -> {Class, Reason, Stack}
        end,
    tell(Test, {self(), Outcome}).

probed(Test, NodeB) ->
    process_flag(trap_exit, true),
    Self = self(),
    Idle = fun() -> receive never -> ok end end,
    [Monitored, Exited] = [spawn(NodeB, Idle) || _ <- [1, 2]],
    Linked = spawn_link(NodeB, Idle),
    Watched = spawn(Idle),
    spawn(NodeB, fun() -> watch_two(Self, Exited, Watched) end),
    Alias = ?recv({alias, Ref}, Ref),
    Monitor = monitor(process, Monitored),
    true = monitor_node(NodeB, true),
    %% The monitors are there.
    NodeB = erpc:call(NodeB, erlang, node, []),
    tell(Test, {probe, Self, Monitored, Linked}),
    ?recv(go),
    %% The outage has begun.
    [Alias ! {nr, N} || N <- lists:seq(1, 10)],
    exit(Exited, three),
    exit(Watched, four),
    Nobody = monitor(process, {nobody, NodeB}),
    Spawned = spawn_request(NodeB, fun() -> exit(five) end, [monitor]),
    tell(Test, {Self, sent}),
    ?recv(go),
    tell(Test, {Self, early, flush()}),
    %% The outage is over.
    ?recv({'DOWN', Monitor, process, Monitored, one}),
    ?recv({'EXIT', Linked, two}),
    ?recv({exited, three}),
    ?recv({watched, four}),
    ?recv({numbers, Numbers}, ?assertEqual(lists:seq(1, 10), Numbers)),
    ?recv({'DOWN', Nobody, process, {nobody, NodeB}, noproc}),
    New = ?recv({spawn_reply, Spawned, ok, Pid}, Pid),
    ?recv({'DOWN', Spawned, process, New, five}),
    NodeB = erpc:call(NodeB, erlang, node, []),
    ?assertEqual([], flush()),
    true = monitor_node(NodeB, false),
    done.

%% On node B.
watch_two(Probe, Exited, Watched) ->
    [ExitedRef, WatchedRef] = [monitor(process, Pid) || Pid <- [Exited, Watched]],
    Probe ! {alias, alias()},
    Probe ! {numbers, [?recv({nr, N}, N) || _ <- lists:seq(1, 10)]},
    ?recv({'DOWN', ExitedRef, process, Exited, Reason}, Probe ! {exited, Reason}),
    ?recv({'DOWN', WatchedRef, process, Watched, Reason}, Probe ! {watched, Reason}).

%% A process that sends much during an outage is suspended, and goes on when the link does.
busy_dist_port(Config) ->
    {A, B, Relay} = pair(Config),
    {Test, NodeB} = {self(), name(B)},
    call(A, fun() ->
        Counter = counters:new(1, []),
        persistent_term:put(?MODULE, Counter),
        spawn(fun() ->
            _ = erlang:system_monitor(self(), [busy_dist_port]),
            forward(Test)
        end),
        spawn(fun() ->
            {Receiver, Monitor} = spawn_monitor(NodeB, fun() -> [big(N) || N <- numbers()] end),
            tell(Test, {sender, self()}),
            ?recv(go),
            [
                begin
                    Receiver ! {N, binary:copy(<<N>>, ?MB)},
                    counters:add(Counter, 1, 1)
                end
             || N <- numbers()
            ],
            Why = ?recv({'DOWN', Monitor, process, Receiver, Reason}, Reason, 20000),
            tell(Test, {received, Why})
        end),
        ok
    end),
    Sender = ?recv({sender, Pid}, Pid),
    ok = quic_dist_relay:cut(Relay),
    _ = call(A, erlang, send, [Sender, go]),
    ?recv({monitor, Sender, busy_dist_port, _}),
    Suspended = fun() ->
        call(A, erlang, process_info, [Sender, status]) =:= {status, suspended}
    end,
    Count = fun() -> call(A, fun() -> counters:get(persistent_term:get(?MODULE), 1) end) end,
    %% The sidecar takes some of it.
    Before = wait_until(suspended, fun() ->
        Sent = Count(),
        timer:sleep(500),
        Suspended() andalso Count() =:= Sent andalso {ok, Sent}
    end),
    ?assert(Before < length(numbers())),
    settled({suspended, Before}, fun() -> Suspended() andalso Count() =:= Before end, 500),
    ok = quic_dist_relay:heal(Relay),
    ?recv({received, Reason}, ?assertEqual(normal, Reason), 20000),
    no_nodedown().

numbers() -> lists:seq(1, 30).

big(N) -> ?recv({N, <<N, _/binary>> = Content}, ?MB = byte_size(Content), 20000).

forward(Test) ->
    receive
        Message -> tell(Test, Message)
    end,
    forward(Test).

%% Ends

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
    ?assertEqual(connection_closed, nodedown(A, B, ?RESUMED)),
    connect(A, C).

%% A node that was dialled loses the dialler at once if that is another after an outage, at the same
%% port. The new one connects.
dialler_restarted(Config) ->
    {A, B, Relay} = pair(Config),
    ok = quic_dist_relay:cut(Relay),
    kill_both(A),
    C = again(Config, A, [{B, Relay}]),
    ok = quic_dist_relay:heal(Relay),
    ?assertEqual(connection_closed, nodedown(B, A, ?RESUMED)),
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
    ?assertEqual(connection_closed, nodedown(Peer, Node, ?RESUMED)).

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
    ?assertEqual(connection_closed, nodedown(Peer, Node, ?RESUMED)).

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

%% Applications

%% Mnesia on three nodes goes through the loss of every link's connections and a cut of three
%% seconds: no node takes another for lost, and all have the same tables afterwards.
mnesia_transactions(Config) ->
    {Nodes, Relays} = three(Config),
    Names = lists:sort([name(Node) || Node <- Nodes]),
    call(hd(Nodes), fun() -> create(Names) end),
    Test = self(),
    [call(Node, fun() -> start_bank(Test) end) || Node <- Nodes],
    unrest(Relays, ?UNREST),
    lists:foreach(fun(Relay) -> quic_dist_relay:cut(Relay, 3000) end, Relays),
    timer:sleep(3000),
    Counts = lists:append([call(Node, fun() -> stop_bank() end) || Node <- Nodes]),
    Conversations = [quic_dist_relay:conversations(Relay) || Relay <- Relays],
    ct:log("transactions: ~p, conversations: ~p", [Counts, Conversations]),
    %% Each link has lost connections.
    ?assert(lists:min(Conversations) >= 2),
    %% The last transactions reach the other nodes later than their own.
    Expected = lists:sort(Counts),
    lists:foreach(
        fun(Node) ->
            wait_until({transactions, Node, Expected}, fun() ->
                Table = call(Node, fun() -> lists:sort(ets:tab2list(?COMMITS)) end),
                Table =:= [{?COMMITS, Key, Count} || {Key, Count} <- Expected] orelse Table
            end)
        end,
        Nodes
    ),
    [Accounts | Others] = [
        call(Node, fun() -> lists:sort(ets:tab2list(?ACCOUNT)) end)
     || Node <- Nodes
    ],
    ?assertEqual([Accounts, Accounts], Others),
    ?assertEqual(0, lists:sum([Balance || {_, _, Balance} <- Accounts])),
    [?assertEqual(Names, call(Node, fun() -> running() end)) || Node <- Nodes],
    ?assertEqual([], [
        Message
     || Message <- flush(),
        element(1, Message) =:= nodedown orelse is_bad(Message)
    ]).

%% Three nodes, with a relay between each two of them.
three(Config) ->
    [PortA, PortB, PortC] = [free_port() || _ <- [a, b, c]],
    Relays = [AB, AC, BC] = [quic_dist_relay:start(Port) || Port <- [PortB, PortC, PortC]],
    C = node_at(Config, PortC, [], #{}),
    B = node_at(Config, PortB, [{C, BC}], #{}),
    A = node_at(Config, PortA, [{B, AB}, {C, AC}], #{}),
    [connects(From, To) || {From, To} <- [{A, B}, {A, C}, {B, C}]],
    lists:foreach(fun quic_dist_watch:watch/1, [A, B, C]),
    {[A, B, C], Relays}.

%% These functions run on the nodes.
create(Names) ->
    [ok = erpc:call(Name, mnesia, start, []) || Name <- Names],
    {ok, _} = mnesia:change_config(extra_db_nodes, Names -- [node()]),
    [
        {atomic, ok} = mnesia:create_table(Table, [{ram_copies, Names}])
     || Table <- [?ACCOUNT, ?COMMITS]
    ],
    [ok = erpc:call(Name, mnesia, wait_for_tables, [[?ACCOUNT, ?COMMITS], 10000]) || Name <- Names],
    {atomic, _} = mnesia:transaction(fun() ->
        [ok = mnesia:write({?ACCOUNT, N, 0}) || N <- lists:seq(1, 10)]
    end),
    ok.

running() -> lists:sort(mnesia:system_info(running_db_nodes)).

start_bank(Test) ->
    Self = self(),
    spawn(fun() ->
        {ok, _} = mnesia:subscribe(system),
        Self ! subscribed,
        forward(Test)
    end),
    ?recv(subscribed),
    [true = register(clerk(N), spawn(fun() -> transfer(N, 0) end)) || N <- [1, 2]],
    ok.

stop_bank() ->
    [
        begin
            clerk(N) ! {stop, self()},
            ?recv({{_, N}, _} = Count, Count, 20000)
        end
     || N <- [1, 2]
    ].

clerk(N) -> list_to_atom("clerk_" ++ integer_to_list(N)).

transfer(Nr, Done) ->
    receive
        {stop, From} -> From ! {{node(), Nr}, Done}
    after 2 ->
        [From, To] = [rand:uniform(10) || _ <- [from, to]],
        {atomic, ok} = mnesia:transaction(fun() ->
            add(From, -1),
            add(To, 1),
            mnesia:write({?COMMITS, {node(), Nr}, Done + 1})
        end),
        transfer(Nr, Done + 1)
    end.

add(Account, Amount) ->
    [{_, _, Balance}] = mnesia:read(?ACCOUNT, Account, write),
    ok = mnesia:write({?ACCOUNT, Account, Balance + Amount}).

is_bad({mnesia_system_event, {mnesia_overload, _}}) -> false;
is_bad({mnesia_system_event, _}) -> true;
is_bad(_) -> false.

%% A link goes on over other connections where nodes have certificates.
certificates(Config) ->
    Dir = filename:join(quic_dist_run:dir(), quic_dist_run:unique("certs")),
    File = fun(Name) -> filename:join(Dir, Name) end,
    quic_dist_fixtures:cert(["ca", "-out", Dir]),
    Start = fun(Port, Peers) ->
        Name = port_name(Port),
        quic_dist_fixtures:cert(["node", Name, "-ca", File("ca.pem"), "-out", Dir]),
        Files = [{certfile, ".pem"}, {keyfile, ".key"}],
        Own = [{Option, File(Name ++ Extension)} || {Option, Extension} <- Files],
        node_at(Config, Port, Peers, #{quic_dist => [{cacertfile, File("ca.pem")} | Own]})
    end,
    Port = free_port(),
    Relay = quic_dist_relay:start(Port),
    B = Start(Port, []),
    A = Start(free_port(), [{B, Relay}]),
    connects(A, B),
    watch(A),
    watch(B),
    Stop = talk(A, B),
    [
        begin
            ok = quic_dist_relay:forget(Relay),
            Conversations = fun() -> quic_dist_relay:conversations(Relay) >= N end,
            wait_until({conversations, N}, Conversations, ?RESUMED)
        end
     || N <- [2, 3]
    ],
    Stop(),
    no_nodedown().
