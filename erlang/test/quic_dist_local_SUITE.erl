%% @doc Local links: the VMs of two nodes of one host and user have one socket, and no sidecar
%% touches the data. Where that cannot be, or does not come about, the link goes over QUIC.
-module(quic_dist_local_SUITE).

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    a_local_link/1,
    a_peer_that_asks_for_its_name/1,
    off_on_one_side/1,
    order_under_load/1,
    a_stopped_peer/1,
    ticks_of_a_stopped_peer/1,
    beam_killed/1,
    sidecars_killed/1,
    both_connect_at_once/1,
    many_links_leave_nothing/1,
    last_words/1,
    strangers_at_the_socket/1,
    no_meeting/1,
    another_listener/1,
    another_cookie/1,
    certificates/1,
    another_user/1,
    other_namespaces/1,
    another_network/1,
    an_earlier_build/1
]).

-include_lib("kernel/include/net_address.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_case, [resources/1, same_resources/2]).
-import(quic_dist_node, [
    call/2, call/3, call/4, connect/2, disconnect/2, info/1, name/1, next_sidecar/3, ping/2,
    sidecar/1, wait_log/3
]).
-import(quic_dist_os, [kill/1, signal/2]).
-import(quic_dist_wait, [scale/1, wait_until/2, wait_until/3, within/3]).
-import(quic_dist_watch, [nodedown/3, watch/1]).

%% A folder with an earlier version of this repository, built, for an_earlier_build.
-define(EARLIER, "QUIC_DIST_TEST_EARLIER").

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [
        a_local_link,
        a_peer_that_asks_for_its_name,
        off_on_one_side,
        order_under_load,
        a_stopped_peer,
        ticks_of_a_stopped_peer,
        beam_killed,
        sidecars_killed,
        both_connect_at_once,
        many_links_leave_nothing,
        last_words,
        strangers_at_the_socket,
        no_meeting,
        another_listener,
        another_cookie,
        certificates,
        another_user,
        other_namespaces,
        another_network,
        an_earlier_build
    ].

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% A node of the case that may have local links.
start(Config) -> start(Config, #{}).

start(Config, Options) ->
    QuicDist = maps:get(quic_dist, Options, []),
    Default = [{local_links, auto} || not lists:keymember(local_links, 1, QuicDist)],
    quic_dist_case:start(Config, Options#{quic_dist => Default ++ QuicDist}).

%% What carries the link of two nodes, which both see the same.
carrier(A, B) ->
    wait_until({carrier, name(A), name(B)}, fun() ->
        Seen = {call(A, quic_dist, info, [name(B)]), call(B, quic_dist, info, [name(A)])},
        case Seen of
            {#{carrier := Carrier, state := up}, #{carrier := Carrier, state := up}} ->
                {ok, Carrier};
            _ ->
                Seen
        end
    end).

%% Both nodes connect to each other in turn, and each time the link is carried by this.
carried_both_ways(A, B, Carrier) ->
    [
        begin
            connect(From, To),
            ?assertEqual(Carrier, carrier(From, To)),
            disconnect(From, To)
        end
     || {From, To} <- [{A, B}, {B, A}]
    ].

%% Links

%% Two nodes of one host and user have a local link: its controller is the socket of the VM, both
%% nodes show it and tell its beginning and its end as events, and the sidecars have no channel.
a_local_link(Config) ->
    [A, B] = [start(Config, #{quic_dist => [{status_port, 0}]}) || _ <- [a, b]],
    [NodeA, NodeB] = [name(Node) || Node <- [A, B]],
    {ok, _} = call(A, fun() -> subscribed(self()) end),
    pong = ping(A, B),
    local = carrier(A, B),
    ?assertMatch(
        #{direction := dialled, identity := cookie, queued := _, uptime := _, address := {_, _}},
        call(A, quic_dist, info, [NodeB])
    ),
    #{received := #{bytes := Received, packets := Packets}} =
        OfA = call(B, quic_dist, info, [NodeA]),
    ?assertMatch(#{direction := accepted, identity := cookie}, OfA),
    ?assert(Received > Packets andalso Packets > 0),
    ?assertMatch(#{links := #{local := 1}, peers := #{NodeB := _}}, info(A)),
    [wait_until(channels, fun() -> maps:get(channels, info(N)) =:= 0 end) || N <- [A, B]],
    [{NodeB, Port}] = call(A, erlang, system_info, [dist_ctrl]),
    ?assert(is_port(Port)),
    {ok, Known} = call(A, net_kernel, node_info, [NodeB]),
    ?assertMatch(
        #net_address{address = {{127, 0, 0, 1}, _}, protocol = quic},
        proplists:get_value(address, Known)
    ),
    Table = lists:flatten(call(A, fun() -> quic_dist_table:lines(quic_dist:info(), 0) end)),
    ?assertMatch({match, _}, re:run(Table, "local +dialled")),
    #{status := Page} = info(A),
    wait_until(metrics, fun() ->
        string:find(get_page(Page, "metrics"), "quic_dist_links{carrier=\"local\"} 1") =/= nomatch
    end),
    ?assertNotEqual(nomatch, string:find(get_page(Page, "now.json"), "\"carrier\":\"local\"")),
    disconnect(A, B),
    [Up, Down] = wait_until(events, fun() ->
        case call(A, fun() -> told() end) of
            [_, _] = Both -> {ok, Both};
            Other -> Other
        end
    end),
    ?assertMatch(#{event := up, node := NodeB, carrier := local, direction := dialled}, Up),
    ?assertMatch(#{event := down, node := NodeB, carrier := local, uptime := _}, Down),
    ?assertEqual([], quic_dist_node:log_lines(A, "^(warning|error)")),
    ?assertEqual([], quic_dist_node:log_lines(B, "^(warning|error)")).

%% On a node: keeps the events of links in a process of its own.
subscribed(Caller) ->
    Pid = spawn(fun() ->
        Result = quic_dist:subscribe([up, down]),
        Caller ! {subscribed, Result},
        events([])
    end),
    true = register(?MODULE, Pid),
    receive
        {subscribed, Result} -> Result
    end.

events(Events) ->
    receive
        {quic_dist, _, Event} ->
            events(Events ++ [Event]);
        {told, Caller} ->
            Caller ! {events, Events},
            events(Events)
    end.

told() ->
    ?MODULE ! {told, self()},
    receive
        {events, Events} -> Events
    end.

get_page(Url, Path) ->
    #{port := Port} = uri_string:parse(binary_to_list(Url)),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, ["GET /", Path, " HTTP/1.0\r\nHost: localhost\r\n\r\n"]),
    binary_to_list(read_all(Socket, [])).

read_all(Socket, Parts) ->
    case gen_tcp:recv(Socket, 0, scale(10000)) of
        {ok, Part} -> read_all(Socket, [Parts, Part]);
        {error, closed} -> iolist_to_binary(Parts)
    end.

%% A node that asks for its name has a local link too, under the name that it gets.
a_peer_that_asks_for_its_name(Config) ->
    B = start(Config),
    A = start(Config, #{name => none, args => ["-name", "undefined@127.0.0.1", "-no_epmd"]}),
    true = call(A, net_kernel, connect_node, [name(B)]),
    Given = call(A, erlang, node, []),
    wait_until({local, Given}, fun() ->
        case call(B, quic_dist, info, [Given]) of
            #{carrier := local, state := up} -> true;
            Other -> Other
        end
    end).

%% A node that wants no local links has none, whichever side connects; it talks over QUIC.
off_on_one_side(Config) ->
    A = start(Config),
    B = start(Config, #{quic_dist => [{local_links, off}]}),
    carried_both_ways(A, B, quic).

%% Of many senders at once, each receiver gets all messages in their order, large and small, both
%% ways.
order_under_load(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    connect(A, B),
    Senders = 50,
    Messages = 200,
    Load = fun(To) ->
        fun() ->
            Done = [
                spawn_monitor(fun() -> send_in_order(To, N, Messages) end)
             || N <- lists:seq(1, Senders)
            ],
            [
                receive
                    {'DOWN', Monitor, process, Pid, Reason} -> Reason
                end
             || {Pid, Monitor} <- Done
            ]
        end
    end,
    Self = self(),
    [
        spawn_link(fun() -> Self ! {result, call(From, Load(name(To)), 60000)} end)
     || {From, To} <- [{A, B}, {B, A}]
    ],
    [
        receive
            {result, Results} -> ?assertEqual([normal], lists:usort(Results))
        end
     || _ <- [a, b]
    ],
    local = carrier(A, B).

%% On a node: sends messages of changing sizes to a process of another node, which exits if one is
%% missing or late.
send_in_order(To, Seed, Count) ->
    {Pid, Monitor} = spawn_monitor(To, fun() -> receive_in_order(1, Count) end),
    [Pid ! {N, binary:copy(<<N>>, (N * Seed * 7919) rem size_of(N))} || N <- lists:seq(1, Count)],
    receive
        {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    end.

size_of(N) when N rem 50 =:= 0 -> 1000000;
size_of(_) -> 3000.

receive_in_order(N, Count) when N > Count -> ok;
receive_in_order(N, Count) ->
    receive
        {N, _} -> receive_in_order(N + 1, Count);
        Other -> exit({out_of_order, N, element(1, Other)})
    end.

%% A peer that does not read suspends senders (busy_dist_port), and gets all when it reads again.
a_stopped_peer(Config) ->
    [A, #{os_pid := Beam} = B] = [start(Config) || _ <- [a, b]],
    connect(A, B),
    NodeB = name(B),
    Sink = call(B, fun() -> spawn(fun() -> count(0) end) end),
    signal(Beam, stop),
    call(A, fun() ->
        _ = erlang:system_monitor(self(), [busy_dist_port]),
        Sender = spawn(fun() -> [Sink ! binary:copy(<<N>>, 10000) || N <- lists:seq(1, 2000)] end),
        receive
            {monitor, Sender, busy_dist_port, _} -> ok
        end
    end),
    signal(Beam, cont),
    wait_until(all, fun() ->
        call(A, fun() ->
            Sink ! {count, self()},
            receive
                {counted, N} -> N =:= 2000 orelse {N, NodeB}
            end
        end)
    end).

count(N) ->
    receive
        {count, To} ->
            To ! {counted, N},
            count(N);
        _ ->
            count(N + 1)
    end.

%% Ticks find a peer that is stopped, as over every carrier.
ticks_of_a_stopped_peer(Config) ->
    [A, #{os_pid := Beam} = B] = [start(Config, #{kernel => [{net_ticktime, 4}]}) || _ <- [a, b]],
    connect(A, B),
    watch(A),
    %% An idle link lives on.
    Up = fun() -> lists:member(name(B), call(A, erlang, nodes, [])) end,
    quic_dist_wait:settled(idle, Up, 7000),
    local = carrier(A, B),
    signal(Beam, stop),
    ?assertEqual(net_tick_timeout, nodedown(A, B, 8000)),
    signal(Beam, cont).

%% Ends

%% The kernel tells of a killed VM at once.
beam_killed(Config) ->
    [#{os_pid := Beam} = A, B] = [start(Config) || _ <- [a, b]],
    connect(A, B),
    local = carrier(A, B),
    watch(B),
    kill(Beam),
    ?assertEqual(connection_closed, nodedown(B, A, 500)).

%% A local link outlives the sidecars of both nodes, with all that flows on it; and when there are
%% others, both nodes get new links: to each other, and to a third node.
sidecars_killed(Config) ->
    [A, B, C] = [start(Config) || _ <- [a, b, c]],
    connect(A, B),
    local = carrier(A, B),
    [watch(Node) || Node <- [A, B]],
    NodeB = name(B),
    Talker = call(A, fun() ->
        Echo = spawn(NodeB, fun() -> echo() end),
        spawn(fun() -> talk(Echo, 0) end)
    end),
    Before = talked(A, Talker),
    Sidecars = [{Node, sidecar(Node)} || Node <- [A, B]],
    [kill(Sidecar) || {_, Sidecar} <- Sidecars],
    wait_until(talking, fun() -> talked(A, Talker) > Before + 100 end),
    [next_sidecar(Node, Sidecar, 5000) || {Node, Sidecar} <- Sidecars],
    [quic_dist_node:connects(Node, C) || Node <- [A, B]],
    [?assertEqual(local, carrier(Node, C)) || Node <- [A, B]],
    Then = talked(A, Talker),
    wait_until(still_talking, fun() -> talked(A, Talker) > Then end),
    ?assertEqual([], quic_dist_wait:flush()),
    ?assertMatch(#{carrier := local, state := up}, call(A, quic_dist, info, [NodeB])),
    carried_both_ways(A, B, local).

echo() ->
    receive
        {From, N} ->
            From ! N,
            echo()
    end.

talk(Echo, N) ->
    Echo ! {self(), N},
    receive
        N ->
            receive
                {talked, To} -> To ! {talked, N}
            after 0 -> ok
            end,
            talk(Echo, N + 1)
    end.

talked(Node, Talker) ->
    call(Node, fun() ->
        Talker ! {talked, self()},
        receive
            {talked, N} -> N
        end
    end).

%% Of two nodes that connect to each other at the same time, one gives way, and there is one link.
both_connect_at_once(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    Self = self(),
    [
        begin
            [
                spawn_link(fun() ->
                    Self ! {connected, call(From, net_kernel, connect_node, [name(To)])}
                end)
             || {From, To} <- [{A, B}, {B, A}]
            ],
            [
                receive
                    {connected, Result} -> ?assertEqual(true, Result)
                end
             || _ <- [a, b]
            ],
            local = carrier(A, B),
            disconnect(A, B)
        end
     || _ <- lists:seq(1, 10)
    ].

%% A hundred links one after the other leave nothing behind, in neither VM.
many_links_leave_nothing(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    Link = fun() ->
        connect(A, B),
        disconnect(A, B)
    end,
    [Link() || _ <- [1, 2, 3]],
    Before = [{Node, resources(Node)} || Node <- [A, B]],
    [Link() || _ <- lists:seq(1, 100)],
    [same_resources(Node, Resources) || {Node, Resources} <- Before].

%% What a node sends just before it ends arrives, as far as the sockets hold it: here it is what one
%% process has sent before the node is halted.
last_words(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    connect(A, B),
    Self = self(),
    Sink = call(B, fun() ->
        spawn(fun() ->
            receive
                last -> quic_dist_node:tell(Self, heard)
            end
        end)
    end),
    quic_dist_node:cast(A, fun() ->
        Sink ! last,
        halt()
    end),
    receive
        heard -> ok
    after scale(5000) -> error(unheard)
    end.

%% Programs that connect to the socket

%% A program of this user that shows no token, or a wrong one, gets nothing and is turned away; and
%% so many that wait in silence keep nobody out for long.
strangers_at_the_socket(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    {ok, Name} = call(B, quic_dist_meeting, name, []),
    Open = fun() ->
        {ok, Socket} = gen_tcp:connect({local, Name}, 0, [local, binary, {active, false}]),
        Socket
    end,
    Wrong = Open(),
    ok = gen_tcp:send(Wrong, [<<16:32>>, rand:bytes(16)]),
    ?assertMatch({error, _}, gen_tcp:recv(Wrong, 0, scale(5000))),
    Long = Open(),
    ok = gen_tcp:send(Long, [<<16#7FFFFFFF:32>>, rand:bytes(16)]),
    ?assertMatch({error, _}, gen_tcp:recv(Long, 0, scale(5000))),
    Silent = [Open() || _ <- lists:seq(1, 100)],
    {Took, pong} = timer:tc(fun() -> ping(A, B) end),
    within(3000, Took div 1000, ping),
    [?assertMatch({error, _}, gen_tcp:recv(Socket, 0, scale(5000))) || Socket <- Silent],
    disconnect(A, B),
    connect(A, B),
    local = carrier(A, B),
    ?assertEqual([], call(B, fun() -> maps:keys(element(5, sys:get_state(quic_dist_meeting))) end)).

%% The acceptor's VM does not come to the meeting: after a moment the link goes over QUIC, and the
%% dialler's log says why.
no_meeting(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    ok = call(B, sys, suspend, [quic_dist_meeting]),
    {Took, pong} = timer:tc(fun() -> ping(A, B) end),
    within(2000, Took div 1000, ping),
    quic = carrier(A, B),
    wait_log(A, "no local link to .*, but one over QUIC", 1000),
    ok = call(B, sys, resume, [quic_dist_meeting]),
    disconnect(A, B),
    carried_both_ways(A, B, local),
    %% If the process dies, another one listens at the same name.
    call(B, fun() ->
        Pid = whereis(quic_dist_meeting),
        exit(Pid, kill),
        Wait = fun Wait() ->
            case whereis(quic_dist_meeting) of
                Next when is_pid(Next), Next =/= Pid -> sys:get_state(Next);
                _ -> receive after 10 -> Wait() end
            end
        end,
        Wait()
    end),
    carried_both_ways(A, B, local).

%% Another program of another user has taken the name: it is shown nothing, and the link goes over
%% QUIC. (Here the node believes that it is another user's.)
another_listener(Config) ->
    [A, B] = [start(Config) || _ <- [a, b]],
    call(A, fun() -> persistent_term:put({quic_dist_meeting, user}, 4711) end),
    connect(A, B),
    quic = carrier(A, B),
    wait_log(A, "another program listens there", 1000),
    disconnect(A, B),
    %% Nor does it take one that comes to it.
    connect(B, A),
    quic = carrier(A, B).

%% Local links are authenticated as links over QUIC are.
another_cookie(Config) ->
    A = start(Config),
    B = start(Config, #{cookie => another}),
    pang = ping(A, B),
    wait_log(B, "its cookie is not the one", 1000),
    [] = call(B, erlang, nodes, [connected]).

%% With certificates there are local links only by `same_user'; the peer's is shown then. Where
%% files may end links there are none.
certificates(Config) ->
    Dir = filename:join(quic_dist_run:dir(), "local_certs"),
    quic_dist_fixtures:cert(["ca", "-out", Dir]),
    Ca = filename:join(Dir, "ca.pem"),
    Start = fun(Options) ->
        Name = quic_dist_run:port_name(quic_dist_run:free_port()),
        quic_dist_fixtures:cert(["node", Name, "-ca", Ca, "-out", Dir]),
        File = filename:join(Dir, Name),
        start(Config, #{
            name => {long, Name},
            args => ["-no_epmd"],
            quic_dist => [
                {certfile, File ++ ".pem"}, {keyfile, File ++ ".key"}, {cacertfile, Ca} | Options
            ]
        })
    end,
    A = Start([{local_links, same_user}]),
    B = Start([{local_links, same_user}]),
    carried_both_ways(A, Start([{local_links, auto}]), quic),
    carried_both_ways(A, Start([{local_links, same_user}, {close_untrusted, true}]), quic),
    connect(A, B),
    local = carrier(A, B),
    #{identity := Identity} = call(A, quic_dist, info, [name(B)]),
    ?assertNotEqual(nomatch, string:find(Identity, atom_to_binary(name(B)))).

%% Nodes of another place

root() -> os:cmd("id -u") =:= "0\n".

%% Can a node run by a program that starts another one, in this place?
runs_nodes({Program, Args}) ->
    Load =
        "halt(case {code:ensure_loaded(quic_dist), file:open(quic_dist_run:executable(), [read])} "
        "of {{module, _}, {ok, _}} -> 0; _ -> 1 end).",
    Words =
        [Program | Args] ++ ["-noinput", "-eval", Load] ++
            lists:append([["-pa", Path] || Path <- quic_dist_run:paths()]),
    Quoted = [["'", Word, "' "] || Word <- Words],
    "0\n" =:= os:cmd(lists:flatten(["cd / && ", Quoted, ">/dev/null 2>&1; echo $?"])).

%% Two nodes of two users talk over QUIC.
another_user(Config) ->
    open_to_all(),
    case root() andalso runs_nodes(by_user("23456")) of
        true ->
            A = start(Config),
            [carried_both_ways(A, as_user(Config, User), quic) || User <- ["65534", "23456"]],
            %% Two nodes of the other user have a local link.
            [B, C] = [as_user(Config, "23456") || _ <- [b, c]],
            carried_both_ways(B, C, local),
            %% A program of another user is turned away before it has said anything.
            {ok, Name} = call(B, quic_dist_meeting, name, []),
            {ok, Socket} = gen_tcp:connect({local, Name}, 0, [local, binary, {active, false}]),
            ?assertMatch({error, _}, gen_tcp:recv(Socket, 0, 500));
        false ->
            {skip, "needs root, setpriv, and code that other users can read"}
    end.

by_user(User) ->
    {"/usr/bin/env", [
        "setpriv", "--reuid=" ++ User, "--regid=" ++ User, "--clear-groups", quic_dist_run:erl()
    ]}.

as_user(Config, User) ->
    Home = filename:join(quic_dist_run:dir(), "home" ++ User),
    _ = os:cmd("mkdir -p " ++ Home ++ " && chown " ++ User ++ " " ++ Home),
    start(Config, #{
        env => [{"HOME", Home}, {"TMPDIR", Home}, {"XDG_STATE_HOME", false}],
        exec => by_user(User)
    }).

%% The folders of this run: with the logs of nodes, and with the code.
open_to_all() ->
    [_ = os:cmd("chmod a+rx " ++ Path) || Path <- quic_dist_run:paths()],
    _ = os:cmd("chmod a+rwx " ++ quic_dist_run:dir()),
    ok.

%% Two nodes of one user talk over QUIC if one sees other files, or other users.
other_namespaces(Config) ->
    Separate = [
        Exec
     || Words <- [["--mount", "--propagation", "unchanged"], ["--user", "--map-root-user"]],
        Exec <- [{"/usr/bin/env", ["unshare" | Words] ++ [quic_dist_run:erl()]}],
        runs_nodes(Exec)
    ],
    case Separate of
        [] ->
            {skip, "no namespaces can be made here"};
        _ ->
            A = start(Config),
            [carried_both_ways(A, start(Config, #{exec => Exec}), quic) || Exec <- Separate]
    end.

%% Two nodes of two networks of one host, and of one user, talk over QUIC.
another_network(Config) ->
    case quic_dist_link:open("") of
        {ok, Ends} ->
            [A, B] = [start(Config, End) || End <- Ends],
            carried_both_ways(A, B, quic),
            [quic_dist_node:stop(Node) || Node <- [A, B]],
            quic_dist_link:close();
        {error, Why} ->
            {skip, Why}
    end.

%% Nodes of an earlier build, which know nothing of local links, connect as they did, both ways.
an_earlier_build(Config) ->
    case os:getenv(?EARLIER) of
        false ->
            {skip, "an earlier build is that in the folder " ++ ?EARLIER};
        Dir ->
            Path = filename:join(Dir, "_build/default/lib/quic_dist/ebin"),
            A = start(Config),
            B = start(Config, #{quic_dist => [{local_links, none}], args => ["-pa", Path]}),
            Beam = call(B, code, which, [quic_dist]),
            ?assertEqual(Path, filename:dirname(Beam)),
            carried_both_ways(A, B, quic)
    end.
