%% @doc Deadlines of tests, and waiting for what sends no event.
%%
%% The environment variable QUIC_DIST_TEST_SCALE (a number, default 1) multiplies every deadline.
-module(quic_dist_wait).

-export([scale/1, deadline/1, left/1, within/3]).
-export([wait_until/2, wait_until/3, settled/3, flush/0]).

%% @doc Milliseconds, times QUIC_DIST_TEST_SCALE.
-spec scale(timeout()) -> timeout().
scale(infinity) ->
    infinity;
scale(Milliseconds) ->
    case os:getenv("QUIC_DIST_TEST_SCALE") of
        false -> Milliseconds;
        Text ->
            Factor =
                case string:to_float(Text) of
                    {error, no_float} -> list_to_integer(Text);
                    {Float, _} -> Float
                end,
            round(Milliseconds * Factor)
    end.

%% @doc wait_until/3 with ten seconds.
-spec wait_until(What :: term(), fun(() -> boolean() | {ok, Value})) -> ok | Value.
wait_until(What, Fun) -> wait_until(What, Fun, 10000).

%% @doc Asks again and again until the answer is `true' or `{ok, Value}'. Fails with
%% `{timeout, What, LastAnswer}' after `Timeout' ms (before scaling). For what sends no event.
-spec wait_until(What :: term(), fun(() -> boolean() | {ok, Value} | term()), timeout()) ->
    ok | Value.
wait_until(What, Fun, Timeout) -> poll(What, Fun, deadline(Timeout)).

poll(What, Fun, Deadline) ->
    case Fun() of
        true -> ok;
        {ok, Value} -> Value;
        Other ->
            case left(Deadline) of
                0 -> error({timeout, What, Other});
                _ ->
                    receive after 20 -> ok end,
                    poll(What, Fun, Deadline)
            end
    end.

%% @doc Asserts that a condition holds now and goes on holding for `Time' ms (not scaled).
-spec settled(What :: term(), fun(() -> boolean()), non_neg_integer()) -> ok.
settled(What, Fun, Time) -> settled_until(What, Fun, erlang:monotonic_time(millisecond) + Time).

settled_until(What, Fun, Deadline) ->
    case Fun() of
        true ->
            case left(Deadline) of
                0 -> ok;
                _ ->
                    receive after 20 -> ok end,
                    settled_until(What, Fun, Deadline)
            end;
        Other ->
            error({not_settled, What, Other})
    end.

%% @doc The monotonic time in so many ms (before scaling).
-spec deadline(timeout()) -> integer().
deadline(Timeout) -> erlang:monotonic_time(millisecond) + scale(Timeout).

%% @doc The milliseconds until a deadline, at least 0.
-spec left(integer()) -> non_neg_integer().
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% @doc All messages in the caller's mailbox, which is empty afterwards.
-spec flush() -> [term()].
flush() ->
    receive
        Message -> [Message | flush()]
    after 0 -> []
    end.

%% @doc Fails if something took longer than `Limit' ms (before scaling).
-spec within(Limit :: non_neg_integer(), Took :: non_neg_integer(), What :: term()) -> ok.
within(Limit, Took, What) ->
    Took =< scale(Limit) orelse error({too_slow, What, Took, Limit}),
    ok.
