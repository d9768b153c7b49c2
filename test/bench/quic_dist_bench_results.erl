%% @doc What was measured, and the JSON file that has it: a sample for each value, what failed, the
%% machine and the versions. `test/bench/report' reads it.
-module(quic_dist_bench_results).

-export([new/0, words/2, rounds/4, attempt/5, add/5]).
-export_type([results/0, values/0]).

-define(CEILING, "_build/bench/ceiling").

-record(results, {
    failures = [] :: [iodata()],
    samples = [] :: [#{atom() => iodata() | number()}]
}).

-opaque results() :: #results{}.
-type values() :: [{Metric :: string(), number()}].
-type json() :: #{atom() => json()} | {array, [json()]} | number() | iodata().

%% @doc Nothing measured yet.
-spec new() -> results().
new() -> #results{}.

%% @doc The words of an environment variable, or the default if it has none.
-spec words(string(), [string()]) -> [string()].
words(Variable, Default) ->
    case string:lexemes(os:getenv(Variable, ""), " ,") of
        [] -> Default;
        Words -> Words
    end.

%% @doc As many rounds as the environment variable ROUNDS says, and the file written after each of
%% them, with what `Facts' adds. Then it ends the VM.
-spec rounds(
    file:filename(), #{atom() => json()}, fun((pos_integer(), results()) -> results()), results()
) -> no_return().
rounds(Json, Facts, Round, Results0) ->
    #results{failures = Failures} = lists:foldl(
        fun(Number, Results1) ->
            Results = Round(Number, Results1),
            ok = file:write_file(Json, [json(maps:merge(file(Number, Results), Facts)), $\n]),
            Results
        end,
        Results0,
        lists:seq(1, list_to_integer(hd(words("ROUNDS", ["3"]))))
    ),
    case Failures of
        [] -> halt(0);
        _ -> halt(1)
    end.

%% @doc A measure that fails is told and counts in the exit status; the others are measured all the
%% same.
-spec attempt(string(), string(), pos_integer(), fun(() -> values()), results()) ->
    {ok | failed, results()}.
attempt(Measure, Carrier, Round, Fun, #results{failures = Failures} = Results) ->
    try Fun() of
        Values -> {ok, add(Measure, Carrier, Round, Values, Results)}
    catch
        Class:Reason ->
            Failure = io_lib:format("~s ~s: ~0P", [Measure, Carrier, {Class, Reason}, 20]),
            io:format(standard_error, "~w ~s~n", [Round, Failure]),
            {failed, Results#results{failures = [Failure | Failures]}}
    end.

%% @doc Adds the values of a measure, and prints them.
-spec add(string(), string(), pos_integer(), values(), results()) -> results().
add(Measure, Carrier, Round, Values, #results{samples = Samples} = Results) ->
    New = [
        #{measure => Measure, carrier => Carrier, round => Round, metric => Metric, value => Value}
     || {Metric, Value} <- Values
    ],
    [
        io:format("~w ~-16s ~-14s ~12.2f ~s~n", [Round, Measure, Carrier, float(Value), Metric])
     || {Metric, Value} <- Values
    ],
    Results#results{samples = Samples ++ New}.

file(Rounds, #results{failures = Failures, samples = Samples}) ->
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
