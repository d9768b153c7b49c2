%% @doc Distribution over HTTP on real nodes: the three uses, by their command lines; one port for
%% all nodes of a host; connections that outlive the sidecar; names and limits. What distribution
%% itself promises is in quic_dist_SUITE, which runs over webdist too.
-module(webdist_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    self_hosted_on_inet6/1,
    self_hosted_on_inet/1,
    proxy_without_distribution/1,
    proxy_refuses_other_hosts/1,
    two_webdist_nodes/1,
    connect_by_connect/1,
    long_names/1,
    a_stock_node_with_a_web_port/1,
    links_outlive_the_sidecars/1,
    copied_links_end_with_the_sidecar/1,
    descriptors_are_closed/1,
    the_port_is_taken_over/1,
    many_nodes_on_one_port/1,
    a_sidecar_that_dies_is_registered_again/1,
    a_name_in_use/1,
    creations_are_random/1,
    names_of_a_host/1,
    epmd_in_mode_compat/1,
    callbacks_of_the_epmd_module/1,
    a_port_of_another_program/1,
    wrong_cookie/1,
    a_node_that_is_not_there/1,
    bad_options/1,
    one_port_for_everything/1,
    stopped_and_started/1,
    a_child_of_an_application/1,
    what_is_wanted_is_remembered/1,
    a_node_that_is_killed_in_an_upgrade/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, call/4, connect/2, scale/1, start/1, wait_log/3, wait_until/2]).

suite() ->
    [{timetrap, scale(90000)}].

all() ->
    [
        self_hosted_on_inet6,
        self_hosted_on_inet,
        proxy_without_distribution,
        proxy_refuses_other_hosts,
        two_webdist_nodes,
        connect_by_connect,
        long_names,
        a_stock_node_with_a_web_port,
        links_outlive_the_sidecars,
        copied_links_end_with_the_sidecar,
        descriptors_are_closed,
        the_port_is_taken_over,
        many_nodes_on_one_port,
        a_sidecar_that_dies_is_registered_again,
        a_name_in_use,
        creations_are_random,
        names_of_a_host,
        epmd_in_mode_compat,
        callbacks_of_the_epmd_module,
        a_port_of_another_program,
        wrong_cookie,
        a_node_that_is_not_there,
        bad_options,
        one_port_for_everything,
        stopped_and_started,
        a_child_of_an_application,
        what_is_wanted_is_remembered,
        a_node_that_is_killed_in_an_upgrade
    ].

init_per_suite(Config) ->
    Config.

end_per_suite(_Config) ->
    quic_dist_node:end_run().

init_per_testcase(_Case, Config) ->
    [{port, quic_dist_node:free_port()} | Config].

end_per_testcase(_Case, Config) ->
    quic_dist_node:end_case(Config).

port(Config) -> proplists:get_value(port, Config).

%% A node by the seed's command line: its own http-epmd.
self_hosted(Config, Carrier, Name) ->
    self_hosted(Config, Carrier, Name, []).

self_hosted(Config, Carrier, Name, Args) ->
    start(#{
        carrier => Carrier,
        name => {short, Name},
        args => ["-epmd_module", "webdist_epmd", "-s", "webdist_server" | Args],
        webdist => [{mode, router}, {port, port(Config)}]
    }).

%% Likewise, a node that connects by webdist.
webdist(Config, Name) -> webdist(Config, Name, []).

webdist(Config, Name, Options) -> webdist(Config, Name, Options, []).

webdist(Config, Name, Options, Args) ->
    start(#{
        carrier => webdist,
        name => {short, Name},
        webdist => [{port, port(Config)} | Options],
        args => Args
    }).

unique(Name) -> quic_dist_node:unique(Name).

name(#{node := Node}) -> Node.

ping(Node, #{node := To}) -> ping(Node, To);
ping(Node, To) -> call(Node, net_adm, ping, [To]).

%% 20 MB there and back.
big(A, #{node := B}) ->
    Size = 20000000,
    Bytes = call(A, fun() ->
        Sent = binary:copy(<<"x">>, Size),
        Sent =:= rpc:call(B, erlang, iolist_to_binary, [[Sent]])
    end),
    ?assert(Bytes).

%% The port that carries the connection.
ctrl(A, #{node := B}) ->
    call(A, fun() -> proplists:get_value(B, erlang:system_info(dist_ctrl)) end).

%% The seed's second use: a node that is its own http-epmd, with the carrier that the seed has; a
%% node with the seed's client finds it, and big messages go through.
self_hosted_on_inet6(Config) -> self_hosted(Config, inet6_tcp).

%% The same with the carrier that the seed's server could not serve.
self_hosted_on_inet(Config) -> self_hosted(Config, inet_tcp).

self_hosted(Config, Carrier) ->
    World = self_hosted(Config, Carrier, unique("world")),
    Hello = webdist(Config, unique("hello")),
    ?assertEqual(pong, ping(Hello, World)),
    big(Hello, World),
    ?assert(is_port(ctrl(World, Hello))),
    ?assertMatch(
        #{state := holding, take := descriptor}, call(World, webdist, info, [])
    ),
    %% No proxying: neither sidecar has a connection.
    [?assertEqual([], established(Node, port(Config))) || Node <- [World, Hello]].

%% TCP connections at a port that a node's sidecar has.
established(Node, Port) ->
    OsPid = quic_dist_node:sidecar(Node),
    [Line || Line <- tcp_lines(OsPid), lists:member(integer_to_list(Port), Line)].

%% Local and remote port of each established TCP socket of a process, as decimal text.
tcp_lines(OsPid) ->
    Inodes = socket_inodes(OsPid),
    [
        [port_of(Local), port_of(Remote)]
     || File <- ["/proc/net/tcp", "/proc/net/tcp6"],
        {ok, Text} <- [file:read_file(File)],
        Line <- tl(string:lexemes(binary_to_list(Text), "\n")),
        [_, Local, Remote, "01", _, _, _, _, _, Inode | _] <- [string:lexemes(Line, " ")],
        lists:member(Inode, Inodes)
    ].

port_of(Hex) ->
    [_, Port] = string:lexemes(Hex, ":"),
    integer_to_list(list_to_integer(Port, 16)).

socket_inodes(OsPid) ->
    [
        lists:droplast(Inode)
     || {_, "socket:[" ++ Inode} <- descriptors(OsPid)
    ].

descriptors(OsPid) ->
    Dir = "/proc/" ++ integer_to_list(OsPid) ++ "/fd",
    {ok, Names} = file:list_dir(Dir),
    [{Name, Link} || Name <- Names, {ok, Link} <- [file:read_link(filename:join(Dir, Name))]].

%% A VM without distribution that proxies, by the seed's command line, for as long as Fun runs.
with_proxy(Config, Options, Fun) ->
    Flags = lists:append([
        ["-webdist", atom_to_list(Key), lists:flatten(io_lib:format("~0tp", [Value]))]
     || {Key, Value} <- [{port, port(Config)} | Options]
    ]),
    Args = ["-noshell", "-pa", quic_dist_node:ebin(), "-s", "webdist_server"],
    Ready = [
        "-eval",
        "{ok, #{state := holding}} = webdist_server:info(), nonode@nohost = node(),"
        " io:format(\"ready~n\"), \"end\\n\" = io:get_line(\"\"), halt()"
    ],
    Command = quic_dist_node:open(Args ++ Flags ++ Ready, #{}),
    [] = quic_dist_node:expect(Command, "ready", 15000),
    Fun(),
    ok = quic_dist_node:enter(Command, "end\n"),
    ?assertMatch({exit_status, 0, _}, quic_dist_node:finish(Command, 15000)).

%% The seed's first use: a VM without distribution asks epmd and copies, for stock nodes.
proxy_without_distribution(Config) ->
    with_proxy(Config, [], fun() -> through_the_proxy(Config) end).

through_the_proxy(Config) ->
    World = start(#{carrier => inet_tcp, name => {short, unique("world")}}),
    Hello = webdist_alone(Config),
    ?assertEqual(pong, ping(Hello, World)),
    big(Hello, World),
    big(World, Hello),
    Node = name(World),
    Monitor = call(Hello, fun() -> monitor_node(Node, true) end),
    ?assert(Monitor),
    quic_dist_node:stop(World),
    wait_until(nodedown, fun() -> call(Hello, fun() -> nodes() end) =:= [] end).

%% A webdist node whose port another process of the host holds.
webdist_alone(Config) ->
    Hello = webdist(Config, unique("hello")),
    ?assertMatch(#{state := registered}, call(Hello, webdist, info, [])),
    Hello.

%% The proxy serves its own host's nodes; the allow list says otherwise.
proxy_refuses_other_hosts(Config) ->
    with_proxy(Config, [{allow, ["allowed_*"]}], fun() -> past_the_list(Config) end).

past_the_list(Config) ->
    Allowed = start(#{carrier => inet_tcp, name => {short, unique("allowed")}}),
    Other = start(#{carrier => inet_tcp, name => {short, unique("other")}}),
    Hello = webdist_alone(Config),
    ?assertEqual(pong, ping(Hello, Allowed)),
    ?assertEqual(pang, ping(Hello, Other)),
    Line = "cannot connect to other_.*404 Not Found",
    ?assertMatch([_ | _], wait_log(Hello, Line, 5000)).

%% The seed's third use, and what it could not do: either of two nodes connects to the other.
two_webdist_nodes(Config) ->
    A = webdist(Config, unique("a")),
    B = webdist(Config, unique("b")),
    ?assertMatch(#{state := holding}, call(A, webdist, info, [])),
    ?assertMatch(#{state := registered}, call(B, webdist, info, [])),
    ?assertEqual(pong, ping(A, B)),
    big(A, B),
    quic_dist_node:disconnect(A, B),
    ?assertEqual(pong, ping(B, A)),
    big(B, A).

%% The first webdist's form of the request reaches a node.
connect_by_connect(Config) ->
    World = webdist(Config, unique("world")),
    Hello = webdist(Config, unique("hello"), [{method, connect}]),
    ?assertEqual(pong, ping(Hello, World)).

%% Long names, with an IP address for a host.
long_names(Config) ->
    [A, B] = [
        start(#{
            carrier => webdist,
            name => {long, unique("long") ++ "@127.0.0.1"},
            webdist => [{port, port(Config)}]
        })
     || _ <- [1, 2]
    ],
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(pang, ping(A, 'short@name')).

%% A stock node that also starts the server takes webdist's connections itself.
a_stock_node_with_a_web_port(Config) ->
    World = start(#{
        carrier => inet_tcp,
        name => {short, unique("world")},
        args => ["-s", "webdist_server"],
        webdist => [{port, port(Config)}]
    }),
    Stock = start(#{carrier => inet_tcp, name => {short, unique("stock")}}),
    Hello = webdist(Config, unique("hello")),
    ?assertEqual(pong, ping(Stock, World)),
    ?assertEqual(pong, ping(Hello, World)),
    ?assertEqual([], established(World, port(Config))).

%% Killing both sidecars, one of which holds the port, does not touch a link that was handed over.
links_outlive_the_sidecars(Config) ->
    A = webdist(Config, unique("a")),
    B = webdist(Config, unique("b")),
    connect(B, A),
    Before = ctrl(A, B),
    [quic_dist_node:signal(quic_dist_node:sidecar(Node), kill) || Node <- [A, B]],
    big(A, B),
    ?assertEqual(Before, ctrl(A, B)).

%% A copied link ends with either sidecar, as nodedown, and comes again.
copied_links_end_with_the_sidecar(Config) ->
    A = webdist(Config, unique("a"), [{hand_over, false}]),
    B = webdist(Config, unique("b"), [{hand_over, false}]),
    connect(B, A),
    quic_dist_node:signal(quic_dist_node:sidecar(A), kill),
    NameA = name(A),
    wait_until(nodedown, fun() -> not lists:member(NameA, call(B, fun() -> nodes() end)) end),
    wait_until(connected, fun() -> ping(B, A) =:= pong end).

%% A hundred connections leave no descriptor, port or process in either node.
descriptors_are_closed(Config) ->
    %% Else OTP's global now and then connects again what was disconnected, or cuts what is
    %% connected again, over TCP too.
    Args = ["-kernel", "dist_auto_connect", "never", "-connect_all", "false"],
    [A, B] = [webdist(Config, unique(Name), [], Args) || Name <- ["a", "b"]],
    Count = fun(#{os_pid := OsPid} = Node) ->
        call(Node, fun() -> [erlang:system_info(port_count), length(processes())] end) ++
            [length(descriptors(OsPid)), length(descriptors(quic_dist_node:sidecar(Node)))]
    end,
    connect(A, B),
    quic_dist_node:disconnect(A, B),
    Before = [Count(Node) || Node <- [A, B]],
    [
        begin
            connect(From, To),
            quic_dist_node:disconnect(From, To)
        end
     || _ <- lists:seq(1, 50), {From, To} <- [{A, B}, {B, A}]
    ],
    wait_until({counts, Before}, fun() ->
        After = [Count(Node) || Node <- [A, B]],
        Counts = lists:zip(lists:append(After), lists:append(Before)),
        lists:all(fun({X, Y}) -> X =< Y + 2 end, Counts) orelse After
    end).

%% When the node that holds the port is killed another takes it over, and all others are reached
%% through that; links go on.
the_port_is_taken_over(Config) ->
    %% Else global would cut links when it sees one node lost.
    Alone = ["-connect_all", "false"],
    #{os_pid := OsPid} = Holder = self_hosted(Config, inet_tcp, unique("holder"), Alone),
    Others = [self_hosted(Config, inet_tcp, unique("other"), Alone) || _ <- [1, 2]],
    Hello = webdist(Config, unique("hello"), [], Alone),
    [connect(Hello, Other) || Other <- Others],
    Ports = [ctrl(Hello, Other) || Other <- Others],
    quic_dist_node:signal(OsPid, kill),
    wait_until(taken_over, fun() ->
        States = [maps:get(state, call(Node, webdist, info, [])) || Node <- [Hello | Others]],
        lists:sort(States) =:= [holding, registered, registered] orelse States
    end),
    ?assertEqual(Ports, [ctrl(Hello, Other) || Other <- Others]),
    [quic_dist_node:disconnect(Hello, Other) || Other <- Others],
    %% One may hold the port before the next has seen that its registration is gone.
    [wait_until({found, Other}, fun() -> ping(Hello, Other) =:= pong end) || Other <- Others],
    quic_dist_node:stop(Holder).

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

%% The next sidecar does what the last one did.
a_sidecar_that_dies_is_registered_again(Config) ->
    A = webdist(Config, unique("a")),
    B = self_hosted(Config, inet_tcp, unique("b")),
    Hello = webdist(Config, unique("hello")),
    [
        begin
            quic_dist_node:signal(quic_dist_node:sidecar(Node), kill),
            wait_until(reached, fun() -> ping(Hello, Node) =:= pong end),
            quic_dist_node:disconnect(Hello, Node)
        end
     || Node <- [A, B, A, B]
    ].

%% A second node of a name does not start, whatever its carrier; once the first is gone it does.
a_name_in_use(Config) ->
    Name = unique("same"),
    First = self_hosted(Config, inet_tcp, Name),
    ?assertExit({boot_failed, _}, self_hosted(Config, inet_tcp, Name)),
    ?assertExit({boot_failed, _}, webdist(Config, Name)),
    quic_dist_node:stop(First),
    _ = webdist(Config, Name).

%% A node that starts again is another one.
creations_are_random(Config) ->
    Name = unique("again"),
    Creation = fun() ->
        Node = self_hosted(Config, inet_tcp, Name),
        Value = call(Node, fun() -> erlang:system_info(creation) end),
        quic_dist_node:stop(Node),
        Value
    end,
    Creations = [Creation() || _ <- [1, 2, 3]],
    ?assertEqual(3, length(lists:usort(Creations))),
    [?assert(C > 3) || C <- Creations].

%% net_adm:names/0 and port_please/2 know the nodes of the host, and stock TCP between them needs no
%% epmd.
names_of_a_host(Config) ->
    NameA = unique("a"),
    NameB = unique("b"),
    A = self_hosted(Config, inet_tcp, NameA),
    B = self_hosted(Config, inet_tcp, NameB),
    {ok, Names} = call(B, net_adm, names, []),
    ?assertEqual(lists:sort([NameA, NameB]), lists:sort([Name || {Name, _} <- Names])),
    {_, Port} = lists:keyfind(NameA, 1, Names),
    ?assertMatch({port, Port, 6}, call(B, webdist_epmd, port_please, [NameA, {127, 0, 0, 1}])),
    ?assertEqual(noport, call(B, webdist_epmd, port_please, ["nobody", {127, 0, 0, 1}])),
    ?assertEqual(pong, ping(B, A)),
    ?assertEqual(noport, call(B, erl_epmd, port_please, [NameA, {127, 0, 0, 1}])).

%% In mode compat the module is erl_epmd.
epmd_in_mode_compat(Config) ->
    NameA = unique("a"),
    A = start(#{
        carrier => inet_tcp,
        name => {short, NameA},
        args => ["-epmd_module", "webdist_epmd"],
        webdist => [{port, port(Config)}]
    }),
    B = start(#{carrier => inet_tcp, name => {short, unique("b")}}),
    ?assertEqual(pong, ping(B, A)),
    {ok, Names} = call(A, net_adm, names, []),
    ?assert(lists:keymember(NameA, 1, Names)).

%% Every function that the carriers of this OTP call in an epmd module is there.
callbacks_of_the_epmd_module(_Config) ->
    {module, _} = code:ensure_loaded(webdist_epmd),
    Wanted = [
        {start_link, 0}, {register_node, 2}, {register_node, 3}, {listen_port_please, 2},
        {address_please, 3}, {port_please, 2}, {port_please, 3}, {names, 0}, {names, 1}, {stop, 0}
    ],
    ?assertEqual([], Wanted -- webdist_epmd:module_info(exports)),
    ?assertEqual([], Wanted -- erl_epmd:module_info(exports)).

%% A node whose port another program has still starts, says so, connects to others, and takes the
%% port when it is free.
a_port_of_another_program(Config) ->
    {ok, Other} = gen_tcp:listen(port(Config), [{reuseaddr, true}]),
    A = webdist(Config, unique("a")),
    Text = "TCP port " ++ integer_to_list(port(Config)) ++ " is taken",
    _ = quic_dist_node:wait_log(A, "cannot be connected to over HTTP: " ++ Text, 1000),
    gen_tcp:close(Other),
    wait_until(held, fun() -> maps:get(state, call(A, webdist, info, [])) =:= holding end).

%% Behind the upgrade there is the cookie.
wrong_cookie(Config) ->
    World = webdist(Config, unique("world")),
    Hello = start(#{
        carrier => webdist,
        name => {short, unique("hello")},
        cookie => another,
        webdist => [{port, port(Config)}]
    }),
    ?assertEqual(pang, ping(Hello, World)),
    _ = quic_dist_node:wait_log(World, "Connection attempt from", 5000),
    ?assertEqual([], call(World, fun() -> nodes() end)).

%% A node that is not there is known not to be, at once and in words.
a_node_that_is_not_there(Config) ->
    Hello = webdist(Config, unique("hello")),
    [_, Host] = string:lexemes(atom_to_list(name(Hello)), "@"),
    Before = erlang:monotonic_time(millisecond),
    ?assertEqual(pang, ping(Hello, list_to_atom("nobody@" ++ Host))),
    ?assert(erlang:monotonic_time(millisecond) - Before < scale(2000)),
    _ = quic_dist_node:wait_log(Hello, "cannot connect to nobody@.*404 Not Found", 1000).

%% A wrong option ends the boot, with a line.
bad_options(_Config) ->
    [
        begin
            Args = [
                "-noinput", "-sname", unique("bad"), "-proto_dist", "webdist", "-pa",
                quic_dist_node:ebin(), "-webdist", Key, Value
            ],
            {exit_status, 1, Output} = quic_dist_node:run(Args, #{}),
            Expected = "webdist: bad option " ++ Key,
            ?assertMatch({_, true}, {Output, string:find(Output, Expected) =/= nomatch})
        end
     || {Key, Value} <- [{"port", "70000"}, {"mode", "proxy"}, {"colour", "red"}]
    ].

%% Pages of the application's own web server come from the port that the node is reached by, and
%% each request for a node is a line of the log.
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
    _ = quic_dist_node:wait_log(World, Line ++ " .*status=426", 5000),
    _ = quic_dist_node:wait_log(World, Line ++ "@.*status=101", 5000).

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

%% Distribution that is stopped gives the port up; started again, it is reached again.
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

%% The port may be part of an application's supervision tree: it is held from the child's start, or
%% from when it is free, to the child's end.
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
    _ = quic_dist_node:wait_log(A, "^warning .*the web port: TCP port", 5000),
    gen_tcp:close(Other),
    wait_until(held, fun() -> Holds(A) end),
    Hello = webdist(Config, unique("hello")),
    ?assertEqual(pong, ping(Hello, A)),
    call(A, fun() -> ok = supervisor:terminate_child(kernel_safe_sup, webdist_sup) end),
    wait_until(taken_over, fun() -> Holds(Hello) end),
    ?assertEqual(pong, ping(Hello, A)).

%% What is wanted at the port outlives the process that knows it, and the sidecar after that.
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
    quic_dist_node:signal(quic_dist_node:sidecar(A), kill),
    wait_until(reached, fun() -> ping(Hello, A) =:= pong end).

%% A node that is killed anywhere in an upgrade leaves its client with an end, and nothing behind:
%% the node that holds the port goes on, and no longer knows it.
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
        asked -> quic_dist_node:signal(OsPid, stop);
        _ -> ok = call(World, sys, suspend, [net_kernel])
    end,
    Socket = upgrade(Node, port(Config)),
    Answer =
        case Stage of
            asked ->
                Line = ["path=/erl/", atom_to_list(Node), " .*status=101"],
                _ = quic_dist_node:wait_log(Holder, Line, 5000),
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
    quic_dist_node:signal(OsPid, kill),
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
