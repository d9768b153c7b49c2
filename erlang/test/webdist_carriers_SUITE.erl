%% @doc Links over TLS, WebSocket, HTTP/2 and HTTP/3 connect real nodes: the cases assert what gets
%% in by each carrier, what does not, and the way back to QUIC. Go tests cover the wire itself.
-module(webdist_carriers_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_group/2, end_per_group/2]).
-export([
    a_link/1,
    many_nodes/1,
    last_words/1,
    wrong_cookie/1,
    another_name/1,
    certificates/1,
    allow/1,
    stock_nodes/1,
    order/1,
    no_way_but_proof/1,
    certificates_in_clear/1,
    allow_in_clear/1,
    insecure_options_are_said/1,
    one_port_number/1,
    fallback/1,
    fallback_not_for_strangers/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-import(quic_dist_fixtures, [cert/1]).
-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [call/2, call/4, log_lines/2, name/1, ping/2, start/1, wait_log/3]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [{group, Carrier} || Carrier <- [ws, https, wss, h2, h3]] ++
        [stock_nodes, order, no_way_but_proof, certificates_in_clear, allow_in_clear] ++
        [insecure_options_are_said] ++
        [one_port_number, fallback, fallback_not_for_strangers].

groups() ->
    %% What the carriers have in common is tried once; the whole on every carrier is Go's.
    [
        {ws, [], [a_link, many_nodes]},
        {https, [], [
            a_link, many_nodes, last_words, another_name, wrong_cookie, certificates, allow
        ]},
        {wss, [], [a_link, wrong_cookie]},
        {h2, [], [a_link, last_words]},
        {h3, [], [a_link, last_words, wrong_cookie, certificates, allow]}
    ].

init_per_group(Carrier, Config) -> [{carrier, Carrier} | Config].

end_per_group(_Carrier, _Config) -> ok.

carrier(Config) -> proplists:get_value(carrier, Config).
%% A node that is reached by the group's carrier, and connects by it.
node(Config, Options) ->
    node(carrier(Config), Config, Options).

%% HTTP/3 is at the UDP port of a node of the other carrier, at which it is dialled by its number.
node(h3, _Config, Options) ->
    Port = quic_dist_run:free_port(),
    Name = integer_to_list(Port) ++ "@127.0.0.1",
    with(Options, #{
        carrier => quic,
        name => none,
        args => ["-name", Name, "-no_epmd", "-s", "webdist_server"],
        webdist => [{port, Port}, {listen, [https]}, {h3, true}, {carriers, [h3]}]
    });
node(Carrier, Config, Options) ->
    Listen =
        case Carrier of
            ws -> [http];
            _ -> [https]
        end,
    with(Options, #{
        carrier => webdist,
        name => {long, unique("n") ++ "@127.0.0.1"},
        webdist => [{port, port(Config)}, {listen, Listen}, {carriers, [Carrier]}]
    }).

%% Such a node at a port, and with carriers, in clear unless it is told otherwise.
in_clear(Config, Options) ->
    with(Options, #{
        carrier => webdist,
        name => {long, unique("n") ++ "@127.0.0.1"},
        webdist => [{port, port(Config)}]
    }).

%% Nothing but the cases makes connections.
with(Options, Base) ->
    Both = [args, quic_dist, webdist],
    Lists = [{Key, maps:get(Key, Base, []) ++ maps:get(Key, Options, [])} || Key <- Both],
    Merged = maps:merge(maps:merge(Base, Options), maps:from_list(Lists)),
    start(Merged#{args := ["-connect_all", "false" | maps:get(args, Merged)]}).

web_port(#{node := Node}) ->
    [Port, Host] = string:lexemes(atom_to_list(Node), "@"),
    {Host, list_to_integer(Port)}.

%% 20 MB there and back.
big(A, #{node := B}) ->
    Bytes = call(A, fun() ->
        Sent = binary:copy(<<"x">>, 20000000),
        Sent =:= rpc:call(B, erlang, iolist_to_binary, [[Sent]])
    end),
    ?assert(Bytes).

%% Two nodes, and connecting them from the first.
pair(Config) -> pair(Config, #{}, #{}).

pair(Config, OptionsA, OptionsB) ->
    %% The second holds the port, where they share one.
    B = node(Config, OptionsB),
    A = node(Config, reaching(carrier(Config), B, OptionsA)),
    {A, B}.

%% A node of -proto_dist quic gets there by HTTP/3 since QUIC's own way is closed to it.
reaching(h3, #{node := Node} = B, Options) ->
    {_, Port} = web_port(B),
    Silent = quic_dist_run:free_port(),
    QuicDist = [{nodes, [{Node, "127.0.0.1", Silent}]}, {fallback, [h3]}],
    Url = "h3://127.0.0.1:" ++ integer_to_list(Port),
    Options#{
        quic_dist => QuicDist ++ maps:get(quic_dist, Options, []),
        webdist => [{urls, [{atom_to_list(Node), Url}]}]
    };
reaching(_, _, Options) ->
    Options.

%% Two nodes connect, exchange big messages, and connect again.
a_link(Config) ->
    {A, B} = pair(Config),
    [
        begin
            ?assertEqual(pong, ping(A, B)),
            big(A, B),
            quic_dist_node:disconnect(A, B)
        end
     || _ <- [1, 2]
    ],
    ?assertEqual(pong, ping(A, B)).

%% Nodes that share a port are each reached by it, from the holder's host and from the others.
many_nodes(Config) ->
    [A, B, C] = [node(Config, #{}) || _ <- [1, 2, 3]],
    [?assertEqual(pong, ping(From, To)) || {From, To} <- [{A, B}, {C, B}, {C, A}]],
    big(C, B).

%% Messages that a node sends before it halts arrive, and then the nodedown.
last_words(Config) ->
    {A, B} = pair(Config),
    ?assertEqual(pong, ping(A, B)),
    Self = call(B, fun() ->
        Pid = spawn(fun Loop() ->
            receive
                Message ->
                    put(all, [
                        Message
                        | case get(all) of
                            undefined -> [];
                            All -> All
                        end
                    ]),
                    Loop()
            end
        end),
        Pid
    end),
    quic_dist_node:cast(A, fun() ->
        [Self ! N || N <- lists:seq(1, 1000)],
        Self ! binary:copy(<<"z">>, 3000000),
        init:stop()
    end),
    wait_until(all, fun() ->
        Seen = call(B, fun() -> {dictionary, D} = process_info(Self, dictionary), D end),
        All = proplists:get_value(all, Seen, []),
        length([N || N <- All, is_integer(N)]) =:= 1000 andalso
            [byte_size(M) || M <- All, is_binary(M)] =:= [3000000]
    end),
    wait_until(nodedown, fun() -> call(B, fun() -> nodes(connected) end) =:= [] end).

%% Nodes with different cookies do not connect, in either direction, and both logs say why.
wrong_cookie(Config) ->
    {A, B} = pair(Config, #{cookie => right_one}, #{cookie => wrong_one}),
    Attempts = trace_attempts(B),
    ?assertEqual(pang, ping(A, B)),
    wait_log(B, "its cookie is not the one", 10000),
    ?assertMatch([_ | _], wait_log(A, "cannot connect to ", 5000)),
    ?assertEqual(0, Attempts()),
    NameB = name(B),
    true = call(B, erlang, set_cookie, [NameB, right_one]),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(1, Attempts()),
    ?assertEqual([], log_lines(A, "(right|wrong)_one")).

%% How often net_kernel has heard of a connection.
trace_attempts(#{carrier := Carrier} = Node) ->
    Module =
        case Carrier of
            quic -> quic_dist;
            webdist -> webdist_dist
        end,
    Function = {Module, accept_connection, 5},
    true = call(Node, fun() ->
        {module, _} = code:ensure_loaded(Module),
        1 =:= erlang:trace_pattern(Function, true, [call_count])
    end),
    fun() ->
        call(Node, fun() ->
            _ = sys:get_state(net_kernel),
            {call_count, N} = erlang:trace_info(Function, call_count),
            N
        end)
    end.

%% A node that is let in under its own name cannot be another in the distribution handshake.
another_name(Config) ->
    {A, B} = pair(Config),
    %% The sidecar is told another name than the VM will give.
    [_, Host] = string:lexemes(atom_to_list(name(B)), "@"),
    Fields = #{
        node => atom_to_binary(name(B)),
        local => <<"liar@127.0.0.1">>,
        urls => [iolist_to_binary(["https://", Host, ":", integer_to_list(port(Config))])],
        method => get,
        take => copy,
        insecure_proxy => false,
        cookie => atom_to_binary(quic_dist_run:cookie()),
        timeout => 5000
    },
    NameA = atom_to_binary(name(A)),
    {error, closed} = call(A, fun() ->
        {ok, Dialled} = quic_dist_sidecar:request(web_dial, Fields, web_dialled, 6000),
        {ok, Socket} = webdist_link:open(Dialled),
        ok = gen_tcp:send(Socket, [<<"N", 0:64, 0:32, (byte_size(NameA)):16>>, NameA]),
        gen_tcp:recv(Socket, 0, 5000)
    end),
    wait_log(B, "in the distribution handshake and", 10000),
    ?assertEqual([], call(B, fun() -> nodes(connected) end)).

%% Certificates for the host's address authenticate; one for another host does not, nor does none.
certificates(Config) ->
    [Good, Bad] = certified(["127.0.0.1", "elsewhere.example.org"]),
    B = node(Config, Good),
    A = node(Config, reaching(carrier(Config), B, Good)),
    C = node(Config, reaching(carrier(Config), B, Bad)),
    D = node(Config, reaching(carrier(Config), B, #{})),
    Attempts = trace_attempts(B),
    ?assertEqual(pang, ping(C, B)),
    ?assertEqual(pang, ping(D, B)),
    ?assertEqual(0, Attempts()),
    ?assertEqual({pong, []}, {ping(A, B), log_lines(A, "cannot connect to ")}),
    big(A, B).

%% Options of nodes with certificates for these hosts, of one authority.
certified(Hosts) ->
    Dir = filename:join(quic_dist_run:dir(), unique("certs")),
    cert(["ca", "-out", Dir]),
    CA = filename:join(Dir, "ca.pem"),
    [
        begin
            cert(["node", Host, "-ca", CA, "-out", Dir]),
            Files = [{certfile, Host ++ ".pem"}, {keyfile, Host ++ ".key"}, {cacertfile, "ca.pem"}],
            #{quic_dist => [{Key, filename:join(Dir, File)} || {Key, File} <- Files]}
        end
     || Host <- Hosts
    ].

%% The option allow, and net_kernel:allow/1, are asked.
allow(Config) ->
    {A, B} = pair(Config, #{}, #{quic_dist => [{allow, ["nobody@nowhere"]}]}),
    Attempts = trace_attempts(B),
    ?assertEqual(pang, ping(A, B)),
    wait_log(B, "the option allow does not name it", 10000),
    ?assertEqual(0, Attempts()).

%% A node with a stock carrier is reached by TLS at its web port.
stock_nodes(Config) ->
    World = start(#{
        carrier => inet_tcp,
        name => {long, unique("world") ++ "@127.0.0.1"},
        args => ["-epmd_module", "webdist_epmd", "-s", "webdist_server"],
        webdist => [{mode, router}, {port, port(Config)}, {listen, [http, https]}]
    }),
    Hello = node(https, Config, #{}),
    ?assertEqual(pong, ping(Hello, World)),
    big(Hello, World).

%% Carriers are tried in their order; what worked is tried first the next time.
order(Config) ->
    B = node(https, Config, #{}),
    Free = quic_dist_run:free_port(),
    Urls = [
        lists:flatten(io_lib:format("~s://127.0.0.1:~w", [Carrier, Port]))
     || {Carrier, Port} <- [{https, Free}, {wss, Free}, {wss, port(Config)}]
    ],
    A = node(https, Config, #{webdist => []}),
    ok = call(A, fun() -> application:set_env(webdist, urls, [{"*", Urls}]) end),
    Used = fun() ->
        {ok, #{url := Url, socket := Socket}} = call(A, webdist_dial, dial, [
            name(B), "127.0.0.1", any, 6000
        ]),
        ok = call(A, gen_tcp, close, [Socket]),
        Url
    end,
    Want = list_to_binary(lists:last(Urls)),
    ?assertEqual(Want, Used()),
    ?assertEqual(Want, Used()).

%% Where TLS is refused no worse way is taken, though there is one.
no_way_but_proof(Config) ->
    B = start(#{
        carrier => webdist,
        cookie => other,
        name => {long, unique("b") ++ "@127.0.0.1"},
        webdist => [{port, port(Config)}, {listen, [http, https]}]
    }),
    A = node(https, Config, #{webdist => []}),
    Urls = [C ++ "://127.0.0.1:" ++ integer_to_list(port(Config)) || C <- ["https", "http"]],
    ok = call(A, fun() -> application:set_env(webdist, urls, [{"*", Urls}]) end),
    {error, Text} = call(A, webdist_dial, dial, [name(B), "127.0.0.1", any, 6000]),
    ?assertEqual(nomatch, string:find(Text, "http://")),
    ?assertNotEqual(nomatch, string:find(Text, "its log says why")).

%% A node with a cacertfile is not reached in clear by the cookie alone, and reaches no node so.
%% The option with insecure in its name permits it.
certificates_in_clear(Config) ->
    [Certified] = certified(["127.0.0.1"]),
    Both = [{listen, [http, https]}],
    Plain = in_clear(Config, #{webdist => Both}),
    Showing = fun(Options) -> in_clear(Config, Certified#{webdist => Options}) end,
    B = Showing(Both),
    Attempts = trace_attempts(B),
    ?assertEqual(pang, ping(Plain, B)),
    wait_log(B, "in clear, and peers of this node must show", 10000),
    ?assertMatch([_ | _], wait_log(Plain, "cannot connect to .*403 Forbidden", 5000)),
    ?assertEqual(0, Attempts()),
    ?assertEqual(pang, ping(B, Plain)),
    ?assertMatch([_ | _], wait_log(B, "cannot connect to .*or set insecure_clear", 5000)),
    C = Showing([{insecure_clear, true} | Both]),
    ?assertMatch([_], wait_log(C, "^warning.*insecure_clear is set", 5000)),
    ?assertEqual(pong, ping(Plain, C)),
    quic_dist_node:disconnect(Plain, C),
    ?assertEqual(pong, ping(C, Plain)),
    Quic = start(Certified#{
        carrier => quic,
        args => ["-connect_all", "false", "-s", "webdist_server"],
        webdist => [{port, port(Config)}]
    }),
    wait_until(line, fun() ->
        ?assertEqual(pang, ping(Plain, Quic)),
        log_lines(Quic, "in clear, and peers of this node must show") =/= []
    end).

%% The option allow is asked in clear as well, about the name in the distribution handshake.
allow_in_clear(Config) ->
    A = in_clear(Config, #{}),
    Bs = [
        in_clear(Config, #{quic_dist => [{allow, ["nobody@nowhere"]}]}),
        start(#{
            carrier => quic,
            args => ["-connect_all", "false", "-s", "webdist_server"],
            quic_dist => [{allow, ["nobody@nowhere"]}],
            webdist => [{port, port(Config)}]
        })
    ],
    [
        begin
            %% `-s webdist_server' has the node registered when it has already booted.
            wait_until(line, fun() ->
                ?assertEqual(pang, ping(A, B)),
                log_lines(B, "the option allow does not name") =/= []
            end)
        end
     || B <- Bs
    ].

%% Each option that weakens links over HTTP has one line at the start, whether the node listens or
%% only connects, over HTTP or where QUIC does not get through.
insecure_options_are_said(Config) ->
    Options = [insecure_any_host, insecure_clear, insecure_proxy],
    Set = [{Option, true} || Option <- Options],
    Deaf = ["-dist_listen", "false"],
    Nodes = [
        in_clear(Config, #{webdist => Set}),
        in_clear(Config, #{webdist => Set, args => Deaf}),
        start(#{carrier => quic, quic_dist => [{fallback, [https]}], webdist => Set}),
        start(#{
            carrier => quic,
            quic_dist => [{fallback, [https]}],
            webdist => [{port, port(Config)} | Set],
            args => ["-s", "webdist_server"]
        })
    ],
    Lines = [
        [length(log_lines(Node, atom_to_list(Option) ++ " is set")) || Option <- Options]
     || Node <- Nodes, _ <- [wait_log(Node, "insecure_proxy is set", 10000)]
    ],
    ?assertEqual([[1, 1, 1] || _ <- Nodes], Lines).

%% TCP and UDP share one number: QUIC and an upgrade lead to the node, and Alt-Svc tells web
%% clients of HTTP/3. The next sidecar does the same. Go tests cover HTTP/3 itself.
one_port_number(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    B = start(#{
        carrier => quic,
        name => none,
        args => [
            "-name", integer_to_list(port(Config)) ++ "@127.0.0.1", "-no_epmd",
            "-connect_all", "false", "-s", "webdist_server"
        ],
        webdist => [{port, port(Config)}, {listen, [https]}, {h3, true}]
    }),
    Quic = start(#{carrier => quic, args => ["-connect_all", "false"]}),
    %% It does not listen, and so does not take the port over.
    Https = node(https, Config, #{args => ["-dist_listen", "false"]}),
    Told = "\r\nAlt-Svc: h3=\":" ++ integer_to_list(port(Config)) ++ "\"; ma=3600\r\n",
    Reached = fun() ->
        wait_until(told, fun() -> string:find(page(port(Config)), Told) =/= nomatch end),
        [
            wait_until({reached, From}, fun() -> ping(From, B) =:= pong end)
         || From <- [Quic, Https]
        ]
    end,
    Reached(),
    quic_dist_os:signal(quic_dist_node:sidecar(B), kill),
    wait_until(nodedown, fun() -> call(B, fun() -> nodes(connected) end) =:= [] end),
    Reached().

%% The answer to a request for a page over TLS.
page(Port) ->
    case ssl:connect("127.0.0.1", Port, [{active, false}, {verify, verify_none}], 5000) of
        {ok, Socket} ->
            ok = ssl:send(Socket, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
            {ok, Head} = ssl:recv(Socket, 0, 5000),
            ok = ssl:close(Socket),
            Head;
        {error, _} ->
            ""
    end.

%% Where UDP is dropped a node of -proto_dist quic connects by TLS over TCP, and says so; once UDP
%% gets through the next connection is on QUIC.
fallback(Config) ->
    B = start(#{
        carrier => quic,
        args => ["-connect_all", "false", "-s", "webdist_server"],
        webdist => [{port, port(Config)}, {listen, [https]}]
    }),
    {_, UdpPort} = web_port(B),
    Gate = gate(UdpPort),
    #{node := NameB} = B,
    A = start(#{
        carrier => quic,
        args => ["-connect_all", "false"],
        quic_dist => [{nodes, [{NameB, "127.0.0.1", port_of(Gate)}]}, {fallback, [https, wss]}],
        webdist => [{port, port(Config)}]
    }),
    Began = erlang:monotonic_time(millisecond),
    ?assertEqual(pong, ping(A, B)),
    ?assert(erlang:monotonic_time(millisecond) - Began < scale(5000)),
    ?assertMatch([_], wait_log(A, "^notice.*QUIC does not get through.*https://127.0.0.1", 5000)),
    ?assertEqual(port(Config), peer_port(A, B)),
    big(A, B),
    quic_dist_node:disconnect(A, B),
    open(Gate),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(port_of(Gate), peer_port(A, B)).

peer_port(A, #{node := Node}) ->
    {ok, Info} = call(A, net_kernel, node_info, [Node]),
    #net_address{address = {_, Port}} = proplists:get_value(address, Info),
    Port.

%% A refusal is the peer's own word, and no reason to come by another way.
fallback_not_for_strangers(Config) ->
    B = start(#{
        carrier => quic,
        cookie => other,
        args => ["-connect_all", "false", "-s", "webdist_server"],
        webdist => [{port, port(Config)}, {listen, [https]}]
    }),
    A = start(#{
        carrier => quic,
        args => ["-connect_all", "false"],
        quic_dist => [{fallback, [https]}],
        webdist => [{port, port(Config)}]
    }),
    ?assertEqual(pang, ping(A, B)),
    ?assertEqual([], log_lines(A, "fallback|QUIC does not get through")),
    ?assertMatch([_], wait_log(B, "inbound connection turned away", 5000)).

%% A UDP port that drops all until it is opened, and then passes datagrams on to another and back.
gate(To) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        {ok, Front} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}]),
        {ok, Back} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}]),
        {ok, Port} = inet:port(Front),
        Self ! {gate, self(), Port},
        gate(Front, Back, To, undefined, closed)
    end),
    receive
        {gate, Pid, Port} -> {Pid, Port}
    end.

gate(Front, Back, To, Client, State) ->
    receive
        open ->
            gate(Front, Back, To, Client, open);
        {udp, Front, Ip, Port, Bytes} when State =:= open ->
            ok = gen_udp:send(Back, {127, 0, 0, 1}, To, Bytes),
            gate(Front, Back, To, {Ip, Port}, State);
        {udp, Back, _, _, Bytes} when State =:= open ->
            {Ip, Port} = Client,
            ok = gen_udp:send(Front, Ip, Port, Bytes),
            gate(Front, Back, To, Client, State);
        {udp, _, _, _, _} ->
            gate(Front, Back, To, Client, State)
    end.

port_of({_, Port}) -> Port.

open({Pid, _}) ->
    Pid ! open,
    ok.
