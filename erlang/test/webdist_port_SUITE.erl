%% @doc The nodes of a host share one port for distribution over HTTP: one process holds it, the
%% others register with it, and another one takes it over when the holder ends.
-module(webdist_port_SUITE).

-export([all/0, suite/0]).
-export([
    the_port_is_taken_over/1,
    many_nodes_on_one_port/1,
    a_sidecar_that_dies_is_registered_again/1,
    a_name_in_use/1,
    a_port_of_another_program/1,
    one_port_for_everything/1,
    stopped_and_started/1,
    a_child_of_an_application/1,
    what_is_wanted_is_remembered/1,
    a_node_that_is_killed_in_an_upgrade/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, disconnect/2, ping/2, sidecar/1, start/1, stop/1, wait_log/3
]).
-import(quic_dist_os, [signal/2]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).
-import(webdist_node, [
    big/2, ctrl/2, self_hosted/3, self_hosted/4, tcp_lines/1, webdist/2, webdist/4
]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [
        the_port_is_taken_over,
        many_nodes_on_one_port,
        a_sidecar_that_dies_is_registered_again,
        a_name_in_use,
        a_port_of_another_program,
        one_port_for_everything,
        stopped_and_started,
        a_child_of_an_application,
        what_is_wanted_is_remembered,
        a_node_that_is_killed_in_an_upgrade
    ].

%% Another node takes the port over when its holder is killed, and all others are reached through
%% it. Links stay up.
the_port_is_taken_over(Config) ->
    %% Else global would cut links when it sees one node lost.
    Alone = ["-connect_all", "false"],
    #{os_pid := OsPid} = Holder = self_hosted(Config, inet_tcp, unique("holder"), Alone),
    Others = [self_hosted(Config, inet_tcp, unique("other"), Alone) || _ <- [1, 2]],
    Hello = webdist(Config, unique("hello"), [], Alone),
    [connect(Hello, Other) || Other <- Others],
    Ports = [ctrl(Hello, Other) || Other <- Others],
    signal(OsPid, kill),
    wait_until(taken_over, fun() ->
        States = [maps:get(state, call(Node, webdist, info, [])) || Node <- [Hello | Others]],
        lists:sort(States) =:= [holding, registered, registered] orelse States
    end),
    ?assertEqual(Ports, [ctrl(Hello, Other) || Other <- Others]),
    [disconnect(Hello, Other) || Other <- Others],
    %% One may hold the port before the next has seen that its registration is gone.
    [wait_until({found, Other}, fun() -> ping(Hello, Other) =:= pong end) || Other <- Others],
    stop(Holder).

%% Any number of nodes of a host, of any carrier that TCP connections suit, share a port.
many_nodes_on_one_port(Config) ->
    %% Not all of these reach each other: global would cut what it takes for a partition.
    Alone = ["-connect_all", "false"],
    Nodes = [
        self_hosted(Config, inet_tcp, unique("tcp"), Alone),
        self_hosted(Config, inet6_tcp, unique("tcp6"), Alone),
        webdist(Config, unique("web"), [], Alone),
        start(#{
            carrier => quic,
            name => {short, unique("quic")},
            args => ["-s", "webdist_server" | Alone],
            webdist => [{port, port(Config)}]
        })
    ],
    Hello = webdist(Config, unique("hello"), [], Alone),
    [?assertEqual(pong, ping(Hello, Node)) || Node <- Nodes],
    [big(Hello, Node) || Node <- Nodes].

%% The next sidecar registers as the former one did.
a_sidecar_that_dies_is_registered_again(Config) ->
    A = webdist(Config, unique("a")),
    B = self_hosted(Config, inet_tcp, unique("b")),
    Hello = webdist(Config, unique("hello")),
    [
        begin
            signal(sidecar(Node), kill),
            wait_until(reached, fun() -> ping(Hello, Node) =:= pong end),
            disconnect(Hello, Node)
        end
     || Node <- [A, B, A, B]
    ].

%% A second node of a name does not start, whatever its carrier. It starts once the first is gone.
a_name_in_use(Config) ->
    Name = unique("same"),
    First = self_hosted(Config, inet_tcp, Name),
    ?assertExit({boot_failed, _}, self_hosted(Config, inet_tcp, Name)),
    ?assertExit({boot_failed, _}, webdist(Config, Name)),
    stop(First),
    _ = webdist(Config, Name).

%% A node whose port another program has starts, says so, and connects to others. It takes the port
%% when that is free.
a_port_of_another_program(Config) ->
    {ok, Other} = gen_tcp:listen(port(Config), [{reuseaddr, true}]),
    A = webdist(Config, unique("a")),
    Text = "TCP port " ++ integer_to_list(port(Config)) ++ " is taken",
    _ = wait_log(A, "cannot be connected to over HTTP: " ++ Text, 1000),
    gen_tcp:close(Other),
    wait_until(held, fun() -> maps:get(state, call(A, webdist, info, [])) =:= holding end).

%% One port serves pages of the application's own web server and reaches the node. Each request for
%% a node is a line of the log.
one_port_for_everything(Config) ->
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {packet, http_bin}]),
    {ok, WebPort} = inet:port(Listen),
    _ = spawn_link(fun() -> web_server(Listen) end),
    Name = unique("world"),
    Upstream = "http://127.0.0.1:" ++ integer_to_list(WebPort),
    World = start(#{
        carrier => webdist,
        name => {short, Name},
        webdist => [{port, port(Config)}, {web_upstream, Upstream}],
        quic_dist => [{log_level, info}],
        log_level => info
    }),
    ?assertMatch({_, <<"HTTP/1.1 200 OK", _/binary>>}, {page, get("/page", port(Config))}),
    ?assertMatch({_, <<"HTTP/1.1 426 ", _/binary>>}, {page, get("/erl/" ++ Name, port(Config))}),
    Hello = webdist(Config, unique("hello")),
    ?assertEqual(pong, ping(Hello, World)),
    Line = "web request from=.* method=GET path=/erl/" ++ Name,
    _ = wait_log(World, Line ++ " .*status=426", 5000),
    _ = wait_log(World, Line ++ "@.*status=101", 5000).

get(Path, Port) ->
    {ok, Socket} = gen_tcp:connect("localhost", Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, ["GET ", Path, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]),
    read_all(Socket, <<>>).

read_all(Socket, Before) ->
    case gen_tcp:recv(Socket, 0, scale(10000)) of
        {ok, Bytes} -> read_all(Socket, <<Before/binary, Bytes/binary>>);
        {error, closed} -> Before
    end.

%% Answers each connection with a page.
web_server(Listen) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    {ok, {http_request, 'GET', {abs_path, <<"/page">>}, {1, 1}}} = gen_tcp:recv(Socket, 0),
    ok = gen_tcp:send(Socket, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
    gen_tcp:close(Socket),
    web_server(Listen).

%% Distribution that stops frees the port. Peers reach it again when it has started again.
stopped_and_started(Config) ->
    A = start(#{carrier => webdist, name => none, webdist => [{port, port(Config)}]}),
    Name = list_to_atom(unique("a")),
    Hello = start(#{
        carrier => webdist, name => {short, unique("hello")}, webdist => [{port, port(Config)}]
    }),
    [
        begin
            {ok, _} = call(A, net_kernel, start, [[Name, shortnames]]),
            Node = call(A, fun() -> node() end),
            wait_until(reached, fun() -> ping(Hello, Node) =:= pong end),
            ok = call(A, net_kernel, stop, []),
            wait_until(gone, fun() -> ping(Hello, Node) =:= pang end)
        end
     || _ <- [1, 2, 3]
    ].

%% The port may be part of an application's supervision tree. The child holds it from its start, or
%% from when it is free, to its end.
a_child_of_an_application(Config) ->
    A = start(#{
        carrier => inet_tcp, name => {short, unique("a")}, webdist => [{port, port(Config)}]
    }),
    Holds = fun(Node) ->
        State = maps:get(state, call(Node, webdist, info, [])),
        State =:= holding orelse State
    end,
    {ok, Other} = gen_tcp:listen(port(Config), [{reuseaddr, true}]),
    call(A, fun() ->
        {ok, _} = supervisor:start_child(kernel_safe_sup, webdist:child_spec())
    end),
    _ = wait_log(A, "^warning .*the web port: TCP port", 5000),
    gen_tcp:close(Other),
    wait_until(held, fun() -> Holds(A) end),
    Hello = webdist(Config, unique("hello")),
    ?assertEqual(pong, ping(Hello, A)),
    call(A, fun() -> ok = supervisor:terminate_child(kernel_safe_sup, webdist_sup) end),
    wait_until(taken_over, fun() -> Holds(Hello) end),
    ?assertEqual(pong, ping(Hello, A)).

%% The wanted state of the port outlives the process that holds it, and the sidecar after that.
what_is_wanted_is_remembered(Config) ->
    Hello = webdist(Config, unique("hello")),
    A = self_hosted(Config, inet_tcp, unique("a")),
    Before = call(A, webdist, info, []),
    call(A, fun() -> exit(whereis(webdist_server), kill) end),
    wait_until(remembered, fun() ->
        case call(A, webdist, info, []) of
            Before -> true;
            Other -> Other
        end
    end),
    signal(sidecar(A), kill),
    wait_until(reached, fun() -> ping(Hello, A) =:= pong end).

%% A client of a node that is killed anywhere in an upgrade sees the end, and nothing is left
%% behind: the node that holds the port continues, and no longer knows the killed one.
a_node_that_is_killed_in_an_upgrade(Config) ->
    Holder = start(#{
        carrier => webdist,
        name => {short, unique("holder")},
        webdist => [{port, port(Config)}],
        quic_dist => [{log_level, info}],
        log_level => info
    }),
    [killed(Config, Holder, Stage) || Stage <- [asked, upgraded, adopted]],
    ?assertEqual(pong, ping(webdist(Config, unique("hello")), Holder)).

killed(Config, Holder, Stage) ->
    #{node := Node, os_pid := OsPid} = World = webdist(Config, unique("world")),
    %% It does not take what it is asked to take; or its net_kernel does not.
    case Stage of
        asked -> signal(OsPid, stop);
        _ -> ok = call(World, sys, suspend, [net_kernel])
    end,
    Socket = upgrade(Node, port(Config)),
    Answer =
        case Stage of
            asked ->
                Line = ["path=/erl/", atom_to_list(Node), " .*status=101"],
                _ = wait_log(Holder, Line, 5000),
                <<>>;
            %% The descriptor is on its way.
            upgraded ->
                receive_until(Socket, <<"HTTP/1.1 101">>, <<>>);
            adopted ->
                Head = receive_until(Socket, <<"\r\n\r\n">>, <<>>),
                wait_until(adopted, fun() -> sockets(OsPid, port(Config)) =:= 1 end),
                Head
        end,
    Killed = erlang:monotonic_time(millisecond),
    signal(OsPid, kill),
    All = read_all(Socket, Answer),
    ?assert(erlang:monotonic_time(millisecond) - Killed < scale(3000)),
    ?assertEqual({Stage, Stage =/= asked}, {Stage, binary:match(All, <<" 101 ">>) =/= nomatch}),
    wait_until(forgotten, fun() ->
        Text = read_all(upgrade(Node, port(Config)), <<>>),
        binary:match(Text, <<" 404 ">>) =/= nomatch orelse Text
    end).

%% The TCP connections at a port that a BEAM has.
sockets(OsPid, Port) ->
    length([Line || Line <- tcp_lines(OsPid), hd(Line) =:= integer_to_list(Port)]).

upgrade(Node, Port) ->
    {ok, Socket} = gen_tcp:connect("localhost", Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, [
        "GET /erl/", atom_to_list(Node), " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: erlang-distribution\r\n\r\n"
    ]),
    Socket.

receive_until(Socket, What, Before) ->
    case binary:match(Before, What) of
        nomatch ->
            {ok, Bytes} = gen_tcp:recv(Socket, 0, scale(10000)),
            receive_until(Socket, What, <<Before/binary, Bytes/binary>>);
        _ ->
            Before
    end.
