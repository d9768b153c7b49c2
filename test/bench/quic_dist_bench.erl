%% @doc Measures carriers side by side on loopback: two nodes for each carrier, round after round
%% A B C A B C, medians. Bytes and messages are counted at the receiver.
%%
%% `make bench' runs it; `ONLY="100 64"' selects measures by words of their names,
%% `CARRIERS="inet_tls quic/stdio"' carriers and `ROUNDS=3' the number of rounds.
-module(quic_dist_bench).

-export([main/1]).
%% Run on the measured nodes.
-export([stream/3, receiver/3, round_trips/3, echo/0]).

-define(TIMEOUT, 120000).

%% @doc `Dir' is a scratch folder for certificates; carriers, measures and rounds are words.
-spec main([string()]) -> no_return().
main([Dir, Carriers0, Only0, Rounds0]) ->
    Carriers = words(Carriers0, ["inet_tcp", "inet_tls", "quic/socket", "quic/stdio"]),
    Measures = [M || {Name, _, _} = M <- measures(), selected(Name, words(Only0, []))],
    Rounds = list_to_integer(Rounds0),
    Optfile = certificates(Dir),
    Samples = [
        {Name, Carrier, Value}
     || _ <- lists:seq(1, Rounds),
        Carrier <- Carriers,
        {Name, Value} <- measure(Carrier, Measures, Optfile)
    ],
    report(Carriers, Measures, Samples, Rounds),
    halt(0).

words(Text, Default) ->
    case string:lexemes(Text, " ,") of
        [] -> Default;
        Words -> Words
    end.

selected(_, []) -> true;
selected(Name, Only) -> lists:any(fun(Word) -> string:find(Name, Word) =/= nomatch end, Only).

%% Name, unit, {function, arguments}.
measures() ->
    [
        {"100 B messages", "msg/s", {stream, 100, 400000}},
        {"1 KB messages", "msg/s", {stream, 1024, 200000}},
        {"64 KB messages", "MB/s", {stream, 65536, 4000}},
        {"1 MB messages", "MB/s", {stream, 1048576, 250}},
        {"round trip, empty", "us p50", {round_trips, 0, 5000}},
        {"connect, warm", "ms p50", {connects, 50}}
    ].

measure(Carrier, Measures, Optfile) ->
    {A, _} = start(Carrier, Optfile, "a"),
    {B, Name} = start(Carrier, Optfile, "b"),
    pong = peer:call(A, net_adm, ping, [Name]),
    Values = [{What, run(A, B, Name, Spec, Unit)} || {What, Unit, Spec} <- Measures],
    peer:stop(A),
    peer:stop(B),
    Values.

start(Carrier, Optfile, Prefix) ->
    Name = lists:concat([Prefix, os:getpid(), "x", erlang:unique_integer([positive])]),
    {ok, Peer, Node} = peer:start_link(#{
        name => Name,
        host => "127.0.0.1",
        longnames => true,
        connection => standard_io,
        wait_boot => 30000,
        args =>
            carrier(Carrier, Optfile) ++ ["-setcookie", "bench", "-pa" | code_paths()] ++
                ["-kernel", "logger_level", "error"]
    }),
    {Peer, Node}.

carrier("quic/" ++ Plane, _) -> ["-proto_dist", "quic", "-quic_dist", "data_plane", Plane];
carrier("inet_tls", Optfile) -> ["-proto_dist", "inet_tls", "-ssl_dist_optfile", Optfile];
carrier(Carrier, _) -> ["-proto_dist", Carrier].

code_paths() ->
    [filename:dirname(code:which(M)) || M <- [?MODULE, quic_dist]].

run(A, _, Node, {stream, Size, Count}, Unit) ->
    _ = peer:call(A, ?MODULE, stream, [Node, Size, Count div 20], ?TIMEOUT),
    Seconds = peer:call(A, ?MODULE, stream, [Node, Size, Count], ?TIMEOUT),
    case Unit of
        "msg/s" -> Count / Seconds;
        "MB/s" -> Count * Size / Seconds / 1.0e6
    end;
run(A, _, Node, {round_trips, Size, Count}, _) ->
    peer:call(A, ?MODULE, round_trips, [Node, Size, Count], ?TIMEOUT);
run(A, B, Node, {connects, Count}, _) ->
    median([connect(A, B, Node) || _ <- lists:seq(1, Count)]).

%% Both nodes have the last connection behind them when the next is made, and this one before it is
%% undone: inet_tls does not take a hurry well.
connect(A, B, Node) ->
    true = peer:call(A, erlang, disconnect_node, [Node]),
    ok = await_nodes(B, 0),
    {Micros, true} = peer:call(A, timer, tc, [net_kernel, connect_node, [Node]]),
    ok = await_nodes(B, 1),
    Micros / 1000.

await_nodes(B, Count) ->
    case peer:call(B, erlang, nodes, [connected]) of
        Nodes when length(Nodes) =:= Count -> ok;
        _ -> await_nodes(B, Count)
    end.

%% @doc Sends `Count' messages of `Size' bytes to a receiver on `Node', which counts and answers.
%% Seconds until the answer.
-spec stream(node(), non_neg_integer(), pos_integer()) -> float().
stream(Node, Size, Count) ->
    Payload = rand:bytes(Size),
    Receiver = spawn_link(Node, ?MODULE, receiver, [self(), Size, Count]),
    receive
        {Receiver, ready} -> ok
    end,
    Start = erlang:monotonic_time(microsecond),
    send(Receiver, Payload, Count),
    receive
        {Receiver, Count, Bytes} when Bytes =:= Count * Size ->
            (erlang:monotonic_time(microsecond) - Start) / 1.0e6
    after ?TIMEOUT -> error(lost_messages)
    end.

send(_, _, 0) ->
    ok;
send(Receiver, Payload, Left) ->
    Receiver ! Payload,
    send(Receiver, Payload, Left - 1).

%% @doc Counts messages and bytes, on the node measured.
-spec receiver(pid(), non_neg_integer(), pos_integer()) -> term().
receiver(Sender, Size, Count) ->
    Sender ! {self(), ready},
    Sender ! {self(), Count, count(Size, Count, 0)}.

count(_, 0, Bytes) ->
    Bytes;
count(Size, Left, Bytes) ->
    receive
        Payload when byte_size(Payload) =:= Size -> count(Size, Left - 1, Bytes + Size)
    end.

%% @doc The median time of a message there and back, in microseconds.
-spec round_trips(node(), non_neg_integer(), pos_integer()) -> number().
round_trips(Node, Size, Count) ->
    Payload = rand:bytes(Size),
    Echo = spawn_link(Node, ?MODULE, echo, []),
    Times = [round_trip(Echo, Payload) || _ <- lists:seq(1, Count)],
    unlink(Echo),
    exit(Echo, kill),
    median(Times).

round_trip(Echo, Payload) ->
    Start = erlang:monotonic_time(nanosecond),
    Echo ! {self(), Payload},
    receive
        {Echo, Payload} -> (erlang:monotonic_time(nanosecond) - Start) / 1000
    end.

%% @doc Answers messages, on the node measured.
-spec echo() -> no_return().
echo() ->
    receive
        {From, Payload} -> From ! {self(), Payload}
    end,
    echo().

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

report(Carriers, Measures, Samples, Rounds) ->
    io:format("~nOTP ~s, ~w rounds, medians (least to most); ratio to inet_tls~n~n", [
        erlang:system_info(otp_release), Rounds
    ]),
    [report_line(Carriers, Measure, Samples) || Measure <- Measures],
    ok.

report_line(Carriers, {What, Unit, _}, Samples) ->
    io:format("~s (~s)~n", [What, Unit]),
    Base = [V || {W, "inet_tls", V} <- Samples, W =:= What],
    lists:foreach(
        fun(Carrier) ->
            Values = [V || {W, C, V} <- Samples, W =:= What, C =:= Carrier],
            Ratio =
                case Base of
                    [] -> "";
                    _ -> io_lib:format("~.2fx", [median(Values) / median(Base)])
                end,
            Shown = [float(F(Values)) || F <- [fun median/1, fun lists:min/1, fun lists:max/1]],
            io:format("  ~-12s ~12.1f  (~.1f to ~.1f)  ~s~n", [Carrier | Shown] ++ [Ratio])
        end,
        Carriers
    ).

%% A self-signed certificate and the options of inet_tls, which are otherwise its defaults.
certificates(Dir) ->
    Pem = filename:join(Dir, "bench.pem"),
    Optfile = filename:join(Dir, "ssl_dist.conf"),
    #{server_config := Config} = public_key:pkix_test_data(#{
        server_chain => #{root => [], intermediates => [], peer => []},
        client_chain => #{root => [], intermediates => [], peer => []}
    }),
    {KeyType, Key} = proplists:get_value(key, Config),
    ok = file:write_file(
        Pem,
        public_key:pem_encode([
            {'Certificate', proplists:get_value(cert, Config), not_encrypted},
            {KeyType, Key, not_encrypted}
        ])
    ),
    ok = file:write_file(
        Optfile,
        io_lib:format("[{server, [{certfile, ~tp}]}, {client, [{verify, verify_none}]}].~n", [Pem])
    ),
    Optfile.
