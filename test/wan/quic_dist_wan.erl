%% @doc Measures carriers over emulated links: for each value two new nodes in two namespaces that a
%% new link of `test/wan/link' joins.
%%
%% `make wan' runs it; `LINKS="lossy clean"' selects links, `CARRIERS="inet_tls/bbr quic"' carriers
%% (see `quic_dist_bench_nodes'), `ROUNDS=3' the number of rounds, and `SECONDS=15', at most 60, is
%% how long each measure lasts.
-module(quic_dist_wan).

-export([main/1]).

-define(LINK, "_build/bench/link").
-define(BASE, "inet_tls/cubic").
-define(CARRIERS, ["inet_tcp/cubic", ?BASE, "inet_tls/bbr"]).
%% Those that this version of the library has; if it has none of them, its only mode.
-define(MODES, ["quic/single", "quic/bulk", "quic/bulk/4", "quic/sender", "quic/sender/4"]).
-define(MODE, "quic").
-define(DEFAULT_LINKS, ["lossy", "clean"]).
-define(SENDERS, 4).
-define(SIZE, 262144).
-define(TIMEOUT, 10000).

%% What all links have in common.
-define(SETTINGS, "rate 100mbit buffer 100ms delay 20ms ").

-type wan() :: {Name :: string(), Title :: string(), Settings :: string()}.

-spec links() -> [wan()].
links() ->
    [
        {"lossy", "100 Mbit/s, 40 ms round trip, 1 % lost each way", "loss 1%"},
        {"clean", "100 Mbit/s, 40 ms round trip, nothing lost", "loss 0"},
        {"shaky", "100 Mbit/s, 40 to 50 ms round trip, 0.1 % lost and 0.5 % overtaken each way",
            "loss 0.1% jitter 5ms reorder 0.5%"},
        {"lan", "200 Mbit/s, 0.5 ms round trip, 0.01 % lost each way",
            "rate 200mbit buffer 10ms delay 0.25ms loss 0.01%"}
    ].

%% @doc `Dir' is a scratch folder, `Json' the file to write.
-spec main([string()]) -> no_return().
main([Dir, Json]) ->
    ok = quic_dist_bench_nodes:certify(Dir),
    Links = [link_named(Name) || Name <- quic_dist_bench_results:words("LINKS", ?DEFAULT_LINKS)],
    Carriers = [C || C <- carriers(), is_available(C)],
    Millis = 1000 * list_to_integer(hd(quic_dist_bench_results:words("SECONDS", ["15"]))),
    Facts = #{
        base => ?BASE,
        seconds => Millis div 1000,
        carriers => {array, Carriers},
        links => {array, [#{name => Name, title => Title} || {Name, Title, _} <- Links]}
    },
    Steps = [{Link, Carrier} || Link <- Links, Carrier <- Carriers],
    quic_dist_bench_results:rounds(
        Json,
        Facts,
        fun(Round, Results) ->
            lists:foldl(
                fun({{Name, _, Settings}, Carrier}, Results0) ->
                    Measure = fun() -> measure(Carrier, Settings, Round, Dir, Millis) end,
                    {_, Results1} = quic_dist_bench_results:attempt(
                        Name, Carrier, Round, Measure, Results0
                    ),
                    Results1
                end,
                Results,
                Steps
            )
        end,
        quic_dist_bench_results:new()
    ).

link_named(Name) ->
    case lists:keyfind(Name, 1, links()) of
        false ->
            Names = lists:join(" ", [N || {N, _, _} <- links()]),
            stop("LINKS: ~s is none of ~s", [Name, Names]);
        Link ->
            Link
    end.

carriers() ->
    Modes = [Mode || Mode <- ?MODES, quic_dist_bench_nodes:unavailable(Mode) =:= false],
    Default = case Modes of [] -> [?MODE]; _ -> Modes end,
    quic_dist_bench_results:words("CARRIERS", ?CARRIERS ++ Default).

is_available(Carrier) ->
    case quic_dist_bench_nodes:unavailable(Carrier) of
        false ->
            true;
        Reason ->
            io:format(standard_error, "~s is not measured: ~s~n", [Carrier, Reason]),
            false
    end.

-spec stop(string(), [term()]) -> no_return().
stop(Format, Args) ->
    io:format(standard_error, Format ++ "~n", Args),
    halt(2).

measure(Carrier, Settings, Seed, Dir, Millis) ->
    {Link, Ends} = open_link(Settings, Seed),
    try
        Pings = with_nodes(Carrier, Dir, Ends, fun(A, B) -> load(A, B, Millis) end),
        Pings ++ [{"link lag ms", lists:max(lags(Link))}]
    after
        port_close(Link)
    end.

with_nodes(Carrier, Dir, [EndA, EndB], Fun) ->
    A = start(Carrier, Dir, EndA),
    try
        B = start(Carrier, Dir, EndB),
        try
            Fun(A, B)
        after
            quic_dist_bench_nodes:stop(B)
        end
    after
        quic_dist_bench_nodes:stop(A)
    end.

load(A, B, Millis) ->
    Name = quic_dist_bench_nodes:name(B),
    pong = quic_dist_bench_nodes:call(A, net_adm, ping, [Name]),
    {Pings, RoundTrips} = quic_dist_bench_nodes:on(
        A, pings_in_exchange, [Name, ?SENDERS, ?SIZE, Millis]
    ),
    [{lists:concat(["ping p", P, " ms"]), Ms} || {P, Ms} <- Pings] ++
        [{"round trips", RoundTrips}, {"MB/s each way", RoundTrips * ?SIZE / Millis / 1000}].

%% `ip netns exec' becomes the program that it starts: killing it kills the node.
start(Carrier, Dir, {Namespace, Address}) ->
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    Args = ["-start_epmd", "false", "-erl_epmd_port", "4370"],
    quic_dist_bench_nodes:start(Carrier, Args, Dir, #{
        host => Address,
        exec => {os:find_executable("ip"), ["netns", "exec", Namespace, Erl]}
    }).

%% The link lives until its standard input ends.
open_link(Settings, Seed) ->
    Words = string:lexemes(?SETTINGS ++ Settings, " ") ++ ["seed", integer_to_list(Seed)],
    Port = open_port({spawn_executable, ?LINK}, [{args, Words}, {line, 1024}, exit_status]),
    receive
        {Port, {data, {eol, Line}}} ->
            ["ready", NamespaceA, AddressA, NamespaceB, AddressB] = string:lexemes(Line, " "),
            {Port, [{NamespaceA, AddressA}, {NamespaceB, AddressB}]};
        {Port, {exit_status, _}} ->
            stop("make wan: there is no link", [])
    after ?TIMEOUT ->
        error(link)
    end.

%% By how much the link's own program was late at most, each way: what it adds to the link, for it
%% shares the machine with what it measures.
lags(Link) ->
    true = port_command(Link, "stats\n"),
    [
        receive
            {Link, {data, {eol, Line}}} ->
                list_to_integer(lists:last(string:lexemes(Line, " "))) / 1000
        after ?TIMEOUT ->
            error(link)
        end
     || _ <- [a, b]
    ].
