%% @doc Measures carriers side by side on loopback: two nodes for each carrier, all of them up for a
%% whole round, and each measure goes through the carriers before the next one does. Every value
%% goes to a JSON file after each round, which `test/bench/report' reads.
%%
%% `make bench' runs it; `ONLY="send-64KB cpu"' selects measures by parts of their names,
%% `CARRIERS="inet_tls quic/stdio"' carriers (see `quic_dist_bench_nodes') and `ROUNDS=3' the number
%% of rounds.
-module(quic_dist_bench).

-export([main/1]).

-import(quic_dist_bench_nodes, [name/1, os_pids/1, call/4, on/3]).

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
    measures :: [measure()]
}).

-type measure() :: {Name :: string(), tuple()}.
-type node_under_test() :: quic_dist_bench_nodes:node_under_test().
-type pair() :: {node_under_test(), node_under_test()} | ceiling.

%% @doc `Dir' is a scratch folder, `Json' the file to write.
-spec main([string()]) -> no_return().
main([Dir, Json]) ->
    ok = quic_dist_bench_nodes:certify(Dir),
    Run = #run{
        dir = Dir,
        carriers = quic_dist_bench_results:words("CARRIERS", ?CARRIERS),
        measures = selection(quic_dist_bench_results:words("ONLY", []))
    },
    quic_dist_bench_results:rounds(
        Json,
        #{},
        fun(Round, Results) -> round(Round, Run, Results) end,
        memory(Run, quic_dist_bench_results:new())
    ).

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

round(Round, #run{carriers = Carriers, measures = Measures} = Run, Results0) ->
    Steps = [{C, M} || {_, Spec} = M <- Measures, C <- Carriers, applies(C, Spec)],
    Used = lists:usort([C || {C, _} <- Steps]),
    Pairs0 = maps:from_list([{C, start_pair(C, Run)} || C <- Used]),
    {Results, Pairs} = lists:foldl(
        fun({Carrier, {Name, Spec}}, {Results1, Pairs1}) ->
            #{Carrier := Pair} = Pairs1,
            Measure = fun() -> measure(Pair, Spec) end,
            case quic_dist_bench_results:attempt(Name, Carrier, Round, Measure, Results1) of
                {ok, Results2} ->
                    {Results2, Pairs1};
                {failed, Results2} ->
                    stop_pair(Pair),
                    {Results2, Pairs1#{Carrier := start_pair(Carrier, Run)}}
            end
        end,
        {Results0, Pairs0},
        Steps
    ),
    maps:foreach(fun(_, Pair) -> stop_pair(Pair) end, Pairs),
    Results.

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
connects(A, B, Deadline) ->
    true = call(A, erlang, disconnect_node, [name(B)]),
    ok = await_nodes(B, 0),
    {Micros, true} = call(A, timer, tc, [net_kernel, connect_node, [name(B)]]),
    ok = await_nodes(B, 1),
    case erlang:monotonic_time(millisecond) < Deadline of
        true -> [Micros / 1000 | connects(A, B, Deadline)];
        false -> [Micros / 1000]
    end.

await_nodes(Node, Count) ->
    case call(Node, erlang, nodes, [connected]) of
        Nodes when length(Nodes) =:= Count -> ok;
        _ -> await_nodes(Node, Count)
    end.

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

%% CPU seconds of the two BEAMs and of their sidecars until now.
cpu(A, B) ->
    {[BeamA | SidecarA], [BeamB | SidecarB]} = {os_pids(A), os_pids(B)},
    [lists:sum([cpu(Pid) || Pid <- Pids]) || Pids <- [[BeamA, BeamB], SidecarA ++ SidecarB]].

%% utime and stime of proc(5), in clock ticks of 10 ms; the name before them may have blanks.
cpu(OsPid) ->
    {ok, Stat} = file:read_file(["/proc/", OsPid, "/stat"]),
    [_, AfterName] = string:split(Stat, ") ", trailing),
    Fields = string:lexemes(AfterName, " "),
    lists:sum([binary_to_integer(lists:nth(N, Fields)) || N <- [12, 13]]) / 100.

%% A line of /proc/PID/status in MB: VmRSS is resident memory, VmHWM the most it has been.
resident(Line, Node) ->
    [_, Sidecar] = os_pids(Node),
    {ok, Status} = file:read_file(["/proc/", Sidecar, "/status"]),
    {match, [KiB]} = re:run(Status, [Line, ":\\s+(\\d+)"], [{capture, all_but_first, binary}]),
    binary_to_integer(KiB) * 1024 / 1.0e6.

%% VmHWM begins anew, proc(5): what a cookie's key took when it was derived is no part of the load.
%% Only root may do that to a sidecar.
forget_the_most(Node) ->
    [_, Sidecar] = os_pids(Node),
    _ = file:write_file(["/proc/", Sidecar, "/clear_refs"], "5"),
    ok.

%% Once, since it takes a hundred peers. They are nodes of one scheduler and serve both data planes;
%% hidden, or each would connect to every other.
memory(#run{carriers = Carriers, measures = Measures} = Run, Results0) ->
    case {lists:keyfind("memory", 1, Measures), [C || "quic/" ++ _ = C <- Carriers]} of
        {false, _} ->
            Results0;
        {_, []} ->
            Results0;
        {{Name, _}, Planes} ->
            Add = fun(Measure) ->
                fun(Carrier, Results) ->
                    quic_dist_bench_results:add(Name, Carrier, 1, Measure(Carrier), Results)
                end
            end,
            UnderLoad = fun(Carrier) -> memory_under_load(Carrier, Run) end,
            Results1 = lists:foldl(Add(UnderLoad), Results0, Planes),
            Peers = peers(lists:max(?CHANNELS), Run),
            Idle = fun(Carrier) -> memory_idle(Carrier, Peers, Run) end,
            Results = lists:foldl(Add(Idle), Results1, Planes),
            lists:foreach(fun quic_dist_bench_nodes:stop/1, Peers),
            Results
    end.

memory_under_load(Carrier, Run) ->
    {A, B} = Pair = start_pair(Carrier, Run),
    lists:foreach(fun forget_the_most/1, [A, B]),
    _ = send(A, B, 1 bsl 16, 8, ?SEND),
    Values = [{"sending MB", resident("VmHWM", A)}, {"receiving MB", resident("VmHWM", B)}],
    stop_pair(Pair),
    Values.

memory_idle(Carrier, Peers, Run) ->
    A = start(Carrier, [], Run),
    Values = [
        begin
            [
                true = call(A, net_kernel, connect_node, [name(B)])
             || B <- lists:sublist(Peers, Channels)
            ],
            timer:sleep(2000), % idle is what a garbage collection has left
            {lists:concat(["idle with ", Channels, " MB"]), resident("VmRSS", A)}
        end
     || Channels <- ?CHANNELS
    ],
    quic_dist_bench_nodes:stop(A),
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
    A = start(Carrier, [], Run),
    B = start(Carrier, [], Run),
    pong = call(A, net_adm, ping, [name(B)]),
    {A, B}.

start(Carrier, Args, #run{dir = Dir}) ->
    quic_dist_bench_nodes:start(Carrier, Args, Dir, #{host => "127.0.0.1"}).

stop_pair(ceiling) ->
    ok;
stop_pair({A, B}) ->
    quic_dist_bench_nodes:stop(A),
    quic_dist_bench_nodes:stop(B).
