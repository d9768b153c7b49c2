%% @doc What distributed Erlang promises of calls, links, monitors, names and nodes, over QUIC and,
%% by the same cases, over TCP.
-module(quic_dist_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_group/2, end_per_group/2, end_per_testcase/2]).
-export([
    ping/1,
    rpc_and_erpc/1,
    spawns/1,
    links/1,
    monitors/1,
    exit_signals/1,
    group_leaders/1,
    aliases/1,
    registered_names/1,
    global_names/1,
    process_groups/1,
    cookies/1,
    allowed_nodes/1,
    hidden_nodes/1,
    transitive_connections/1,
    node_info/1,
    node_monitoring/1,
    trace_tokens/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_node, [call/2, connect/2, name/1, ping/2]).
-import(quic_dist_pair, [nobody/1, pair/1, with_nodes/3]).
-import(quic_dist_remote, [ask/2, remote/1]).
-import(quic_dist_wait, [flush/0, scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    Cases = [
        ping,
        rpc_and_erpc,
        spawns,
        links,
        monitors,
        exit_signals,
        group_leaders,
        aliases,
        registered_names,
        global_names,
        process_groups,
        cookies,
        allowed_nodes,
        hidden_nodes,
        transitive_connections,
        node_info,
        node_monitoring,
        trace_tokens
    ],
    quic_dist_pair:groups(Cases, #{}).

init_per_group(Group, Config) ->
    quic_dist_pair:init_group(Group, Config).

end_per_group(Group, Config) ->
    quic_dist_pair:end_group(Group, Config).

end_per_testcase(Case, Config) ->
    quic_dist_pair:end_case(Case, Config).

%% net_adm:ping answers pong both ways, and pang for a node that is not there, soon.
ping(Config) ->
    {A, B} = pair(Config),
    Nobody = nobody(Config),
    ?assertEqual(pong, ping(A, name(B))),
    ?assertEqual(pong, ping(B, name(A))),
    ?assertEqual(pong, ping(A, name(A))),
    Before = erlang:monotonic_time(millisecond),
    ?assertEqual(pang, ping(A, Nobody)),
    Took = erlang:monotonic_time(millisecond) - Before,
    ?assert(Took < scale(2000), {took, Took}),
    ?assertEqual([name(B)], call(A, fun() -> nodes() end)).

%% Results, errors, exits and throws of remote calls come back; a call to a node that is not there
%% fails as such.
rpc_and_erpc(Config) ->
    {A, B} = pair(Config),
    Nobody = nobody(Config),
    NodeA = name(A),
    NodeB = name(B),
    call(A, fun() ->
        ?assertEqual(NodeB, rpc:call(NodeB, erlang, node, [])),
        ?assertMatch({badrpc, {'EXIT', {badarith, _}}}, rpc:call(NodeB, erlang, 'div', [1, 0])),
        ?assertEqual({badrpc, nodedown}, rpc:call(Nobody, erlang, node, [])),
        ?assertEqual({badrpc, timeout}, rpc:call(NodeB, timer, sleep, [infinity], 50)),
        ?assertEqual(
            {[NodeA, NodeB], [Nobody]}, rpc:multicall([NodeA, NodeB, Nobody], erlang, node, [])
        ),
        ?assertEqual([3, 4], rpc:parallel_eval([{erlang, '+', [1, 2]}, {erlang, '*', [2, 2]}])),
        ?assertEqual(NodeB, erpc:call(NodeB, fun() -> node() end)),
        ?assertError({exception, reason, _}, erpc:call(NodeB, fun() -> error(reason) end)),
        ?assertThrow(ball, erpc:call(NodeB, fun() -> throw(ball) end)),
        ?assertExit({exception, leaving}, erpc:call(NodeB, fun() -> exit(leaving) end)),
        ?assertError({erpc, noconnection}, erpc:call(Nobody, fun() -> node() end)),
        ?assertError({erpc, timeout}, erpc:call(NodeB, timer, sleep, [infinity], 50)),
        ?assertEqual(
            [{ok, NodeA}, {ok, NodeB}, {error, {erpc, noconnection}}],
            erpc:multicall([NodeA, NodeB, Nobody], fun() -> node() end)
        ),
        Request = erpc:send_request(NodeB, erlang, '+', [1, 2]),
        ?assertEqual(3, erpc:receive_response(Request, scale(5000))),
        Self = self(),
        ok = erpc:cast(NodeB, fun() -> Self ! {cast_on, node()} end),
        ?recv({cast_on, NodeB})
    end).

%% Every spawn BIF starts a process on the other node. The node that spawned it gets its messages,
%% its exit reason, or the reason why it could not start.
spawns(Config) ->
    {A, B} = pair(Config),
    Nobody = nobody(Config),
    NodeB = name(B),
    call(A, fun() ->
        process_flag(trap_exit, true),
        Self = self(),
        Plain = spawn(NodeB, fun() -> Self ! {self(), node()} end),
        ?recv({Plain, NodeB}),
        ByName = spawn(NodeB, erlang, send, [Self, by_mfa]),
        ?assertEqual(NodeB, node(ByName)),
        ?recv(by_mfa),
        Linked = spawn_link(NodeB, fun() -> exit(linked) end),
        ?recv({'EXIT', Linked, linked}),
        {Monitored, M1} = spawn_monitor(NodeB, fun() -> exit(monitored) end),
        ?recv({'DOWN', M1, process, Monitored, monitored}),
        {Both, M2} = spawn_opt(NodeB, fun() -> exit(both) end, [
            link, monitor, {priority, high}, {min_heap_size, 1000}
        ]),
        ?recv({'EXIT', Both, both}),
        ?recv({'DOWN', M2, process, Both, both}),
        R1 = spawn_request(NodeB, fun() -> receive stop -> ok end end, [monitor, {reply_tag, up}]),
        Requested = ?recv({up, R1, ok, Pid}, Pid),
        Requested ! stop,
        ?recv({'DOWN', R1, process, Requested, normal}),
        R2 = spawn_request(NodeB, fun() -> ok end, [{nonsense, 1}]),
        ?recv({spawn_reply, R2, error, badopt}),
        R3 = spawn_request(Nobody, fun() -> ok end, []),
        ?recv({spawn_reply, R3, error, noconnection}),
        %% A burst: replies and results of many at once belong to each other.
        Many = [spawn_monitor(NodeB, fun() -> exit({nr, N}) end) || N <- lists:seq(1, 500)],
        [
            ?recv({'DOWN', M, process, P, {nr, N}}, ok)
         || {N, {P, M}} <- lists:enumerate(Many)
        ],
        ok
    end).

%% A link across nodes carries the exit reason both ways. An unlinked process gets no signal;
%% linking to a dead process gives noproc.
links(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        process_flag(trap_exit, true),
        Remote = remote(NodeB),
        link(Remote),
        ask(Remote, fun() -> ok end),
        exit(Remote, {because, [of_me]}),
        ?recv({'EXIT', Remote, {because, [of_me]}}),
        %% The other way: a local process ends and its remote partner is told.
        Partner = remote(NodeB),
        ask(Partner, fun() -> process_flag(trap_exit, true) end),
        Local = spawn(fun() ->
            link(Partner),
            exit(local_end)
        end),
        Reason = ask(Partner, fun() -> ?recv({'EXIT', Local, Why}, Why) end),
        ?assertEqual(local_end, Reason),
        %% Links twice, unlinks once: no link.
        link(Partner),
        link(Partner),
        unlink(Partner),
        {links, Links} = ask(Partner, fun() -> process_info(self(), links) end),
        ?assertNot(lists:member(self(), Links)),
        Monitor = monitor(process, Partner),
        exit(Partner, kill),
        ?recv({'DOWN', Monitor, process, Partner, killed}),
        link(Partner),
        ?recv({'EXIT', Partner, noproc}),
        ?assertEqual([], flush())
    end).

%% A monitor, by pid or by name, fires once with the exit reason, or with noproc if there is no
%% such process. It does not fire after demonitor.
monitors(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        ByPid = remote(NodeB),
        ask(ByPid, fun() -> register(monitored, self()) end),
        M1 = monitor(process, ByPid),
        M2 = monitor(process, {monitored, NodeB}),
        M3 = monitor(process, ByPid),
        M4 = monitor(process, ByPid, [{tag, {own, tag}}]),
        true = demonitor(M3),
        exit(ByPid, gone),
        ?recv({'DOWN', M1, process, ByPid, gone}),
        ?recv({'DOWN', M2, process, {monitored, NodeB}, gone}),
        ?recv({{own, tag}, M4, process, ByPid, gone}),
        M5 = monitor(process, ByPid),
        ?recv({'DOWN', M5, process, ByPid, noproc}),
        M6 = monitor(process, {monitored, NodeB}),
        ?recv({'DOWN', M6, process, {monitored, NodeB}, noproc}),
        %% A reason of a megabyte comes whole.
        Big = binary:copy(<<"reason">>, 200000),
        {Pid, M7} = spawn_monitor(NodeB, fun() -> exit({big, Big}) end),
        ?recv({'DOWN', M7, process, Pid, {big, Big}}),
        erpc:call(NodeB, fun() -> ok end),
        ?assertEqual([], flush())
    end).

%% exit/2 to a remote process arrives with its reason: the process ignores normal, traps other
%% reasons, and is killed by kill.
exit_signals(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        Remote = remote(NodeB),
        Monitor = monitor(process, Remote),
        exit(Remote, normal),
        ok = ask(Remote, fun() -> ok end),
        ask(Remote, fun() -> process_flag(trap_exit, true) end),
        exit(Remote, {some, reason}),
        ?assertEqual(
            {'EXIT', Self, {some, reason}}, ask(Remote, fun() -> ?recv({'EXIT', _, _} = E, E) end)
        ),
        exit(Remote, kill),
        ?recv({'DOWN', Monitor, process, Remote, killed})
    end).

%% A spawned process writes to the group leader of the node that spawned it, and group_leader/2
%% works on a remote process.
group_leaders(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        Old = group_leader(),
        true = group_leader(Self, Self),
        spawn(NodeB, fun() -> io:put_chars("from b") end),
        true = group_leader(Old, Self),
        Writer = io_request("from b"),
        ?assertEqual(NodeB, node(Writer)),
        Remote = remote(NodeB),
        ?assertEqual(Old, ask(Remote, fun() -> group_leader() end)),
        true = group_leader(Self, Remote),
        ?assertEqual(Self, ask(Remote, fun() -> group_leader() end)),
        Remote ! {eval, Self, make_ref(), fun() -> io:put_chars("again") end},
        ?assertEqual(Remote, io_request("again"))
    end).

io_request(Expected) ->
    receive
        {io_request, From, As, {put_chars, unicode, Text}} ->
            ?assertEqual(Expected, unicode:characters_to_list(Text)),
            From ! {io_reply, As, ok},
            From;
        {io_request, From, As, {put_chars, unicode, M, F, Args}} ->
            ?assertEqual(Expected, unicode:characters_to_list(apply(M, F, Args))),
            From ! {io_reply, As, ok},
            From
    after scale(10000) ->
        error({timeout, flush()})
    end.

%% Messages to an alias arrive while it is active and are dropped after; gen calls, which use
%% aliases, work and leave no late replies.
aliases(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Remote = remote(NodeB),
        Alias = alias(),
        ask(Remote, fun() -> Alias ! to_alias, ok end),
        ?recv(to_alias),
        true = unalias(Alias),
        ask(Remote, fun() -> Alias ! too_late, ok end),
        Once = alias([reply]),
        ask(Remote, fun() -> Once ! first, Once ! second, ok end),
        ?recv(first),
        Monitor = monitor(process, Remote, [{alias, reply_demonitor}]),
        ask(Remote, fun() -> Monitor ! reply, Monitor ! late, ok end),
        ?recv(reply),
        exit(Remote, kill),
        erpc:call(NodeB, fun() -> ok end),
        ?assertEqual([], flush()),
        ?assertExit({timeout, _}, gen_server:call({blocked_forever(NodeB), NodeB}, question, 50)),
        ?assertExit({noproc, _}, gen_server:call({no_such_server, NodeB}, question, 5000)),
        ?assertEqual([], flush())
    end).

%% A registered process that never answers.
blocked_forever(Node) ->
    Name = list_to_atom(quic_dist_run:unique("blocked")),
    Self = self(),
    spawn(Node, fun() ->
        register(Name, self()),
        Self ! {registered, Name},
        receive never -> ok end
    end),
    ?recv({registered, Name}),
    Name.

%% Messages to a registered name on the other node arrive. Messages to an unregistered name are
%% dropped.
registered_names(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        Remote = remote(NodeB),
        ask(Remote, fun() -> register(some_name, self()) end),
        {some_name, NodeB} ! {eval, Self, ref, fun() -> by_name end},
        ?recv({ref, by_name}),
        ok = erlang:send({some_name, NodeB}, {eval, Self, ref, fun() -> by_send end}, [noconnect]),
        ?recv({ref, by_send}),
        {nobody_has_this, NodeB} ! lost,
        ok = ask(Remote, fun() -> ok end),
        exit(Remote, kill),
        ?assertEqual(noconnect, erlang:send({x, 'nobody@127.0.0.1'}, x, [noconnect]))
    end).

%% A globally registered name is found and usable from the other node, unique, and free again when
%% its process ends; global:trans excludes across nodes.
global_names(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Name = {global_name, make_ref()},
    call(A, fun() ->
        ok = global:sync(),
        ok = erpc:call(NodeB, global, sync, []),
        Self = self(),
        yes = global:register_name(Name, Self),
        ?assertEqual(Self, erpc:call(NodeB, global, whereis_name, [Name])),
        ?assertEqual(no, erpc:call(NodeB, fun() -> global:register_name(Name, whereis(rex)) end)),
        spawn(NodeB, fun() -> global:send(Name, {through_global, node()}) end),
        ?recv({through_global, NodeB}),
        global:unregister_name(Name),
        ?assertEqual(undefined, erpc:call(NodeB, global, whereis_name, [Name])),
        Remote = remote(NodeB),
        ask(Remote, fun() -> yes = global:register_name(Name, self()) end),
        ?assertEqual(Remote, global:whereis_name(Name)),
        exit(Remote, kill),
        wait_until(unregistered, fun() ->
            global:whereis_name(Name) =:= undefined
        end),
        %% Counting without a lock would lose some.
        Counter = remote(NodeB),
        ask(Counter, fun() -> put(count, 0) end),
        Add = fun() ->
            [
                global:trans({Name, self()}, fun() ->
                    Count = ask(Counter, fun() -> get(count) end),
                    ask(Counter, fun() -> put(count, Count + 1) end)
                end)
             || _ <- lists:seq(1, 20)
            ]
        end,
        Adders = [spawn_monitor(node(), Add), spawn_monitor(NodeB, Add)],
        [?recv({'DOWN', M, process, P, normal}) || {P, M} <- Adders],
        ?assertEqual(40, ask(Counter, fun() -> get(count) end)),
        exit(Counter, kill)
    end).

%% Members that join or leave a pg group on one node are seen on the other.
process_groups(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        {ok, ScopeA} = pg:start(scope),
        unlink(ScopeA),
        ScopeB = erpc:call(NodeB, fun() ->
            {ok, Pid} = pg:start(scope),
            unlink(Pid),
            Pid
        end),
        Here = self(),
        There = remote(NodeB),
        ok = pg:join(scope, group, Here),
        ok = erpc:call(NodeB, pg, join, [scope, group, [There, There]]),
        Expected = lists:sort([Here, There, There]),
        Members = fun() -> lists:sort(pg:get_members(scope, group)) =:= Expected end,
        wait_until(here, Members),
        wait_until(there, fun() -> erpc:call(NodeB, Members) end),
        exit(There, kill),
        wait_until(left, fun() -> pg:get_members(scope, group) =:= [Here] end),
        ok = pg:leave(scope, group, Here),
        wait_until(all_left, fun() ->
            erpc:call(NodeB, pg, get_members, [scope, group]) =:= []
        end),
        exit(ScopeA, kill),
        exit(ScopeB, kill)
    end).

%% A node with another cookie cannot connect, in either direction. It can connect once it knows the
%% cookie for this node.
cookies(Config) ->
    with_nodes(Config, [#{cookie => right}, #{cookie => wrong}], fun([A, B]) ->
        NodeA = name(A),
        NodeB = name(B),
        ?assertEqual(pang, ping(A, NodeB)),
        ?assertEqual(pang, ping(B, NodeA)),
        ?assertEqual([], call(A, fun() -> nodes(connected) end)),
        true = call(B, fun() -> erlang:set_cookie(NodeA, right) end),
        ?assertEqual(pong, ping(B, NodeA)),
        ?assertEqual([NodeB], call(A, fun() -> nodes() end))
    end).

%% A node that net_kernel:allow/1 does not name is turned away, and one that it names is not.
allowed_nodes(Config) ->
    with_nodes(Config, [#{}, #{}, #{}], fun([A, B, C]) ->
        NodeA = name(A),
        ok = call(B, fun() -> net_kernel:allow([NodeA]) end),
        ?assertEqual(pong, ping(A, name(B))),
        ?assertEqual(pang, ping(C, name(B))),
        ?assertEqual([NodeA], call(B, fun() -> nodes(connected) end))
    end).

%% A hidden node is connected without being listed in nodes(), and carries everything else.
hidden_nodes(Config) ->
    with_nodes(Config, [#{}, #{args => ["-hidden"]}], fun([A, B]) ->
        NodeA = name(A),
        NodeB = name(B),
        call(A, fun() ->
            ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
            ?assertEqual(pong, net_adm:ping(NodeB)),
            Type = ?recv({nodeup, NodeB, Info}, proplists:get_value(node_type, Info)),
            ?assertEqual(hidden, Type),
            ?assertEqual([], nodes()),
            ?assertEqual([NodeB], nodes(hidden)),
            ?assertEqual([NodeB], nodes(connected)),
            ?assertEqual({[], [NodeA]}, erpc:call(NodeB, fun() -> {nodes(), nodes(hidden)} end)),
            ?assertEqual(NodeB, erpc:call(NodeB, erlang, node, []))
        end)
    end).

%% Nodes connect to the nodes that their peers know: a and c, both connected to b, find each other.
transitive_connections(Config) ->
    with_nodes(Config, [#{}, #{}, #{}], fun([A, B, C] = Nodes) ->
        connect(A, B),
        connect(C, B),
        [
            wait_until({knows_all, name(Node)}, fun() ->
                lists:sort([name(Node) | call(Node, fun() -> nodes() end)]) =:=
                    lists:sort([name(N) || N <- Nodes])
            end)
         || Node <- Nodes
        ]
    end).

%% net_kernel knows of a connection its state, type, address and protocol, and that packets
%% went both ways; the emulator knows its controller: a port, or on the data plane stdio a process.
node_info(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Protocol =
        case proplists:get_value(carrier, Config) of
            inet_tcp -> tcp;
            Carrier -> Carrier
        end,
    [Options | _] = proplists:get_value(nodes, Config),
    IsPort = maps:get(quic_dist, Options, []) =/= [{data_plane, stdio}],
    call(A, fun() ->
        Value = fun(Key) ->
            {ok, Info} = net_kernel:node_info(NodeB),
            proplists:get_value(Key, Info)
        end,
        ?assertEqual(up, Value(state)),
        ?assertEqual(normal, Value(type)),
        #net_address{address = Address, host = Host, protocol = Protocol} = Value(address),
        ?assertMatch({{127, 0, 0, 1}, UdpPort} when is_integer(UdpPort), Address),
        ?assertEqual("127.0.0.1", Host),
        ?assert(is_process_alive(Value(owner))),
        In = Value(in),
        Out = Value(out),
        [erpc:call(NodeB, erlang, node, []) || _ <- lists:seq(1, 10)],
        ?assert(Value(in) >= In + 10),
        ?assert(Value(out) >= Out + 10),
        {ok, Infos} = net_kernel:nodes_info(),
        ?assertEqual([NodeB], [Node || {Node, _} <- Infos]),
        [{NodeB, Controller}] = erlang:system_info(dist_ctrl),
        ?assertEqual(IsPort, is_port(Controller))
    end).

%% net_kernel:monitor_nodes and monitor_node tell of each node that comes and goes, with the
%% information that was asked for.
node_monitoring(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Options = #{connection_id => true, node_type => all, nodedown_reason => true},
        ok = net_kernel:monitor_nodes(true, Options),
        true = monitor_node(NodeB, true),
        true = net_kernel:disconnect(NodeB),
        Down = ?recv({nodedown, NodeB, #{} = Info}, Info),
        ?recv({nodedown, NodeB}),
        ?assertMatch(#{node_type := visible, nodedown_reason := disconnect}, Down),
        ?assertEqual(pong, net_adm:ping(NodeB)),
        Up = ?recv({nodeup, NodeB, #{} = Info}, Info),
        ?assertMatch(#{node_type := visible, connection_id := _}, Up),
        ?assert(maps:get(connection_id, Up) =/= maps:get(connection_id, Down)),
        ok = net_kernel:monitor_nodes(false, Options),
        ?assertEqual([], flush())
    end).

%% Sequential trace tokens travel with messages, and the other node's trace events refer to them.
trace_tokens(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Remote = remote(NodeB),
        seq_trace:set_token(label, 4711),
        Label = ask(Remote, fun() -> seq_trace:get_token(label) end),
        seq_trace:set_token([]),
        ?assertEqual({label, 4711}, Label),
        exit(Remote, kill)
    end).
