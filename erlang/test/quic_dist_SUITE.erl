%% @doc What distributed Erlang promises, over QUIC and, by the same cases, over TCP.
%%
%% One case list, run as a group for inet_tcp, one for each data plane of quic, and one for each way
%% in which webdist gets a connection: what fails over those and passes over inet_tcp is ours. The
%% nodes `a' and `b' of a group live on from case to case as long as cases pass; after each, their
%% logs are searched for complaints. Cases that end or stop nodes start their own.
-module(quic_dist_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
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
-export([
    every_size/1,
    every_term/1,
    order_of_1000_processes/1,
    order_to_one_receiver/1,
    order_of_names_pids_and_aliases/1,
    order_across_fragments/1,
    order_of_spawn_replies/1,
    order_of_first_messages/1,
    causal_order/1,
    big_messages_both_ways/1,
    mixed_traffic/1,
    reconnects/1,
    simultaneous_connects/1
]).
-export([
    disconnect_reasons/1,
    malformed_data/1,
    node_loss/1,
    busy_receiver/1,
    busy_receivers_sidecar/1,
    last_messages_before_stop/1,
    last_messages_before_halt/1,
    last_messages_before_kill/1,
    last_messages_to_a_stopped_node/1,
    last_exit_signals_before_halt/1,
    idle_connection/1,
    blocked_node/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-import(quic_dist_node, [call/2, call/3, cast/2, connect/2, scale/1, tell/2]).

%% A receive with a deadline, as an expression; new variables of the pattern are seen in Value only.
-define(recv(Pattern, Value, Time),
    (fun() ->
        receive
            Pattern -> Value
        after scale(Time) ->
            error({timeout, ?FUNCTION_NAME, ?LINE, ??Pattern, quic_dist_node:flush()})
        end
    end)()
).
-define(recv(Pattern, Value), ?recv(Pattern, Value, 10000)).
-define(recv(Pattern), ?recv(Pattern, ok)).

-define(MB, 1048576).

suite() ->
    [{timetrap, scale(90000)}].

all() ->
    [{group, Group} || {Group, _, _} <- groups(), Group =/= ticks].

groups() ->
    [
        {inet_tcp, [], cases() ++ port_cases() ++ [{group, ticks}]},
        {quic_socket, [], cases() ++ port_cases() ++ quic_cases() ++ [{group, ticks}]},
        {quic_stdio, [], cases() ++ quic_cases() ++ [{group, ticks}]},
        {webdist_descriptor, [], cases() ++ port_cases() ++ [{group, ticks}]},
        {webdist_copy, [], cases() ++ port_cases() ++ [{group, ticks}]},
        %% These wait; they may do it together.
        {ticks, [parallel], [idle_connection, blocked_node]}
    ].

cases() ->
    [
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
        trace_tokens,
        every_size,
        every_term,
        order_of_1000_processes,
        order_to_one_receiver,
        order_of_names_pids_and_aliases,
        order_across_fragments,
        order_of_spawn_replies,
        order_of_first_messages,
        causal_order,
        big_messages_both_ways,
        mixed_traffic,
        reconnects,
        simultaneous_connects,
        disconnect_reasons,
        node_loss,
        busy_receiver,
        last_messages_before_stop,
        last_messages_before_halt,
        last_messages_before_kill,
        last_exit_signals_before_halt
    ].

%% What needs the port of a connection.
port_cases() ->
    [malformed_data].

%% What needs a sidecar; and what TCP does not promise: there the end of a connection may overtake
%% data that a receiver has not read.
quic_cases() ->
    [busy_receivers_sidecar, last_messages_to_a_stopped_node].

init_per_suite(Config) ->
    Config.

end_per_suite(_Config) ->
    quic_dist_node:end_run().

init_per_group(ticks, Config) ->
    Config;
init_per_group(inet_tcp, Config) ->
    [{carrier, inet_tcp}, {pair, {?MODULE, inet_tcp}} | Config];
init_per_group(Group, Config) when Group =:= webdist_descriptor; Group =:= webdist_copy ->
    Options = [{port, quic_dist_node:free_port()}, {hand_over, Group =:= webdist_descriptor}],
    [{carrier, webdist}, {webdist, Options}, {pair, {?MODULE, Group}} | Config];
init_per_group(Group, Config) ->
    "quic_" ++ Plane = atom_to_list(Group),
    [{carrier, quic}, {data_plane, list_to_atom(Plane)}, {pair, {?MODULE, Group}} | Config].

end_per_group(ticks, _Config) ->
    ok;
end_per_group(_Group, Config) ->
    forget_pair(Config),
    %% No sidecar outlives its node.
    [] = quic_dist_node:stop_all(),
    ok.

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    Status = proplists:get_value(tc_status, Config),
    case {persistent_term:get(proplists:get_value(pair, Config), undefined), Status} of
        {undefined, _} ->
            ok;
        {Pair, ok} ->
            case complaints(Pair) of
                [] ->
                    ok;
                Complaints ->
                    forget_pair(Config),
                    {fail, {logged, Complaints}}
            end;
        {{A, B}, _} ->
            ct:log("a:~n~ts~nb:~n~ts", [quic_dist_node:log(Node) || Node <- [A, B]]),
            forget_pair(Config)
    end.

%% Nothing that our cases do on `a' and `b' deserves a warning but the failed attempts to connect
%% that they make on purpose.
complaints({A, B}) ->
    [
        Line
     || Node <- [A, B],
        Line <- quic_dist_node:log_lines(Node, "^(emergency|alert|critical|error|warning) "),
        re:run(Line, "cannot connect to (nobody|[0-9]+)@|'global' at node") =:= nomatch
    ].

forget_pair(Config) ->
    Key = proplists:get_value(pair, Config),
    case persistent_term:get(Key, undefined) of
        {A, B} ->
            persistent_term:erase(Key),
            quic_dist_node:stop(A),
            quic_dist_node:stop(B);
        undefined ->
            ok
    end.

%% The two nodes of the group, connected.
pair(Config) ->
    Key = proplists:get_value(pair, Config),
    {A, B} =
        case persistent_term:get(Key, undefined) of
            undefined ->
                [NewA, NewB] = start_nodes(Config, [#{}, #{}]),
                persistent_term:put(Key, {NewA, NewB}),
                {NewA, NewB};
            Pair ->
                Pair
        end,
    connect(A, B),
    {A, B}.

start_nodes(Config, Options) ->
    Group =
        case proplists:get_value(carrier, Config) of
            inet_tcp ->
                #{carrier => inet_tcp};
            webdist ->
                #{carrier => webdist, webdist => proplists:get_value(webdist, Config)};
            quic ->
                DataPlane = proplists:get_value(data_plane, Config),
                #{carrier => quic, quic_dist => [{data_plane, DataPlane}]}
        end,
    [quic_dist_node:start(maps:merge(Group, Option)) || Option <- Options].

%% Nodes of a case's own, ended with it.
with_nodes(Config, Options, Fun) ->
    Nodes = start_nodes(Config, Options),
    try
        Fun(Nodes)
    after
        lists:foreach(fun quic_dist_node:stop/1, Nodes)
    end.

name(#{node := Node}) -> Node.

%% Talking

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

ping(Node, To) ->
    quic_dist_node:call(Node, net_adm, ping, [To]).

nobody(Config) ->
    case proplists:get_value(carrier, Config) of
        inet_tcp -> 'nobody@127.0.0.1';
        _ -> list_to_atom(integer_to_list(quic_dist_node:free_port()) ++ "@127.0.0.1")
    end.

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

%% Every spawn BIF starts a process on the other node; what it sends, how it ends and why it
%% could not start comes back.
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

%% Links across nodes carry exit reasons both ways; unlinked processes hear nothing; linking to a
%% dead process gives noproc.
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
        ?assertEqual([], quic_dist_node:flush())
    end).

%% Monitors by pid and by name fire once with the reason, with noproc for what is not there, and not
%% after demonitor.
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
        ?assertEqual([], quic_dist_node:flush())
    end).

%% exit/2 to a remote process arrives with its reason: normal is ignored, kill kills, others
%% are trapped.
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
        error({timeout, quic_dist_node:flush()})
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
        ?assertEqual([], quic_dist_node:flush()),
        ?assertExit({timeout, _}, gen_server:call({blocked_forever(NodeB), NodeB}, question, 50)),
        ?assertExit({noproc, _}, gen_server:call({no_such_server, NodeB}, question, 5000)),
        ?assertEqual([], quic_dist_node:flush())
    end).

%% A registered process that never answers.
blocked_forever(Node) ->
    Name = list_to_atom(quic_dist_node:unique("blocked")),
    Self = self(),
    spawn(Node, fun() ->
        register(Name, self()),
        Self ! {registered, Name},
        receive never -> ok end
    end),
    ?recv({registered, Name}),
    Name.

%% Messages to a name on the other node arrive; those to a name that nobody has are dropped and cost
%% nothing.
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
        quic_dist_node:wait_until(unregistered, fun() ->
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
        quic_dist_node:wait_until(here, Members),
        quic_dist_node:wait_until(there, fun() -> erpc:call(NodeB, Members) end),
        exit(There, kill),
        quic_dist_node:wait_until(left, fun() -> pg:get_members(scope, group) =:= [Here] end),
        ok = pg:leave(scope, group, Here),
        quic_dist_node:wait_until(all_left, fun() ->
            erpc:call(NodeB, pg, get_members, [scope, group]) =:= []
        end),
        exit(ScopeA, kill),
        exit(ScopeB, kill)
    end).

%% A node with another cookie cannot connect, in either direction; one that knows the cookie for
%% this node can.
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

%% Nodes connect to those that their peers know: a and c, both connected to b, find each other.
transitive_connections(Config) ->
    with_nodes(Config, [#{}, #{}, #{}], fun([A, B, C] = Nodes) ->
        connect(A, B),
        connect(C, B),
        [
            quic_dist_node:wait_until({knows_all, name(Node)}, fun() ->
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
    IsPort = proplists:get_value(data_plane, Config) =/= stdio,
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
        ?assertEqual([], quic_dist_node:flush())
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

%% Data

%% Binaries of all sizes from 0 bytes to 100 MB, with those around the limits of fragments
%% (64 KB) and of our frames (256 KB), come back as they went.
every_size(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Small = [0, 1, 2, 63, 64, 65, 255, 256, 257, 1000, 1399, 1400, 4095, 4096, 16384],
    Limits = [65536, 2 * 65536, 262144],
    Around = [Limit + D || Limit <- Limits, D <- [-200, -66, -18, -1, 0, 1, 18]],
    Large = [?MB, 3 * ?MB + 1, 10 * ?MB],
    call(
        A,
        fun() ->
            Echo = spawn_link(NodeB, fun echo/0),
            [round_trip(Echo, crypto:strong_rand_bytes(Size)) || Size <- Small ++ Around ++ Large],
            %% Pseudo-random is enough, and takes less time.
            Seed = crypto:strong_rand_bytes(?MB),
            Huge = iolist_to_binary([[<<N:64>>, Seed] || N <- lists:seq(1, 100)]),
            ?assert(byte_size(Huge) >= 100000000),
            round_trip(Echo, Huge),
            unlink(Echo),
            exit(Echo, kill)
        end,
        80000
    ).

echo() ->
    receive
        {From, Ref, Term} ->
            From ! {Ref, erlang:md5(term_to_binary(Term)), Term},
            erlang:garbage_collect(),
            echo()
    end.

round_trip(Echo, Term) ->
    Ref = make_ref(),
    Md5 = erlang:md5(term_to_binary(Term)),
    Echo ! {self(), Ref, Term},
    {There, Back} = ?recv({Ref, Hash, Back}, {Hash, Back}, 60000),
    ?assertEqual(Md5, There),
    ?assert(Term =:= Back),
    erlang:garbage_collect().

%% Terms of every type come back equal.
every_term(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Echo = spawn_link(NodeB, fun echo/0),
        X = 7,
        Numbers = [0, -1, 1 bsl 28, -(1 bsl 64), 1 bsl 4096, 1.5, -0.0],
        Lists = [[], [a | b], lists:seq(1, 70000), "text", lists:duplicate(10000, {a, b})],
        Tuples = [{}, list_to_tuple(lists:seq(1, 300)), nested(5000)],
        Maps = [#{}, maps:from_list([{N, integer_to_list(N)} || N <- lists:seq(1, 1000)])],
        Bits = [<<>>, <<1:3>>, <<0:77>>],
        Handles = [self(), Echo, make_ref(), alias(), hd(erlang:ports()), fun lists:map/2],
        Atom = fun(N) -> list_to_atom("atom_" ++ integer_to_list(N)) end,
        Atoms = [a, '', 'ä€' | lists:map(Atom, lists:seq(1, 3000))],
        [
            round_trip(Echo, Term)
         || Term <- lists:append([Numbers, Lists, Tuples, Maps, Bits, Handles, Atoms])
        ],
        Fun = fun(Y) -> X + Y end,
        ?assertEqual(12, (ask_echo(Echo, Fun))(5)),
        unlink(Echo),
        exit(Echo, kill)
    end).

nested(0) -> [];
nested(N) -> {N, [nested(N - 1)]}.

ask_echo(Echo, Term) ->
    Ref = make_ref(),
    Echo ! {self(), Ref, Term},
    ?recv({Ref, _, Back}, Back).

%% A thousand processes send at once, each to a partner of its own, messages small and large: each
%% partner gets all of them, whole and in order.
order_of_1000_processes(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(
        A,
        fun() ->
            Self = self(),
            Senders = [
                spawn_link(fun() ->
                    Receiver = spawn_link(NodeB, fun() -> receiver(40) end),
                    receive go -> ok end,
                    [Receiver ! message(N, size(N, Nr)) || N <- lists:seq(1, 40)],
                    Receiver ! {report, self()},
                    ?recv({all, 40}, ok, 60000),
                    Self ! {done, self()}
                end)
             || Nr <- lists:seq(1, 1000)
            ],
            [Sender ! go || Sender <- Senders],
            [?recv({done, Sender}, ok, 60000) || Sender <- Senders],
            ok
        end,
        80000
    ).

size(20, Nr) when Nr rem 20 =:= 0 -> 100000 + Nr;
size(N, Nr) -> (N * 7919 + Nr * 104729) rem 1500.

message(N, Size) ->
    Content = rand:bytes(Size),
    {N, erlang:crc32(Content), Content}.

%% Gets messages 1 to Count in order and unharmed, then says so.
receiver(Count) -> receiver(1, Count).

receiver(N, Count) when N =< Count ->
    receive
        {N, Crc, Content} ->
            Crc = erlang:crc32(Content),
            receiver(N + 1, Count);
        Other ->
            exit({out_of_order, N, element(1, Other)})
    end;
receiver(_, Count) ->
    receive
        {report, To} ->
            To ! {all, Count},
            unlink(To)
    end.

%% A hundred processes send to the same receiver: it gets the messages of each in order, and all.
order_to_one_receiver(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        {Receiver, Monitor} = spawn_monitor(NodeB, fun() ->
            Last = from_many(#{}, 100 * 200),
            ?assertEqual(lists:duplicate(100, 200), maps:values(Last)),
            exit(all_in_order)
        end),
        [
            spawn_link(fun() ->
                [Receiver ! {Nr, N, rand:bytes(N)} || N <- lists:seq(1, 200)],
                Self ! {sent, Nr},
                unlink(Self)
            end)
         || Nr <- lists:seq(1, 100)
        ],
        [?recv({sent, Nr}, ok, 30000) || Nr <- lists:seq(1, 100)],
        ?recv({'DOWN', Monitor, process, Receiver, all_in_order}, ok, 30000)
    end).

from_many(Last, 0) ->
    Last;
from_many(Last, Left) ->
    receive
        {Nr, N, Content} when byte_size(Content) =:= N ->
            ?assertEqual({Nr, maps:get(Nr, Last, 0) + 1}, {Nr, N}),
            from_many(Last#{Nr => N}, Left - 1)
    end.

%% One process reaches another by pid, by name, by alias, by monitor and by exit signal: all of it
%% arrives in the order in which it was sent.
order_of_names_pids_and_aliases(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        {Receiver, _} = spawn_monitor(NodeB, fun() ->
            process_flag(trap_exit, true),
            register(order_of_names, self()),
            Self ! {alias, alias()},
            mixed(1, 600)
        end),
        Alias = ?recv({alias, Ref}, Ref),
        Send = fun
            (N) when N rem 6 =:= 0 -> exit(Receiver, {nr, N});
            (N) when N rem 6 =:= 1 -> Receiver ! {nr, N};
            (N) when N rem 6 =:= 2 -> {order_of_names, NodeB} ! {nr, N};
            (N) when N rem 6 =:= 3 -> Alias ! {nr, N};
            (N) when N rem 6 =:= 4 -> Receiver ! {nr, N, rand:bytes(70000)};
            (N) when N rem 6 =:= 5 -> {order_of_names, NodeB} ! {nr, N, rand:bytes(300000)}
        end,
        lists:foreach(Send, lists:seq(1, 600)),
        ?recv({'DOWN', _, process, Receiver, all_in_order}, ok, 30000)
    end).

mixed(N, Last) when N > Last -> exit(all_in_order);
mixed(N, Last) ->
    receive
        {nr, N} -> mixed(N + 1, Last);
        {nr, N, _} -> mixed(N + 1, Last);
        {'EXIT', _, {nr, N}} -> mixed(N + 1, Last);
        Other -> exit({expected, N, got, element(2, Other)})
    end.

%% Small messages sent behind large, fragmented ones do not overtake them, to one receiver and to
%% several; those of other senders meanwhile arrive too.
order_across_fragments(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Sizes = [10, 200000, 5, 1000000, 0, 70000, 3000000, 1, 65536, 131072, 7],
        Senders = [
            spawn_monitor(fun() ->
                Receivers = [spawn_link(NodeB, fun() -> receiver(11 * 3) end) || _ <- [1, 2, 3]],
                [
                    begin
                        Message = message(N, Size),
                        [Receiver ! Message || Receiver <- Receivers]
                    end
                 || {N, Size} <- lists:enumerate(Sizes ++ Sizes ++ Sizes)
                ],
                [Receiver ! {report, self()} || Receiver <- Receivers],
                [?recv({all, 33}, ok, 60000) || _ <- Receivers]
            end)
         || _ <- [1, 2, 3]
        ],
        [?recv({'DOWN', M, process, P, normal}, ok, 60000) || {P, M} <- Senders]
    end).

%% The answer to a spawn comes before anything that the new process sends, its end included.
order_of_spawn_replies(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        process_flag(trap_exit, true),
        Self = self(),
        [
            begin
                Ref = spawn_request(NodeB, fun() -> Self ! {hello, N} end, [monitor, link]),
                Pid = ?recv({_, _, _, _} = First, begin
                    {spawn_reply, Ref, ok, New} = First,
                    New
                end),
                ?recv({_, _} = Second, {hello, N} = Second),
                ?recv({'DOWN', Ref, process, Pid, normal}),
                ?recv({'EXIT', Pid, normal})
            end
         || N <- lists:seq(1, 300)
        ],
        ok
    end).

%% The first messages after a connection was lost set it up, and arrive: all, in order, and
%% also the big ones among them.
order_of_first_messages(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        [
            begin
                Receiver = spawn(NodeB, fun() -> receiver(30) end),
                disconnect(NodeB),
                [Receiver ! message(N, first_size(N)) || N <- lists:seq(1, 30)],
                Receiver ! {report, self()},
                ?recv({all, 30})
            end
         || _ <- lists:seq(1, 20)
        ],
        ok
    end).

first_size(15) -> 500000;
first_size(N) -> 10 * N.

%% The order across three processes that one TCP connection happens to give, small messages keep:
%% what a process sends before it tells another arrives before what that one sends.
causal_order(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        Receiver = spawn_link(NodeB, fun() -> in_sequence(1, 5000, Self) end),
        Second = spawn_link(fun() -> relay(Receiver) end),
        [
            begin
                Receiver ! {nr, N},
                Second ! {nr, N + 1, Self},
                receive {told, Second} -> ok end
            end
         || N <- lists:seq(1, 5000, 2)
        ],
        ?recv({in_sequence, Receiver}),
        unlink(Second),
        exit(Second, kill)
    end).

relay(Receiver) ->
    receive
        {nr, N, From} ->
            Receiver ! {nr, N},
            From ! {told, self()},
            relay(Receiver)
    end.

in_sequence(N, Last, To) when N > Last ->
    To ! {in_sequence, self()},
    unlink(To);
in_sequence(N, Last, To) ->
    receive
        {nr, N} -> in_sequence(N + 1, Last, To);
        {nr, Other} -> exit({expected, N, got, Other})
    end.

%% Large messages in both directions at once arrive unharmed, and neither direction waits for
%% the other for ever.
big_messages_both_ways(Config) ->
    {A, B} = pair(Config),
    NodeA = name(A),
    NodeB = name(B),
    Run = fun(To) ->
        fun() ->
            Pairs = [
                spawn_monitor(fun() ->
                    Receiver = spawn_link(To, fun() -> receiver(6) end),
                    [Receiver ! message(N, 5 * ?MB + N) || N <- lists:seq(1, 6)],
                    Receiver ! {report, self()},
                    ?recv({all, 6}, ok, 60000)
                end)
             || _ <- [1, 2]
            ],
            [?recv({'DOWN', M, process, P, normal}, ok, 60000) || {P, M} <- Pairs],
            done
        end
    end,
    Self = self(),
    cast(A, fun() -> tell(Self, {a, (Run(NodeB))()}) end),
    cast(B, fun() -> tell(Self, {b, (Run(NodeA))()}) end),
    ?recv({a, done}, ok, 70000),
    ?recv({b, done}, ok, 70000).

%% Calls, spawns, monitors, links, bulk and many small messages all work at the same time, for three
%% seconds.
mixed_traffic(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Counts = call(A, fun() ->
        Until = erlang:monotonic_time(millisecond) + 3000,
        Work = [
            fun() -> NodeB = erpc:call(NodeB, erlang, node, []) end,
            fun() ->
                {P, M} = spawn_monitor(NodeB, fun() -> exit(bye) end),
                ?recv({'DOWN', M, process, P, bye}, ok, 30000)
            end,
            fun() ->
                process_flag(trap_exit, true),
                P = spawn_link(NodeB, fun() -> receive die -> exit(died) end end),
                P ! die,
                ?recv({'EXIT', P, died}, ok, 30000)
            end,
            fun() ->
                Receiver = spawn_link(NodeB, fun() -> receiver(100) end),
                [Receiver ! message(N, 100) || N <- lists:seq(1, 100)],
                Receiver ! {report, self()},
                ?recv({all, 100}, ok, 30000)
            end,
            fun() ->
                Receiver = spawn_link(NodeB, fun() -> receiver(2) end),
                [Receiver ! message(N, 2 * ?MB) || N <- [1, 2]],
                Receiver ! {report, self()},
                ?recv({all, 2}, ok, 30000)
            end,
            fun() -> pong = net_adm:ping(NodeB) end,
            fun() ->
                Bin = rand:bytes(100000),
                {ok, Bin} = {ok, erpc:call(NodeB, erlang, iolist_to_binary, [[Bin]])}
            end
        ],
        Workers = [
            spawn_monitor(fun() -> exit({rounds, Nr, repeat(Job, Until, 0)}) end)
         || {Nr, Job} <- lists:enumerate(Work), _ <- [1, 2, 3]
        ],
        [?recv({'DOWN', M, process, P, {rounds, Nr, N}}, {Nr, N}, 60000) || {P, M} <- Workers]
    end),
    ct:log("rounds of each kind of work: ~p", [Counts]),
    [?assert(N > 0, {kind_of_work, Nr}) || {Nr, N} <- Counts],
    ok.

repeat(Job, Until, N) ->
    case erlang:monotonic_time(millisecond) < Until of
        true ->
            _ = Job(),
            repeat(Job, Until, N + 1);
        false ->
            N
    end.

%% Connecting

%% Two hundred times a connection is ended and set up again at once, by either side; each works, and
%% none leaves a process, port or channel behind.
reconnects(Config) ->
    {A, B} = pair(Config),
    NodeA = name(A),
    NodeB = name(B),
    %% What each starts for its first outgoing connection, such as the resolver, is there.
    call(B, fun() -> disconnect(NodeA), pong = net_adm:ping(NodeA) end),
    Before = [left_over(Node) || Node <- [A, B]],
    Rounds = fun(Other) ->
        fun() ->
            Echo = spawn(Other, fun echo/0),
            [
                begin
                    disconnect(Other),
                    ?assertEqual({round, N, pong}, {round, N, net_adm:ping(Other)}),
                    N = ask_echo(Echo, N)
                end
             || N <- lists:seq(1, 100)
            ],
            exit(Echo, kill)
        end
    end,
    call(A, Rounds(NodeB)),
    call(B, Rounds(NodeA)),
    quic_dist_node:wait_until(nothing_left_over, fun() ->
        After = [left_over(Node) || Node <- [A, B]],
        lists:all(fun no_more/1, lists:zip(Before, After)) orelse {before, Before, now, After}
    end).

%% Something that was just ending may have been counted before.
no_more({Before, After}) ->
    lists:all(fun({X, Y}) -> Y =< X end, lists:zip(tuple_to_list(Before), tuple_to_list(After))).

%% Numbers of processes, ports, connections and, if there is a sidecar, of its channels.
left_over(Node) ->
    Channels =
        case Node of
            #{carrier := quic} -> maps:get(channels, quic_dist_node:info(Node));
            #{} -> 0
        end,
    call(Node, fun() ->
        {length(processes()), length(erlang:ports()), length(nodes(connected)), Channels}
    end).

disconnect(Node) ->
    true = monitor_node(Node, true),
    true = erlang:disconnect_node(Node),
    ?recv({nodedown, Node}).

%% Two hundred times both nodes connect to each other in the same moment: both attempts end within a
%% bound, the nodes are connected then or by the next message, and no attempt fails but rarely.
%% (OTP's own way out of the tie fails an attempt now and then, over inet_tcp once in about 1500.)
simultaneous_connects(Config) ->
    {A, B} = pair(Config),
    Module =
        case proplists:get_value(carrier, Config) of
            quic -> quic_dist;
            Carrier -> list_to_atom(atom_to_list(Carrier) ++ "_dist")
        end,
    Setup = {Module, setup, 5},
    [call(Node, fun() -> erlang:trace_pattern(Setup, true, [call_count]) end) || Node <- [A, B]],
    Results = lists:append([simultaneous_connect(A, B, Round) || Round <- lists:seq(1, 200)]),
    Setups = [
        call(Node, fun() ->
            {call_count, Count} = erlang:trace_info(Setup, call_count),
            erlang:trace_pattern(Setup, false, [call_count]),
            Count
        end)
     || Node <- [A, B]
    ],
    %% Each set-up beyond one for each round was simultaneous with another.
    Simultaneous = lists:sum(Setups) - 200,
    Failed = length([false || false <- Results]),
    ct:log("simultaneous attempts: ~p of 200, failed: ~p of 400", [Simultaneous, Failed]),
    ?assert(Simultaneous >= 50, {simultaneous, Simultaneous}),
    ?assert(Failed =< 5, {failed, Failed}).

simultaneous_connect(A, B, Round) ->
    Self = self(),
    NodeA = name(A),
    NodeB = name(B),
    quic_dist_node:disconnect(A, B),
    At = os:system_time(microsecond) + 5000,
    Connect = fun(Other) ->
        fun() ->
            spin_until(At),
            tell(Self, {connected, Round, Other, net_kernel:connect_node(Other)})
        end
    end,
    cast(A, Connect(NodeB)),
    cast(B, Connect(NodeA)),
    Results = [?recv({connected, Round, Node, Result}, Result) || Node <- [NodeA, NodeB]],
    call(A, fun() ->
        ?assertEqual(NodeA, erpc:call(NodeB, erpc, call, [NodeA, erlang, node, []], scale(5000)))
    end),
    Results.

spin_until(At) ->
    case os:system_time(microsecond) < At of
        true -> spin_until(At);
        false -> ok
    end.

%% Ending

%% Who disconnects sees nodedown with reason disconnect, the other side connection_closed; so does
%% who is left by a node that halts or is killed.
disconnect_reasons(Config) ->
    with_nodes(Config, [#{}, #{}, #{}], fun([A, B, C]) ->
        NodeA = name(A),
        NodeB = name(B),
        NodeC = name(C),
        [watch_nodes(Node) || Node <- [A, B]],
        connect(A, B),
        call(A, fun() -> true = net_kernel:disconnect(NodeB) end),
        ?assertEqual(disconnect, down_reason(A, NodeB)),
        ?assertEqual(connection_closed, down_reason(B, NodeA)),
        connect(A, B),
        cast(B, fun() -> erlang:halt(0) end),
        ?assertEqual(connection_closed, down_reason(A, NodeB)),
        connect(A, C),
        quic_dist_node:signal(maps:get(os_pid, C), kill),
        ?assertEqual(connection_closed, down_reason(A, NodeC))
    end).

%% Has the node report each nodedown to the calling process.
watch_nodes(Node) ->
    Self = self(),
    Ref = make_ref(),
    call(Node, fun() ->
        spawn(fun() ->
            ok = net_kernel:monitor_nodes(true, [nodedown_reason, {node_type, all}]),
            tell(Self, {Ref, watching}),
            watch(Self, node())
        end)
    end),
    ?recv({Ref, watching}).

watch(To, Me) ->
    receive
        {nodedown, Node, Info} ->
            tell(To, {down, Me, Node, proplists:get_value(nodedown_reason, Info)}),
            watch(To, Me);
        {nodeup, _, _} ->
            watch(To, Me)
    end.

down_reason(#{node := At}, Node) ->
    down_reason(At, Node);
down_reason(At, Node) ->
    ?recv({down, At, Node, Reason}, Reason).

%% An unknown control message costs the connection: the node that reads it logs that and has the
%% reason killed, the other learns of the end. They can connect again.
malformed_data(Config) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        NodeA = name(A),
        NodeB = name(B),
        [watch_nodes(Node) || Node <- [A, B]],
        connect(A, B),
        call(B, fun() ->
            {ok, Info} = net_kernel:node_info(NodeA),
            {links, Links} = process_info(proplists:get_value(owner, Info), links),
            [Port] = [Link || Link <- Links, is_port(Link)],
            %% A header without atom references, and {99}.
            ok = gen_tcp:send(Port, <<131, 68, 0, 104, 1, 97, 99>>)
        end),
        ?assertEqual(killed, down_reason(A, NodeB)),
        ?assertEqual(connection_closed, down_reason(B, NodeA)),
        _ = quic_dist_node:wait_log(A, "^error Invalid distribution message: [{]99[}]", 3000),
        connect(A, B)
    end).

%% When a node dies, every link to it breaks and every monitor fires with noconnection, calls end,
%% and its global names are free.
node_loss(Config) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        NodeB = name(B),
        Self = self(),
        connect(A, B),
        cast(A, fun() ->
            process_flag(trap_exit, true),
            Linked = [spawn_link(NodeB, timer, sleep, [infinity]) || _ <- lists:seq(1, 100)],
            Monitored = [
                spawn_monitor(NodeB, timer, sleep, [infinity])
             || _ <- lists:seq(1, 100)
            ],
            ByName = monitor(process, {net_kernel, NodeB}),
            yes = global:register_name(lost, hd(Linked)),
            Call = erpc:send_request(NodeB, timer, sleep, [infinity]),
            tell(Self, ready),
            [?recv({'EXIT', Pid, noconnection}) || Pid <- Linked],
            [?recv({'DOWN', M, process, P, noconnection}) || {P, M} <- Monitored],
            ?recv({'DOWN', ByName, process, {net_kernel, NodeB}, noconnection}),
            ?assertError({erpc, noconnection}, erpc:receive_response(Call, scale(5000))),
            quic_dist_node:wait_until(name_free, fun() ->
                global:whereis_name(lost) =:= undefined
            end),
            ?assertEqual([], nodes(connected)),
            tell(Self, all_told)
        end),
        ?recv(ready),
        quic_dist_node:signal(maps:get(os_pid, B), kill),
        ?recv(all_told)
    end).

%% A sender whose receiver has a stopped BEAM is told so by busy_dist_port and, after a bounded
%% amount of data and half a second at most, suspended for good; when the BEAM goes on everything
%% arrives, in order.
busy_receiver(Config) ->
    busy_receiver(Config, fun(#{os_pid := Beam}) -> Beam end).

%% So it is if the peer's sidecar is stopped.
busy_receivers_sidecar(Config) ->
    busy_receiver(Config, fun quic_dist_node:sidecar/1).

busy_receiver(Config, Process) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        NodeB = name(B),
        Self = self(),
        connect(A, B),
        cast(A, fun() ->
            undefined = erlang:system_monitor(self(), [busy_dist_port]),
            Receiver = spawn(NodeB, fun() -> until_last(1) end),
            Watcher = self(),
            Content = rand:bytes(65536),
            Sender = spawn(fun() ->
                receive go -> put(began, erlang:monotonic_time(millisecond)) end,
                Count = until_stopped(Receiver, Content, 1),
                Receiver ! {last, Watcher},
                Watcher ! {sent, Count}
            end),
            tell(Self, {sender, Sender}),
            ?recv({monitor, Sender, busy_dist_port, _}, tell(Self, busy), 20000),
            ?recv({sent, Count}, tell(Self, {sent, Count}), 60000),
            ?recv({got, Got}, tell(Self, {got, Got}), 60000)
        end),
        Sender = ?recv({sender, Pid}, Pid),
        Stopped = Process(B),
        quic_dist_node:signal(Stopped, stop),
        call(A, fun() -> Sender ! go end),
        ?recv(busy),
        %% Suspended, and no further for half a second.
        {Suspended, Took} = quic_dist_node:wait_until(suspended, fun() ->
            {Status, Sent, Took} = progress(A, Sender),
            receive after 500 -> ok end,
            case progress(A, Sender) of
                {suspended, Sent, Took} when Status =:= suspended -> {ok, {Sent, Took}};
                Other -> Other
            end
        end),
        ct:log("suspended after ~p messages of 64 KB, ~p ms", [Suspended, Took]),
        ?assert(Suspended < 500, {messages_of_64_kb, Suspended}),
        ?assert(Took =< scale(500), {milliseconds, Took}),
        quic_dist_node:signal(Stopped, cont),
        call(A, fun() -> Sender ! stop end),
        All = ?recv({sent, N}, N, 30000),
        ?assert(All >= Suspended),
        ?assertEqual(All, ?recv({got, N}, N, 30000))
    end).

%% How many messages the sender has begun to send, and for how many milliseconds it could.
progress(Node, Sender) ->
    call(Node, fun() ->
        [{status, Status}, {dictionary, Dictionary}] =
            process_info(Sender, [status, dictionary]),
        {Sent, At} = proplists:get_value(sent, Dictionary),
        {Status, Sent, At - proplists:get_value(began, Dictionary)}
    end).

until_stopped(Receiver, Content, N) ->
    put(sent, {N - 1, erlang:monotonic_time(millisecond)}),
    receive
        stop -> N - 1
    after 0 ->
        Receiver ! {N, Content},
        until_stopped(Receiver, Content, N + 1)
    end.

until_last(N) ->
    receive
        {N, _} -> until_last(N + 1);
        {last, From} -> From ! {got, N - 1}
    end.

%% What a process sends before it stops its node with init:stop/0 arrives before the node is down,
%% whether many messages or a big one.
last_messages_before_stop(Config) ->
    [
        last_words(Config, Count, Size, fun(_, _) -> init:stop() end)
     || {Count, Size} <- [{1000, 1024}, {1, 5 * ?MB}, {1000, 1024}, {1, 5 * ?MB}, {1, 20 * ?MB}]
    ],
    ok.

%% What the emulator has given to the carrier before erlang:halt/0 arrives before the node is down.
%% (What it still has in its own queues is lost, over inet_tcp too.)
last_messages_before_halt(Config) ->
    [
        last_words(Config, 100, 1024, fun(NodeA, Given) ->
            given(NodeA, Given),
            erlang:halt(0)
        end)
     || _ <- [1, 2, 3]
    ],
    ok.

%% What the emulator has given to the carrier before its process is killed arrives before the node
%% is down.
last_messages_before_kill(Config) ->
    [
        last_words(Config, 100, 1024, fun(NodeA, Given) ->
            given(NodeA, Given),
            os:cmd("kill -9 " ++ os:getpid())
        end)
     || _ <- [1, 2, 3]
    ],
    ok.

%% What a node has sent to one that is stopped arrives when that goes on, though the sender has
%% halted meanwhile: all of it, and then the nodedown.
last_messages_to_a_stopped_node(Config) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        Collector = collector(A, B, 1024),
        quic_dist_node:signal(maps:get(os_pid, A), stop),
        send_last(A, B, Collector, 30, 1024, fun(NodeA, Given) ->
            given(NodeA, Given),
            erlang:halt(0)
        end),
        quic_dist_node:wait_until(halted, fun() ->
            not quic_dist_node:alive(maps:get(os_pid, B))
        end),
        %% Longer than a sidecar lingers (portproto/PROTOCOL.md, section 8).
        quic_dist_node:settled(nothing_comes, fun() -> quic_dist_node:flush() =:= [] end, 1000),
        quic_dist_node:signal(maps:get(os_pid, A), cont),
        ?assertEqual({collected, 30}, ?recv({collected, _} = Collected, Collected, 30000))
    end).

last_words(Config, Count, Size, End) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        Collector = collector(A, B, Size),
        send_last(A, B, Collector, Count, Size, End),
        ?assertEqual({collected, Count}, ?recv({collected, _} = Collected, Collected, 30000))
    end).

%% A process on `a' that waits for messages and the end of `b', and then tells us how many came.
collector(A, B, Size) ->
    NodeB = name(B),
    Self = self(),
    connect(B, A),
    Collector = call(A, fun() ->
        spawn(fun() ->
            monitor_node(NodeB, true),
            tell(Self, watching),
            tell(Self, {collected, collect(NodeB, 0, Size)})
        end)
    end),
    ?recv(watching),
    Collector.

%% The end is given the number of packets that had been sent when all messages were.
send_last(A, B, Collector, Count, Size, End) ->
    NodeA = name(A),
    cast(B, fun() ->
        Content = rand:bytes(Size),
        Before = packets(NodeA),
        [Collector ! {N, Content} || N <- lists:seq(1, Count)],
        End(NodeA, Before + Count)
    end).

packets(Node) ->
    {ok, Info} = net_kernel:node_info(Node),
    proplists:get_value(out, Info).

%% The packets are counted when a driver has them; it has written them when its queue is empty.
given(Node, Count) ->
    quic_dist_node:wait_until({given, Count}, fun() ->
        packets(Node) >= Count andalso [] =:= [P || P <- erlang:ports(), queue_size(P) > 0]
    end).

queue_size(Port) ->
    case erlang:port_info(Port, queue_size) of
        {queue_size, Size} -> Size;
        undefined -> 0
    end.

%% How many messages come, in order, before the nodedown.
collect(Node, N, Size) ->
    Next = N + 1,
    receive
        {Next, Content} when byte_size(Content) =:= Size -> collect(Node, Next, Size);
        {nodedown, Node} -> N
    after scale(20000) ->
        {no_nodedown, N}
    end.

%% The exit signals of processes that end just before their node halts arrive with the
%% processes' own reason, not with noconnection.
last_exit_signals_before_halt(Config) ->
    with_nodes(Config, [#{}, #{}], fun([A, B]) ->
        NodeA = name(A),
        NodeB = name(B),
        Self = self(),
        connect(A, B),
        cast(A, fun() ->
            process_flag(trap_exit, true),
            Wait = fun() -> receive leave -> exit(left) end end,
            Linked = [spawn_link(NodeB, Wait) || _ <- lists:seq(1, 200)],
            Monitored = [spawn_monitor(NodeB, Wait) || _ <- lists:seq(1, 200)],
            Pids = Linked ++ [Pid || {Pid, _} <- Monitored],
            spawn(NodeB, fun() -> leave_and_halt(NodeA, Pids) end),
            Reasons =
                [?recv({'EXIT', Pid, Reason}, Reason) || Pid <- Linked] ++
                    [?recv({'DOWN', M, process, P, Reason}, Reason) || {P, M} <- Monitored],
            tell(Self, {reasons, lists:usort(Reasons)})
        end),
        ?recv({reasons, Reasons}, ?assertEqual([left], Reasons))
    end).

leave_and_halt(NodeA, Pids) ->
    Before = packets(NodeA),
    [Pid ! leave || Pid <- Pids],
    given(NodeA, Before + length(Pids)),
    erlang:halt(0).

%% A connection on which nothing is said stays up for more than twice net_ticktime, by the
%% ticks of the two BEAMs.
idle_connection(Config) ->
    Options = #{kernel => [{net_ticktime, 4}]},
    with_nodes(Config, [Options, Options], fun([A, B]) ->
        NodeB = name(B),
        watch_nodes(A),
        watch_nodes(B),
        connect(A, B),
        Packets = fun() ->
            call(A, fun() ->
                {ok, Info} = net_kernel:node_info(NodeB),
                {proplists:get_value(in, Info), proplists:get_value(out, Info)}
            end)
        end,
        {In0, Out0} = Packets(),
        quic_dist_node:settled(connected, fun() ->
            call(A, fun() -> nodes() end) =:= [NodeB]
        end, 10000),
        {In1, Out1} = Packets(),
        ?assert(In1 > In0, {received, In0, In1}),
        ?assert(Out1 > Out0, {sent, Out0, Out1}),
        ?assertEqual([], [Down || {down, _, _, _} = Down <- quic_dist_node:flush()]),
        ?assertEqual(pong, ping(B, name(A)))
    end).

%% A peer whose BEAM is stopped, its sidecar alive, is down with reason net_tick_timeout after
%% net_ticktime; when it goes on, it can be reached again.
blocked_node(Config) ->
    Options = #{kernel => [{net_ticktime, 4}]},
    with_nodes(Config, [Options, Options], fun([A, B]) ->
        NodeB = name(B),
        watch_nodes(A),
        connect(A, B),
        quic_dist_node:signal(maps:get(os_pid, B), stop),
        Stopped = erlang:monotonic_time(millisecond),
        ?assertEqual(net_tick_timeout, ?recv({down, _, NodeB, Reason}, Reason, 15000)),
        Took = erlang:monotonic_time(millisecond) - Stopped,
        ct:log("down after ~p ms", [Took]),
        ?assert(Took >= 2500, {took, Took}),
        ?assert(Took =< scale(8000), {took, Took}),
        quic_dist_node:signal(maps:get(os_pid, B), cont),
        quic_dist_node:wait_until(connected_again, fun() -> ping(A, NodeB) =:= pong end)
    end).

%% Remote processes that do what they are told

remote(Node) ->
    spawn(Node, fun evaluator/0).

evaluator() ->
    receive
        {eval, From, Ref, Fun} ->
            From ! {Ref, Fun()},
            evaluator()
    end.

ask(Pid, Fun) ->
    Ref = make_ref(),
    Pid ! {eval, self(), Ref, Fun},
    ?recv({Ref, Answer}, Answer).
