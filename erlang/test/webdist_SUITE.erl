%% @doc Distribution over HTTP on real nodes: its three uses, by their command lines; links that
%% outlive the sidecar; names. quic_dist_SUITE and its siblings run over webdist too.
-module(webdist_SUITE).

-export([all/0, suite/0]).
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
    creations_are_random/1,
    names_of_a_host/1,
    epmd_in_mode_compat/1,
    callbacks_of_the_epmd_module/1,
    wrong_cookie/1,
    a_node_that_is_not_there/1,
    bad_options/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_command, [enter/2, expect/3, finish/2, open/2]).
-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, disconnect/2, name/1, ping/2, sidecar/1, start/1, stop/1, wait_log/3
]).
-import(quic_dist_os, [descriptors/1, signal/2]).
-import(quic_dist_run, [ebin/0, unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).
-import(webdist_node, [big/2, ctrl/2, self_hosted/3, tcp_lines/1, webdist/2, webdist/3, webdist/4]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

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
        creations_are_random,
        names_of_a_host,
        epmd_in_mode_compat,
        callbacks_of_the_epmd_module,
        wrong_cookie,
        a_node_that_is_not_there,
        bad_options
    ].

%% A node with the first webdist's second use is its own http-epmd, with that project's carrier. A
%% node with webdist's client finds it, and big messages go through.
self_hosted_on_inet6(Config) -> self_hosted(Config, inet6_tcp).

%% A node that is its own http-epmd may have the carrier inet_tcp, which the first webdist could
%% not serve.
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
    OsPid = sidecar(Node),
    [Line || Line <- tcp_lines(OsPid), lists:member(integer_to_list(Port), Line)].

%% A VM without distribution that proxies, by the seed's command line, for as long as Fun runs.
with_proxy(Config, Options, Fun) ->
    Flags = lists:append([
        ["-webdist", atom_to_list(Key), lists:flatten(io_lib:format("~0tp", [Value]))]
     || {Key, Value} <- [{port, port(Config)} | Options]
    ]),
    Args = ["-noshell", "-pa", ebin(), "-s", "webdist_server"],
    Ready = [
        "-eval",
        "{ok, #{state := holding}} = webdist_server:info(), nonode@nohost = node(),"
        " io:format(\"ready~n\"), \"end\\n\" = io:get_line(\"\"), halt()"
    ],
    Command = open(Args ++ Flags ++ Ready, #{}),
    [] = expect(Command, "ready", 15000),
    Fun(),
    ok = enter(Command, "end\n"),
    ?assertMatch({exit_status, 0, _}, finish(Command, 15000)).

%% A VM without distribution, the first use of the first webdist, asks epmd and copies for stock
%% nodes.
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
    stop(World),
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

%% Either of two webdist nodes connects to the other, which the first webdist could not do.
two_webdist_nodes(Config) ->
    A = webdist(Config, unique("a")),
    B = webdist(Config, unique("b")),
    ?assertMatch(#{state := holding}, call(A, webdist, info, [])),
    ?assertMatch(#{state := registered}, call(B, webdist, info, [])),
    ?assertEqual(pong, ping(A, B)),
    big(A, B),
    disconnect(A, B),
    ?assertEqual(pong, ping(B, A)),
    big(B, A).

%% A request in the form of the first webdist reaches a node.
connect_by_connect(Config) ->
    World = webdist(Config, unique("world")),
    Hello = webdist(Config, unique("hello"), [{method, connect}]),
    ?assertEqual(pong, ping(Hello, World)).

%% Nodes have long names, with an IP address for a host.
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
    [signal(sidecar(Node), kill) || Node <- [A, B]],
    big(A, B),
    ?assertEqual(Before, ctrl(A, B)).

%% A copied link ends with either sidecar, as nodedown, and can be set up again.
copied_links_end_with_the_sidecar(Config) ->
    A = webdist(Config, unique("a"), [{hand_over, false}]),
    B = webdist(Config, unique("b"), [{hand_over, false}]),
    connect(B, A),
    signal(sidecar(A), kill),
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
            [length(descriptors(OsPid)), length(descriptors(sidecar(Node)))]
    end,
    connect(A, B),
    disconnect(A, B),
    Before = [Count(Node) || Node <- [A, B]],
    [
        begin
            connect(From, To),
            disconnect(From, To)
        end
     || _ <- lists:seq(1, 50), {From, To} <- [{A, B}, {B, A}]
    ],
    wait_until({counts, Before}, fun() ->
        After = [Count(Node) || Node <- [A, B]],
        Counts = lists:zip(lists:append(After), lists:append(Before)),
        lists:all(fun({X, Y}) -> X =< Y + 2 end, Counts) orelse After
    end).

%% A node that starts again is another one.
creations_are_random(Config) ->
    Name = unique("again"),
    Creation = fun() ->
        Node = self_hosted(Config, inet_tcp, Name),
        Value = call(Node, fun() -> erlang:system_info(creation) end),
        stop(Node),
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

%% In mode compat webdist_epmd does what erl_epmd does.
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

%% The distribution handshake checks the cookie behind the upgrade.
wrong_cookie(Config) ->
    World = webdist(Config, unique("world")),
    Hello = start(#{
        carrier => webdist,
        name => {short, unique("hello")},
        cookie => another,
        webdist => [{port, port(Config)}]
    }),
    ?assertEqual(pang, ping(Hello, World)),
    _ = wait_log(World, "Connection attempt from", 5000),
    ?assertEqual([], call(World, fun() -> nodes() end)).

%% A node that does not exist is reported at once and in words.
a_node_that_is_not_there(Config) ->
    Hello = webdist(Config, unique("hello")),
    [_, Host] = string:lexemes(atom_to_list(name(Hello)), "@"),
    Before = erlang:monotonic_time(millisecond),
    ?assertEqual(pang, ping(Hello, list_to_atom("nobody@" ++ Host))),
    ?assert(erlang:monotonic_time(millisecond) - Before < scale(2000)),
    _ = wait_log(Hello, "cannot connect to nobody@.*404 Not Found", 1000).

%% A wrong option ends the boot, with a line.
bad_options(_Config) ->
    Library = ebin(),
    Bare = ["-noinput", "-proto_dist", "webdist", "-pa", Library, "-sname", unique("bad")],
    [
        quic_dist_command:boot_fails(Bare ++ ["-webdist", Key, Value], #{}, [
            "webdist: bad option " ++ Key
        ])
     || {Key, Value} <- [{"port", "70000"}, {"mode", "proxy"}, {"colour", "red"}]
    ].
