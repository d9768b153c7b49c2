%% @doc What the attacker's bench has a node do: evaluate the lines of its standard input, count
%% what reaches net_kernel, and measure round trips.
-module(quic_dist_attacked).

-export([start/0, attempts/0, ping/3, echo/0]).

-define(COUNTER, quic_dist_attacked_counter).
-define(ECHO, quic_dist_attacked_echo).

%% @doc For `erl -s'. The node ends with its standard input.
-spec start() -> ok.
start() ->
    register(?ECHO, spawn(?MODULE, echo, [])),
    Counter = spawn(fun() -> count({0, 0}) end),
    register(?COUNTER, Counter),
    _ = erlang:trace_pattern({quic_dist, accept_connection, 5}, true, []),
    Accept = {accept, '_', '_', '_', '_'},
    _ = erlang:trace_pattern('receive', [{['_', '_', Accept], [], []}], []),
    1 = erlang:trace(whereis(net_kernel), true, [call, 'receive', {tracer, Counter}]),
    _ = spawn(fun() -> serve(#{}) end),
    ok.

serve(Bindings0) ->
    case io:get_line("") of
        Line when is_list(Line) ->
            {ok, Tokens, _} = erl_scan:string(Line),
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            {value, Value, Bindings} = erl_eval:exprs(Expressions, Bindings0),
            io:format("=> ~0tp~n", [Value]),
            serve(Bindings);
        _ ->
            halt(0, [{flush, false}])
    end.

%% @doc How many connections net_kernel was asked to accept, and how many it had the carrier accept,
%% since the node began.
-spec attempts() -> {non_neg_integer(), non_neg_integer()}.
attempts() ->
    Kernel = whereis(net_kernel),
    Ref = erlang:trace_delivered(Kernel),
    receive
        {trace_delivered, Kernel, Ref} -> ok
    end,
    ?COUNTER ! {attempts, self(), Ref},
    receive
        {Ref, Counts} -> Counts
    end.

count({Asked, Accepted} = Counts) ->
    receive
        {trace, _, 'receive', {accept, _, _, _, _}} ->
            count({Asked + 1, Accepted});
        {trace, _, call, {quic_dist, accept_connection, _}} ->
            count({Asked, Accepted + 1});
        {attempts, From, Ref} ->
            From ! {Ref, Counts},
            count(Counts)
    end.

%% @private
-spec echo() -> no_return().
echo() ->
    receive
        {From, Ref} -> From ! Ref
    end,
    echo().

%% @doc The 50th and the 99th percentile and the longest of `Count' round trips to a node, one each
%% `Interval' milliseconds, in microseconds.
-spec ping(node(), pos_integer(), non_neg_integer()) -> [non_neg_integer()].
ping(Node, Count, Interval) ->
    Times = lists:sort([ping(Node, Interval) || _ <- lists:seq(1, Count)]),
    [lists:nth(max(1, Count * Percent div 100), Times) || Percent <- [50, 99, 100]].

ping(Node, Interval) ->
    timer:sleep(Interval),
    Ref = make_ref(),
    Before = erlang:monotonic_time(microsecond),
    {?ECHO, Node} ! {self(), Ref},
    receive
        Ref -> erlang:monotonic_time(microsecond) - Before
    after 10000 ->
        error({no_answer, Node})
    end.
