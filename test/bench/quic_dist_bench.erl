%% @doc Measures carriers side by side on loopback: two nodes for each carrier, all of them up for a
%% whole round, and each measure goes through the carriers before the next one does. Every value
%% goes to a JSON file after each round, which `test/bench/report' reads.
%%
%% `make bench' runs it; `ONLY="send-64KB cpu"' selects measures by parts of their names,
%% `CARRIERS="inet_tls quic/stdio"' carriers and `ROUNDS=3' the number of rounds.
-module(quic_dist_bench).

-export([main/1]).

-define(TIMEOUT, 120000).
-define(CEILING, "_build/bench/ceiling").
-define(CARRIERS, ["inet_tcp", "inet_tls", "inet_tls/1.3", "quic/socket", "quic/stdio", "quic-go"]).
-define(CHANNELS, [1, 10, 100]).

%% How long a measure lasts, in milliseconds.
-define(SEND, 1500).
-define(CPU, 2500).
-define(ROUND_TRIP, 1000).
-define(BULK, 3000).
-define(CONNECT, 1500).

-record(run, {
    dir :: file:filename(),
    carriers :: [string()],
    measures :: [measure()],
    failures = [] :: [iodata()],
    samples = [] :: [#{atom() => iodata() | number()}]
}).

-type measure() :: {Name :: string(), tuple()}.
-type node_under_test() :: {Peer :: pid(), node(), OsPids :: [string()]}.
-type pair() :: {node_under_test(), node_under_test()} | ceiling.

%% @doc `Dir' is a scratch folder, `Json' the file to write; carriers and measures are words.
-spec main([string()]) -> no_return().
main([Dir, Json, Carriers, Only, Rounds]) ->
    ok = optfiles(Dir),
    Run0 = #run{
        dir = Dir,
        carriers = words(Carriers, ?CARRIERS),
        measures = selection(words(Only, []))
    },
    #run{failures = Failures} = lists:foldl(
        fun(Round, Run1) ->
            Run = round(Round, Run1),
            ok = file:write_file(Json, [json(result(Round, Run)), $\n]),
            Run
        end,
        memory(Run0),
        lists:seq(1, list_to_integer(Rounds))
    ),
    case Failures of
        [] -> halt(0);
        _ -> halt(1)
    end.

words(Text, Default) ->
    case string:lexemes(Text, " ,") of
        [] -> Default;
        Words -> Words
    end.

selection([]) ->
    measures();
selection(Only) ->
    case [M || {Name, _} = M <- measures(), selected(Name, Only)] of
        [] ->
            Names = lists:join(" ", [Name || {Name, _} <- measures()]),
            io:format(standard_error, "ONLY selects nothing; the measures are ~s~n", [Names]),
            halt(2);
        Measures ->
            Measures
    end.

selected(Name, Only) -> lists:any(fun(Word) -> string:find(Name, Word) =/= nomatch end, Only).

measures() ->
    Sizes = [{"100B", 100}, {"1KB", 1 bsl 10}, {"16KB", 1 bsl 14}, {"64KB", 1 bsl 16},
        {"1MB", 1 bsl 20}, {"64MB", 1 bsl 26}],
    [
        {lists:concat(["send-", Name, "-x", Senders]), {send, Size, Senders}}
     || {Name, Size} <- Sizes, Senders <- [1, 8]
    ] ++
        [
            {"round-trip-0", {round_trips, 0}},
            {"round-trip-1KB", {round_trips, 1 bsl 10}},
            {"round-trip-64KB", {round_trips, 1 bsl 16}},
            {"bulk-round-trip", {round_trips_in_bulk, infinity}},
            {"window-round-trip", {round_trips_in_bulk, 2}},
            {"connect", {connects}},
            {"cpu-64KB", {cpu, 1 bsl 16}},
            {"memory", {memory}}
        ].

%% What a carrier cannot be asked: quic-go alone has a stream and no messages.
applies("quic-go", {send, Size, 1}) -> Size >= 1 bsl 16 andalso Size =< 1 bsl 20;
applies("quic-go", Spec) -> lists:member(element(1, Spec), [round_trips, cpu]);
applies(_, Spec) -> Spec =/= {memory}.

round(Round, #run{carriers = Carriers, measures = Measures} = Run0) ->
    Steps = [{C, M} || {_, Spec} = M <- Measures, C <- Carriers, applies(C, Spec)],
    Used = lists:usort([C || {C, _} <- Steps]),
    Pairs0 = maps:from_list([{C, start_pair(C, Run0)} || C <- Used]),
    {Run, Pairs} = lists:foldl(
        fun({Carrier, Measure}, {Run1, Pairs1}) ->
            #{Carrier := Pair} = Pairs1,
            case attempt(Pair, Measure, Carrier, Round, Run1) of
                {ok, Run2} ->
                    {Run2, Pairs1};
                {failed, Run2} ->
                    stop_pair(Pair),
                    {Run2, Pairs1#{Carrier := start_pair(Carrier, Run2)}}
            end
        end,
        {Run0, Pairs0},
        Steps
    ),
    maps:foreach(fun(_, Pair) -> stop_pair(Pair) end, Pairs),
    Run.

%% A measure that fails is told and counts in the exit status; the others are measured all the same.
attempt(Pair, {Name, Spec}, Carrier, Round, Run) ->
    try measure(Pair, Spec) of
        Values -> {ok, samples(Name, Carrier, Round, Values, Run)}
    catch
        Class:Reason ->
            Failure = io_lib:format("~s ~s: ~0P", [Name, Carrier, {Class, Reason}, 20]),
            io:format(standard_error, "~w ~s~n", [Round, Failure]),
            {failed, Run#run{failures = [Failure | Run#run.failures]}}
    end.

samples(Name, Carrier, Round, Values, #run{samples = Samples} = Run) ->
    New = [
        #{measure => Name, carrier => Carrier, round => Round, metric => Metric, value => Value}
     || {Metric, Value} <- Values
    ],
    [
        io:format("~w ~-16s ~-14s ~12.2f ~s~n", [Round, Name, Carrier, float(Value), Metric])
     || {Metric, Value} <- Values
    ],
    Run#run{samples = Samples ++ New}.

-spec measure(pair(), tuple()) -> [{Metric :: string(), number()}].
measure(ceiling, {send, Size, 1}) ->
    [Bytes, Seconds, _] = ceiling("send", Size, ?SEND),
    [{"MB/s", Bytes / Seconds / 1.0e6}];
measure(ceiling, {cpu, Size}) ->
    [Bytes, _, Cpu] = ceiling("send", Size, ?CPU),
    [{"CPU s/GB", Cpu / Bytes * 1.0e9}];
measure(ceiling, {round_trips, Size}) ->
    [P50, P99] = ceiling("round-trip", Size, ?ROUND_TRIP),
    [{"p50 us", P50}, {"p99 us", P99}];
measure({A, B}, {send, Size, Senders}) ->
    _ = send(A, B, Size, 1, 1),
    {Seconds, Messages} = send(A, B, Size, Senders, ?SEND),
    [{"messages/s", Messages / Seconds}, {"MB/s", Messages * Size / Seconds / 1.0e6}];
measure({A, B}, {cpu, Size}) ->
    _ = send(A, B, Size, 1, 1),
    Before = cpu(A, B),
    {_, Messages} = send(A, B, Size, 1, ?CPU),
    [Beams, Sidecars] = lists:zipwith(fun erlang:'-'/2, cpu(A, B), Before),
    Gigabytes = Messages * Size / 1.0e9,
    [{"CPU s/GB", (Beams + Sidecars) / Gigabytes}, {"BEAM CPU s/GB", Beams / Gigabytes}];
measure({A, B}, {round_trips, Size}) ->
    {P50, P99} = on(A, round_trips, [name(B), Size, ?ROUND_TRIP]),
    [{"p50 us", P50}, {"p99 us", P99}];
measure({A, B}, {round_trips_in_bulk, Window}) ->
    {P50, P99, Flow} = on(A, round_trips_in_bulk, [name(B), Window, ?BULK]),
    [{"p50 us", P50}, {"p99 us", P99}, {"MB/s", Flow}];
measure({A, B}, {connects}) ->
    [_ | Times] = connects(A, B, erlang:monotonic_time(millisecond) + ?CONNECT),
    [{"p50 ms", median(Times)}].

send(A, B, Size, Senders, Millis) ->
    on(A, send, [name(B), Size, Senders, infinity, Millis]).

on({Peer, _, _}, Function, Args) ->
    peer:call(Peer, quic_dist_bench_node, run, [Function, Args], ?TIMEOUT).

name({_, Node, _}) -> Node.

ceiling(What, Size, Millis) ->
    Said = os:cmd(io_lib:format("~s ~s ~w ~w", [?CEILING, What, Size, Millis])),
    [number(Word) || Word <- string:lexemes(Said, " \n")].

number(Word) ->
    case string:to_float(Word) of
        {Float, ""} -> Float;
        _ -> float(list_to_integer(Word))
    end.

%% Both nodes have the last connection behind them when the next is made, and this one before it is
%% undone: inet_tls does not take a hurry well.
connects({PeerA, _, _} = A, {PeerB, Node, _} = B, Deadline) ->
    true = peer:call(PeerA, erlang, disconnect_node, [Node]),
    ok = await_nodes(PeerB, 0),
    {Micros, true} = peer:call(PeerA, timer, tc, [net_kernel, connect_node, [Node]]),
    ok = await_nodes(PeerB, 1),
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> [Micros / 1000 | connects(A, B, Deadline)];
        false -> [Micros / 1000]
    end.

await_nodes(Peer, Count) ->
    case peer:call(Peer, erlang, nodes, [connected]) of
        Nodes when length(Nodes) =:= Count -> ok;
        _ -> await_nodes(Peer, Count)
    end.

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

%% CPU seconds of the two BEAMs and of their sidecars until now.
cpu({_, _, [BeamA | SidecarA]}, {_, _, [BeamB | SidecarB]}) ->
    [lists:sum([cpu(Pid) || Pid <- Pids]) || Pids <- [[BeamA, BeamB], SidecarA ++ SidecarB]].

%% utime and stime of proc(5), in clock ticks of 10 ms; the name before them may have blanks.
cpu(OsPid) ->
    {ok, Stat} = file:read_file(["/proc/", OsPid, "/stat"]),
    [_, AfterName] = string:split(Stat, ") ", trailing),
    Fields = string:lexemes(AfterName, " "),
    lists:sum([binary_to_integer(lists:nth(N, Fields)) || N <- [12, 13]]) / 100.

%% A line of /proc/PID/status in MB: VmRSS is resident memory, VmHWM the most it has been.
resident(Line, {_, _, [_, Sidecar]}) ->
    {ok, Status} = file:read_file(["/proc/", Sidecar, "/status"]),
    {match, [KiB]} = re:run(Status, [Line, ":\\s+(\\d+)"], [{capture, all_but_first, binary}]),
    binary_to_integer(KiB) * 1024 / 1.0e6.

%% Once, since it takes a hundred peers. They are nodes of one scheduler and serve both data planes;
%% hidden, or each would connect to every other.
memory(#run{carriers = Carriers, measures = Measures} = Run0) ->
    case {lists:keyfind("memory", 1, Measures), [C || "quic/" ++ _ = C <- Carriers]} of
        {false, _} ->
            Run0;
        {_, []} ->
            Run0;
        {{Name, _}, Planes} ->
            Run1 = lists:foldl(
                fun(Carrier, Run) ->
                    samples(Name, Carrier, 1, memory_under_load(Carrier, Run), Run)
                end,
                Run0,
                Planes
            ),
            Peers = peers(lists:max(?CHANNELS), Run1),
            Run2 = lists:foldl(
                fun(Carrier, Run) ->
                    samples(Name, Carrier, 1, memory_idle(Carrier, Peers, Run), Run)
                end,
                Run1,
                Planes
            ),
            lists:foreach(fun stop/1, Peers),
            Run2
    end.

memory_under_load(Carrier, Run) ->
    {A, B} = Pair = start_pair(Carrier, Run),
    _ = send(A, B, 1 bsl 16, 8, ?SEND),
    Values = [{"sending MB", resident("VmHWM", A)}, {"receiving MB", resident("VmHWM", B)}],
    stop_pair(Pair),
    Values.

memory_idle(Carrier, Peers, Run) ->
    {Peer, _, _} = A = start(Carrier, [], Run),
    Values = [
        begin
            [
                true = peer:call(Peer, net_kernel, connect_node, [name(B)])
             || B <- lists:sublist(Peers, Channels)
            ],
            timer:sleep(2000), % idle is what a garbage collection has left
            {lists:concat(["idle with ", Channels, " MB"]), resident("VmRSS", A)}
        end
     || Channels <- ?CHANNELS
    ],
    stop(A),
    Values.

%% Four are started at a time.
peers(Count, _) when Count =< 0 ->
    [];
peers(Count, Run) ->
    Small = ["-hidden", "+S", "1:1", "+SDcpu", "1:1", "+SDio", "1", "+A", "1"],
    Starters = [
        spawn_monitor(fun() -> exit({started, start("quic/socket", Small, Run)}) end)
     || _ <- lists:seq(1, min(Count, 4))
    ],
    Ends = [receive {'DOWN', M, process, _, End} -> End end || {_, M} <- Starters],
    lists:map(fun({started, Node}) -> Node end, Ends) ++ peers(Count - 4, Run).

-spec start_pair(string(), #run{}) -> pair().
start_pair("quic-go", _) ->
    ceiling;
start_pair(Carrier, Run) ->
    {Peer, _, _} = A = start(Carrier, [], Run),
    B = start(Carrier, [], Run),
    pong = peer:call(Peer, net_adm, ping, [name(B)]),
    {A, B}.

%% Not linked: a node that does not stay up is a failure of one measure.
start(Carrier, Args, #run{dir = Dir}) ->
    {ok, Peer, Node} = peer:start(#{
        name => lists:concat(["b", os:getpid(), "x", erlang:unique_integer([positive])]),
        host => "127.0.0.1",
        longnames => true,
        connection => standard_io,
        wait_boot => ?TIMEOUT,
        args =>
            carrier(Carrier, Dir) ++ Args ++ ["-setcookie", "bench", "-pa" | code_paths()] ++
                ["-kernel", "logger_level", "critical"]
    }),
    {Peer, Node, [peer:call(Peer, os, getpid, []) | sidecars(Carrier, Peer)]}.

sidecars("quic/" ++ _, Peer) ->
    #{os_pid := OsPid} = peer:call(Peer, quic_dist, info, []),
    [integer_to_list(OsPid)];
sidecars(_, _) ->
    [].

stop_pair(ceiling) ->
    ok;
stop_pair({A, B}) ->
    stop(A),
    stop(B).

%% It may have ended already.
stop({Peer, _, _}) ->
    try
        peer:stop(Peer)
    catch
        exit:_ -> ok
    end.

carrier("quic/" ++ Plane, _) ->
    ["-proto_dist", "quic", "-quic_dist", "data_plane", Plane];
carrier("inet_tls" = Carrier, Dir) ->
    ["-proto_dist", "inet_tls", "-ssl_dist_optfile", optfile(Dir, Carrier)];
carrier("inet_tls/" ++ Version, Dir) ->
    ["-proto_dist", "inet_tls", "-ssl_dist_optfile", optfile(Dir, "tlsv" ++ Version)];
carrier(Carrier, _) ->
    ["-proto_dist", Carrier].

code_paths() ->
    [filename:dirname(code:which(M)) || M <- [?MODULE, quic_dist]].

optfile(Dir, Name) -> filename:join(Dir, Name ++ ".conf").

%% A certificate and the options of inet_tls, which are otherwise its defaults. TLS 1.3 takes
%% neither SHA-1 nor the curve that pkix_test_data takes unless told otherwise.
optfiles(Dir) ->
    Pem = filename:join(Dir, "bench.pem"),
    Cert = [{digest, sha256}, {key, {namedCurve, secp256r1}}],
    Chain = #{root => Cert, intermediates => [], peer => Cert},
    #{server_config := Config} =
        public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    {KeyType, Key} = proplists:get_value(key, Config),
    ok = file:write_file(
        Pem,
        public_key:pem_encode([
            {'Certificate', proplists:get_value(cert, Config), not_encrypted},
            {KeyType, Key, not_encrypted}
        ])
    ),
    lists:foreach(
        fun({Name, Versions}) ->
            Options = [
                {server, [{certfile, Pem} | Versions]},
                {client, [{verify, verify_none} | Versions]}
            ],
            ok = file:write_file(optfile(Dir, Name), io_lib:format("~tp.~n", [Options]))
        end,
        [{"inet_tls", []}, {"tlsv1.3", [{versions, ['tlsv1.3']}]}]
    ).

result(Rounds, #run{failures = Failures, samples = Samples}) ->
    {{Year, Month, Day}, _} = calendar:universal_time(),
    #{
        date => io_lib:format("~4..0b-~2..0b-~2..0b", [Year, Month, Day]),
        rounds => Rounds,
        machine => machine(),
        versions => versions(),
        failures => {array, lists:reverse(Failures)},
        samples => {array, Samples}
    }.

machine() ->
    {ok, Kernel} = file:read_file("/proc/sys/kernel/osrelease"),
    #{
        cpu => proc("cpuinfo", "model name\\s*: (.*)"),
        cores => erlang:system_info(logical_processors_available),
        memory_gb => list_to_integer(proc("meminfo", "MemTotal:\\s*(\\d+)")) div 1000000,
        kernel => string:trim(Kernel)
    }.

proc(File, Pattern) ->
    {ok, Text} = file:read_file(["/proc/", File]),
    case re:run(Text, Pattern, [{capture, all_but_first, list}]) of
        {match, [Value]} -> Value;
        nomatch -> "unknown"
    end.

versions() ->
    Release = erlang:system_info(otp_release),
    Path = filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"]),
    {ok, Otp} = file:read_file(Path),
    [{_, _, OpenSsl}] = crypto:info_lib(),
    [Go, QuicGo] = string:lexemes(os:cmd(?CEILING " version"), " \n"),
    #{
        release => Release,
        otp => string:trim(Otp),
        erts => erlang:system_info(version),
        ssl => application_version(ssl),
        openssl => OpenSsl,
        quic_dist => application_version(quic_dist),
        go => Go,
        quic_go => QuicGo
    }.

application_version(Application) ->
    _ = application:load(Application),
    {ok, Version} = application:get_key(Application, vsn),
    Version.

%% Strings are iodata, and an array is told from them by a tag.
json(Map) when is_map(Map) ->
    Pairs = [[json(atom_to_list(K)), ": ", json(V)] || {K, V} <- maps:to_list(Map)],
    ["{", lists:join(", ", Pairs), "}"];
json({array, Values}) ->
    ["[\n", lists:join(",\n", [json(V) || V <- Values]), "]"];
json(Value) when is_integer(Value) ->
    integer_to_list(Value);
json(Value) when is_float(Value) ->
    float_to_list(Value, [{decimals, 4}, compact]);
json(Text) ->
    [$", [escape(C) || C <- unicode:characters_to_list(Text)], $"].

escape(C) when C =:= $"; C =:= $\\ -> [$\\, C];
escape(C) when C < $\s; C > $~ -> $\s;
escape(C) -> C.
