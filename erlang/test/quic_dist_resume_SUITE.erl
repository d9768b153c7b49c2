%% @doc A link outlives its QUIC connections: nodes on both sides of a relay lose nothing but time
%% when the relay forgets its flows, blocks one direction, changes its address or drops everything.
%% Users are told of it.
%%
%% quic_dist_resume_ends_SUITE has the ends of such links, quic_dist_resume_load_SUITE what takes
%% longer.
%% Of each pair A dials, through the relay.
-module(quic_dist_resume_SUITE).

-export([suite/0, all/0, groups/0, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    nothing_is_lost/1,
    certificates/1,
    told/1,
    switched_off/1,
    short_cut/1,
    cut_beyond_the_tick_time/1,
    quiet_dialler/1,
    unheard_dialler/1,
    signals/1,
    busy_dist_port/1
]).

-include_lib("stdlib/include/assert.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_node, [call/2, call/4, connect/2, connects/2, info/1, name/1, tell/2]).
-import(quic_dist_outage, [no_nodedown/0, node_at/4, pair/1, pair/2, talk/2]).
-import(quic_dist_run, [free_port/0, port_name/1]).
-import(quic_dist_shown, [get/2, printed/2]).
-import(quic_dist_wait, [flush/0, scale/1, settled/3, wait_until/2, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

-define(MB, 1048576).

%% How long connections are lost at random moments, in ms.
-define(UNREST, 3000).

%% How long a link may take to go on when packets pass again: the rest of a try that has begun, the
%% longest pause between two, and a try.
-define(RESUMED, 4000).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(60000)}].

all() ->
    [{group, Plane} || Plane <- quic_dist_case:planes()].

%% The sidecar does not know of a data plane what concerns connections. So the second gets one case,
%% and the others in `make resume'.
groups() ->
    Cuts = [
        short_cut,
        cut_beyond_the_tick_time,
        quiet_dialler,
        unheard_dialler,
        signals,
        busy_dist_port
    ],
    [
        {socket, [], [nothing_is_lost, told, {group, cuts}]},
        {stdio, [], [nothing_is_lost | [{group, cuts} || quic_dist_case:thorough()]]},
        %% These mostly wait, and may do it together.
        {cuts, [parallel], Cuts ++ [certificates, switched_off]}
    ].

init_per_group(Group, Config) ->
    quic_dist_case:in_plane(Group, Config).

end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% Nothing is lost

%% Messages of several senders in both directions arrive once each, and in the order of each sender,
%% while connections are lost at random moments.
nothing_is_lost(Config) -> quic_dist_outage:nothing_is_lost(Config, [], ?UNREST).

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

%% A link ends with its QUIC connection if one of the nodes has switched this off.
switched_off(Config) ->
    Port = free_port(),
    Relay = quic_dist_relay:start(Port),
    B = node_at(Config, Port, [], #{quic_dist => [{resume, false}]}),
    A = node_at(Config, free_port(), [{B, Relay}], #{kernel => [{net_ticktime, 4}]}),
    connects(A, B),
    watch(A),
    ok = quic_dist_relay:forget(Relay),
    ?assertEqual(net_tick_timeout, nodedown(A, B, 7000)).

%% Both nodes tell of an outage: by events, in quic_dist:info/1 and i/0, in the metrics and on the
%% status page. While it lasts the node tells whose connection a reset has ended.
told(Config) ->
    StateHome = filename:join(quic_dist_run:dir(), quic_dist_run:unique("state")),
    Kinds = [connection_ended, connection_resumed],
    {A, #{node := NodeB} = B, Relay} = pair(Config, #{
        quic_dist => [{status_port, 0}], env => [{"XDG_STATE_HOME", StateHome}]
    }),
    NodeA = name(A),
    [subscribe(Node, Kinds) || Node <- [A, B]],
    NoOutage = #{count => 0, last => 0, total => 0, resent => 0, down => 0},
    [?assertEqual(NoOutage, outages(Node, Of)) || {Node, Of} <- [{A, NodeB}, {B, NodeA}]],
    ?assertEqual(nomatch, string:find(shown(A, "now.json"), "\"outages\"")),

    ok = quic_dist_relay:cut(Relay),
    ok = quic_dist_relay:reset(Relay, {NodeB, StateHome}),
    #{facts := #{<<"err">> := <<"stateless reset", _/binary>>} = Ended} =
        event(A, connection_ended),
    BinaryB = atom_to_binary(NodeB),
    ?assertMatch(#{<<"node">> := BinaryB, <<"connection">> := <<"1">>}, Ended),
    ?assertEqual(NoOutage#{down := 1}, outages(A, NodeB)),
    Row = [atom_to_list(NodeB), " +quic +dialled \\(waiting\\)"],
    ?assertMatch({match, _}, re:run(table(A), Row)),
    ?assertEqual("1", metric(A, "quic_dist_peer_connections_missing", NodeB)),
    ?assertNotEqual(nomatch, string:find(shown(A, "now.json"), "\"down\":1}")),

    call(A, fun() -> {nobody, NodeB} ! rand:bytes(1000), ok end),
    timer:sleep(1000),
    ok = quic_dist_relay:heal(Relay),
    [
        begin
            #{facts := Resumed} = event(Node, connection_resumed),
            Name = atom_to_binary(Of),
            ?assertMatch(
                #{
                    <<"node">> := Name,
                    <<"connection">> := <<"1">>,
                    <<"peer">> := <<"127.0.0.1:", _/binary>>,
                    <<"pause">> := _
                },
                Resumed
            )
        end
     || {Node, Of} <- [{A, NodeB}, {B, NodeA}]
    ],
    #{count := 1, last := Last, total := Last, resent := Resent, down := 0} = outages(A, NodeB),
    ct:log("the outage: ~b ms, ~b bytes sent again", [Last, Resent]),
    ?assert(Last >= 1000),
    ?assertMatch(#{count := 1, down := 0}, outages(B, NodeA)),
    [
        ?assertMatch({match, _}, re:run(table(Node), [atom_to_list(Of), " .*\\(1 outage\\)"]))
     || {Node, Of} <- [{A, NodeB}, {B, NodeA}]
    ],
    ?assertEqual("0", metric(A, "quic_dist_peer_connections_missing", NodeB)),
    ?assertEqual("1", metric(A, "quic_dist_peer_outages_total", NodeB)),
    Seconds = number(metric(A, "quic_dist_peer_outage_seconds_total", NodeB)),
    ?assertEqual(Last, trunc(1000 * Seconds)),
    ?assertEqual(integer_to_list(Resent), metric(A, "quic_dist_peer_resent_bytes_total", NodeB)),
    ?assertNotEqual(nomatch, string:find(shown(A, "now.json"), "\"outages\":{\"count\":1,")),
    ?assertNotEqual(nomatch, string:find(shown(A, ""), "outages")),
    no_nodedown().

%% The events come as messages to the test.
subscribe(#{node := Name} = Node, Kinds) ->
    Test = self(),
    call(Node, fun() ->
        Caller = self(),
        spawn(fun() ->
            {ok, Reference} = quic_dist:subscribe(Kinds),
            Caller ! subscribed,
            pass_events(Reference, Name, Test)
        end),
        ?recv(subscribed)
    end).

pass_events(Reference, Name, Test) ->
    receive
        {quic_dist, Reference, #{event := Kind} = Event} -> tell(Test, {event, Name, Kind, Event})
    end,
    pass_events(Reference, Name, Test).

event(#{node := Name}, Kind) -> ?recv({event, Name, Kind, Event}, Event).

outages(Node, Of) ->
    #{outages := Outages} = call(Node, quic_dist, info, [Of]),
    Outages.

table(Node) -> printed(Node, fun() -> quic_dist:i() end).

shown(Node, Path) ->
    #{status := Url} = info(Node),
    {200, Text} = get(Url, Path),
    Text.

metric(Node, Metric, Of) ->
    Line = ["^", Metric, "{peer=\"", atom_to_list(Of), "\"} (.*)$"],
    {match, [Value]} = re:run(shown(Node, "metrics"), Line, [multiline, {capture, [1], list}]),
    Value.

number(Text) ->
    case string:to_float(Text) of
        {error, no_float} -> list_to_integer(Text);
        {Number, _} -> Number
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
