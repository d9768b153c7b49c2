%% @doc A node tells of all its links, of every carrier, of their ends, and of failed attempts: in
%% the shell, to programs, in the log, on the status page and in the metrics.
-module(quic_dist_links_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([
    a_link_by_fallback/1,
    a_link_over_https/1,
    a_socket_of_a_stock_node/1,
    a_peer_that_asked_for_its_name/1,
    an_unchanged_failure/1,
    ends_in_words/1,
    events_of_a_dead_sidecar/1,
    the_table/1
]).
%% On nodes.
-export([collect/1]).

-import(quic_dist_node, [
    call/2, call/4, connect/2, info/1, log_lines/2, name/1, start/1, wait_log/3
]).
-import(quic_dist_shown, [get/2, printed/2]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, {seconds, scale(120)}}].

all() ->
    [
        a_link_by_fallback,
        a_link_over_https,
        a_socket_of_a_stock_node,
        a_peer_that_asked_for_its_name,
        an_unchanged_failure,
        ends_in_words,
        events_of_a_dead_sidecar,
        the_table
    ].

%% A link by the option fallback is shown with its carrier by both nodes: to programs, as an event,
%% on the status page and in the metrics; and its end too.
a_link_by_fallback(_) ->
    WebPort = quic_dist_run:free_port(),
    B = start(#{
        args => ["-connect_all", "false", "-s", "webdist_server"],
        webdist => [{port, WebPort}, {listen, [https]}]
    }),
    {ok, Silent} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}]),
    {ok, SilentPort} = inet:port(Silent),
    A = start(#{
        args => ["-connect_all", "false"],
        quic_dist => [
            {nodes, [{name(B), "127.0.0.1", SilentPort}]}, {fallback, [https]}, {status_port, 0}
        ],
        webdist => [{port, WebPort}]
    }),
    [NodeA, NodeB] = [name(Node) || Node <- [A, B]],
    [collecting(Node) || Node <- [A, B]],
    true = call(A, net_kernel, connect_node, [NodeB]),
    Url = iolist_to_binary(["https://127.0.0.1:", integer_to_list(WebPort)]),
    OfB = call(A, quic_dist, info, [NodeB]),
    ?assertMatch(
        #{carrier := https, direction := dialled, identity := cookie, url := Url, state := up}, OfB
    ),
    #{address := {{127, 0, 0, 1}, WebPort}, sent := #{bytes := Sent}, uptime := Up} = OfB,
    ?assert(Sent > 0 andalso Up >= 0),
    ?assertMatch(
        #{carrier := https, direction := accepted, identity := cookie, queued := _},
        call(B, quic_dist, info, [NodeA])
    ),
    ?assertMatch(#{links := #{https := 1}, peers := #{NodeB := _}}, info(A)),
    ?assertMatch(#{node := NodeB, carrier := https, url := Url}, event(A, up)),
    ?assertMatch(#{node := NodeA, carrier := https, direction := accepted}, event(B, up)),
    Page = wait_until(page, fun() ->
        case info(A) of
            #{status := Status} when is_binary(Status) -> {ok, Status};
            _ -> false
        end
    end),
    shown(Page, "now.json", ["\"carrier\":\"https\"", atom_to_list(NodeB)]),
    shown(Page, "metrics", [
        "quic_dist_links{carrier=\"https\"} 1",
        "quic_dist_links{carrier=\"quic\"} 0",
        "quic_dist_peers 1",
        "quic_dist_peer_received_bytes_total{peer=\"" ++ atom_to_list(NodeB)
    ]),
    true = call(A, erlang, disconnect_node, [NodeB]),
    ?assertMatch(#{node := NodeB, carrier := https, uptime := _}, event(A, down)),
    ?assertMatch(#{node := NodeA, carrier := https}, event(B, down)),
    wait_until(gone, fun() -> maps:get(links, info(A)) =:= #{} end),
    shown(Page, "metrics", ["quic_dist_links{carrier=\"https\"} 0", "quic_dist_peers 0"]),
    shown(Page, "now.json", ["\"kind\":\"down\"", "\"node\":\"" ++ atom_to_list(NodeB)]).

%% Links over HTTP are shown by nodes that have no QUIC, those whose sockets were handed over and
%% those that are copied.
a_link_over_https(_) ->
    [
        begin
            Port = quic_dist_run:free_port(),
            Options = [{port, Port}, {listen, [Listen]}, {carriers, [Carrier]}],
            [B, A] = [
                start(#{
                    carrier => webdist,
                    name => {long, quic_dist_run:unique("n") ++ "@127.0.0.1"},
                    webdist => Options
                })
             || _ <- [b, a]
            ],
            connect(A, B),
            ?assertMatch(
                #{carrier := Carrier, direction := dialled, identity := Identity},
                call(A, quic_dist, info, [name(B)])
            ),
            OfA = call(B, quic_dist, info, [name(A)]),
            ?assertMatch(
                #{carrier := Carrier, direction := accepted, identity := Identity}, OfA
            ),
            #{received := #{bytes := Received, packets := Packets}} = OfA,
            ?assert(Received > Packets andalso Packets > 0),
            quic_dist_node:stop_all()
        end
     || {Carrier, Listen, Identity} <- [
            {http, http, handshake},
            {ws, http, handshake},
            {wss, https, cookie},
            {h2, https, cookie}
        ]
    ].

%% A stock node that is reached by the web port shows whose connections came by that.
a_socket_of_a_stock_node(_) ->
    Port = quic_dist_run:free_port(),
    Name = fun() -> {long, quic_dist_run:unique("n") ++ "@127.0.0.1"} end,
    B = start(#{
        carrier => inet_tcp,
        name => Name(),
        args => ["-epmd_module", "webdist_epmd", "-s", "webdist_server"],
        webdist => [{port, Port}, {mode, router}]
    }),
    A = start(#{carrier => webdist, name => Name(), webdist => [{port, Port}]}),
    connect(A, B),
    ?assertMatch(
        #{carrier := http, direction := accepted, sent := #{bytes := _}},
        call(B, quic_dist, info, [name(A)])
    ).

%% A peer that asked for a name is shown by the name that it got, as in nodes/1. So is each of two
%% peers of one host, and no atom is made of what a peer claimed.
a_peer_that_asked_for_its_name(_) ->
    B = start(#{}),
    collecting(B),
    Asking = [
        start(#{name => none, args => ["-name", "undefined@127.0.0.1", "-no_epmd"]})
     || _ <- [1, 2]
    ],
    [true = call(A, net_kernel, connect_node, [name(B)]) || A <- Asking],
    #{peers := Peers} = wait_until(two_peers, fun() ->
        case info(B) of
            #{peers := #{} = Two} = Info when map_size(Two) =:= 2 -> {ok, Info};
            _ -> false
        end
    end),
    ?assertEqual(lists:sort(call(B, erlang, nodes, [connected])), lists:sort(maps:keys(Peers))),
    ?assertEqual(
        lists:sort(maps:keys(Peers)), lists:sort([maps:get(node, event(B, up)) || _ <- Asking])
    ).

%% Attempts that fail for one and the same reason are one line of the log, and an event each. The
%% log says when an attempt succeeds.
an_unchanged_failure(_) ->
    A = start(#{}),
    collecting(A),
    Port = quic_dist_run:free_port(),
    Text = integer_to_list(Port) ++ "@127.0.0.1",
    Node = list_to_atom(Text),
    [false = call(A, net_kernel, connect_node, [Node]) || _ <- lists:seq(1, 5)],
    [#{node := Node} = event(A, connect_failed) || _ <- lists:seq(1, 5)],
    ?assertMatch([_], log_lines(A, "cannot connect to " ++ Text)),
    %% The name is said once.
    [Line] = log_lines(A, "cannot connect to " ++ Text),
    ?assertMatch([_, _], string:split(Line, Text, all)),
    B = start(#{name => none, args => ["-name", Text, "-no_epmd"]}),
    connect(A, B),
    ?assertMatch(
        [_], wait_log(A, "^notice .*connected to " ++ Text ++ " failed_attempts=5", 5000)
    ).

%% The log says of a link that has ended which it was, which side ended it and when.
ends_in_words(_) ->
    [A, B] = [start(#{log_level => info}) || _ <- [a, b]],
    connect(A, B),
    true = call(A, erlang, disconnect_node, [name(B)]),
    [NodeA, NodeB] = [atom_to_list(name(Node)) || Node <- [A, B]],
    Local = "link to " ++ NodeB ++ " closed by this node after [0-9.]+ s",
    ?assertMatch([_], wait_log(A, "^info .*" ++ Local, 5000)),
    Closed = "link to " ++ NodeA ++ " closed by it after [0-9.]+ s",
    ?assertMatch([_], wait_log(B, "^info .*" ++ Closed, 5000)),
    ?assertEqual([], log_lines(B, "EOF")).

%% The page of the next sidecar has the events of the former one.
events_of_a_dead_sidecar(_) ->
    A = start(#{quic_dist => [{status_port, 0}]}),
    B = start(#{}),
    connect(A, B),
    #{os_pid := Sidecar} = info(A),
    quic_dist_os:signal(Sidecar, kill),
    Page = wait_until(next_page, fun() ->
        case info(A) of
            #{os_pid := Next, status := Status} when Next =/= Sidecar, is_binary(Status) ->
                {ok, Status};
            _ -> false
        end
    end),
    shown(Page, "now.json", ["\"kind\":\"sidecar_down\"", "\"kind\":\"down\""]).

%% The table goes to the group leader of the caller, on a remote node as well.
the_table(_) ->
    [A, B] = [start(#{}) || _ <- [a, b]],
    connect(A, B),
    [NodeA, NodeB] = [name(Node) || Node <- [A, B]],
    Row = fun(Node) -> atom_to_list(Node) ++ " quic    " end,
    ?assertMatch({match, _}, re:run(printed(A, fun() -> quic_dist:i() end), Row(NodeB))),
    Remote = printed(A, fun() -> ok = rpc:call(NodeB, quic_dist, i, []) end),
    ?assertMatch({match, _}, re:run(Remote, Row(NodeA))).

%% The page

%% Waits until the answer to this request has these parts.
shown(Url, Path, Parts) ->
    wait_until({shown, Path, Parts}, fun() ->
        {200, Text} = get(Url, Path),
        lists:all(fun(Part) -> string:find(Text, Part) =/= nomatch end, Parts)
    end).

%% Collectors

collecting(Node) ->
    call(Node, fun() ->
        Caller = self(),
        Pid = spawn(fun() -> collect(Caller) end),
        receive
            {Pid, ready} -> true = register(?MODULE, Pid)
        end
    end).

%% @doc The collector's life.
collect(Caller) ->
    {ok, _} = quic_dist:subscribe(all),
    Caller ! {self(), ready},
    collected([]).

collected(Events) ->
    receive
        {quic_dist, _, Event} ->
            collected(Events ++ [Event]);
        {take, Kind, Caller} ->
            case [Event || #{event := Of} = Event <- Events, Of =:= Kind] of
                [First | _] ->
                    Caller ! {self(), {ok, First}},
                    collected(Events -- [First]);
                [] ->
                    Caller ! {self(), false},
                    collected(Events)
            end
    end.

%% The first event of this kind, which then is not there any more.
event(Node, Kind) ->
    wait_until({event, Kind}, fun() ->
        call(Node, fun() ->
            Pid = whereis(?MODULE),
            Pid ! {take, Kind, self()},
            receive
                {Pid, Found} -> Found
            end
        end)
    end).

%% Nodes
