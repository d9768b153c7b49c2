%% @doc What runs on the measured nodes: senders and their receivers, round trips, both at once.
%%
%% A measure lasts a time, not a number of messages: senders send until it is over and then say how
%% many they sent; the clock stops when each receiver has answered that it has them all.
-module(quic_dist_bench_node).

-export([run/2, send/5, round_trips/3, round_trips_in_bulk/3, pings_in_exchange/4]).
-export_type([window/0]).
%% Started on the other node.
-export([receiver/3, echo/0]).

-define(WARM_UP, 200).
-define(BULK_SIZE, 1048576).
-define(PING_INTERVAL, 10).
-define(EXCHANGE_PING_INTERVAL, 20).
%% How long answers that are missing when the time is over are waited for.
-define(PATIENCE, 30000).

-type window() :: infinity | pos_integer().
%% How many messages a sender has under way that its receiver has not confirmed. With `infinity'
%% none is confirmed, and what holds a sender back is the carrier's own back-pressure alone.

%% @doc A function of this module, in a process of its own: when a process linked to it ends because
%% something is wrong with what it received, that is an error here, which `peer' passes on.
-spec run(atom(), [term()]) -> term().
run(Function, Args) ->
    {_, Monitor} = spawn_monitor(fun() -> exit({value, apply(?MODULE, Function, Args)}) end),
    receive
        {'DOWN', Monitor, process, _, {value, Value}} -> Value;
        {'DOWN', Monitor, process, _, Reason} -> error(Reason)
    end.

%% @doc `Senders' processes send messages of `Size' bytes for `Millis', each to its own receiver on
%% `Node'. Seconds until the last receiver's answer, and the number of messages.
-spec send(node(), non_neg_integer(), pos_integer(), window(), pos_integer()) ->
    {Seconds :: float(), Messages :: non_neg_integer()}.
send(Node, Size, Senders, Window, Millis) ->
    Collector = self(),
    Payload = payload(Size),
    Pids = [
        spawn_link(fun() -> sender(Collector, Node, Payload, Window) end)
     || _ <- lists:seq(1, Senders)
    ],
    lists:foreach(fun(Pid) -> receive {Pid, ready} -> ok end end, Pids),
    Start = erlang:monotonic_time(),
    lists:foreach(fun(Pid) -> Pid ! {send_until, Start + native(Millis)} end, Pids),
    Counts = [receive {Pid, received, Count} -> Count end || Pid <- Pids],
    {micros_since(Start) / 1.0e6, lists:sum(Counts)}.

sender(Collector, Node, Payload, Window) ->
    Receiver = spawn_link(Node, ?MODULE, receiver, [self(), byte_size(Payload), Window]),
    receive
        {Receiver, ready} -> Collector ! {self(), ready}
    end,
    receive
        {send_until, Deadline} -> ok
    end,
    Count = send_until(Deadline, Receiver, Payload, Window, 0),
    Receiver ! {done, Count},
    receive
        {Receiver, received, Count} -> Collector ! {self(), received, Count}
    end.

%% The number stands beside the payload: building a payload with the number inside would cost more
%% than some carriers take to send it.
send_until(Deadline, Receiver, Payload, Window, Seq) ->
    case Seq >= Window of
        true -> receive {Receiver, took} -> ok end;
        false -> ok
    end,
    Receiver ! {Seq, Payload},
    case erlang:monotonic_time() < Deadline of
        true -> send_until(Deadline, Receiver, Payload, Window, Seq + 1);
        false -> Seq + 1
    end.

%% @doc Takes a sender's messages. One that is missing, out of order, of another size or, one in
%% 64, of other bytes is a crash, which the links carry to whoever measures.
-spec receiver(pid(), non_neg_integer(), window()) -> term().
receiver(Sender, Size, Window) ->
    Payload = payload(Size),
    Sender ! {self(), ready},
    Count = take(0, Sender, Payload, Window),
    Sender ! {self(), received, Count}.

take(Next, Sender, Expected, Window) ->
    receive
        {Seq, Payload} when is_integer(Seq) ->
            Next = Seq,
            true = byte_size(Payload) =:= byte_size(Expected),
            true = Seq band 63 =/= 0 orelse Payload =:= Expected,
            _ = Window =:= infinity orelse (Sender ! {self(), took}),
            take(Next + 1, Sender, Expected, Window);
        {done, Count} ->
            Next = Count
    end.

%% @doc Times of a message of `Size' bytes there and back, one at a time for `Millis': median and
%% 99th percentile in microseconds.
-spec round_trips(node(), non_neg_integer(), pos_integer()) -> {P50 :: float(), P99 :: float()}.
round_trips(Node, Size, Millis) ->
    Payload = payload(Size),
    Echo = spawn_link(Node, ?MODULE, echo, []),
    _ = round_trips_until(erlang:monotonic_time() + native(?WARM_UP), Echo, Payload, []),
    Times = round_trips_until(erlang:monotonic_time() + native(Millis), Echo, Payload, []),
    unlink(Echo),
    exit(Echo, kill),
    percentiles(Times).

round_trips_until(Deadline, Echo, Payload, Times) ->
    Time = timed_round_trip(Echo, Payload),
    case erlang:monotonic_time() < Deadline of
        true -> round_trips_until(Deadline, Echo, Payload, [Time | Times]);
        false -> [Time | Times]
    end.

timed_round_trip(Echo, Payload) ->
    Start = erlang:monotonic_time(),
    ok = round_trip(Echo, Payload),
    micros_since(Start).

round_trip(Echo, Payload) ->
    Echo ! {self(), Payload},
    receive
        {Echo, Answer} when byte_size(Answer) =:= byte_size(Payload) -> ok
    end.

%% @doc Answers messages.
-spec echo() -> no_return().
echo() ->
    receive
        {From, Payload} -> From ! {self(), Payload}
    end,
    echo().

%% @doc Round trips of empty messages while another process sends messages of 1 MB, and how much
%% these were, in MB/s.
%%
%% Each has a process of its own and they begin at fixed intervals, whatever became of the others.
%% (One after the other they would hide a flow that lets nobody else send: there would be few of
%% them while it runs.)
-spec round_trips_in_bulk(node(), window(), pos_integer()) ->
    {P50 :: float(), P99 :: float(), Flow :: float()}.
round_trips_in_bulk(Node, Window, Millis) ->
    Self = self(),
    Echo = spawn_link(Node, ?MODULE, echo, []),
    ok = round_trip(Echo, <<>>),
    Flow = spawn_link(fun() ->
        Self ! {self(), send(Node, ?BULK_SIZE, 1, Window, ?WARM_UP + Millis)}
    end),
    timer:sleep(?WARM_UP),
    Pids = [
        begin
            timer:sleep(?PING_INTERVAL),
            spawn_link(fun() -> Self ! {self(), timed_round_trip(Echo, <<>>)} end)
        end
     || _ <- lists:seq(1, Millis div ?PING_INTERVAL)
    ],
    {P50, P99} = percentiles([receive {Pid, Time} -> Time end || Pid <- Pids]),
    unlink(Echo),
    exit(Echo, kill),
    receive
        {Flow, {Seconds, Messages}} -> {P50, P99, Messages * ?BULK_SIZE / Seconds / 1.0e6}
    end.

%% @doc A small message there and back every 20 ms for `Millis', while `Senders' other processes
%% send `Size' bytes each, wait for as many from their own receiver, and do it again: percentiles in
%% milliseconds, and how many of the others' round trips there were until the time was over.
%%
%% One process sends at fixed times and takes answers as they come. The time of a ping begins when
%% it should have been sent: what suspends that process is part of it.
-spec pings_in_exchange(node(), pos_integer(), non_neg_integer(), pos_integer()) ->
    {[{Percent :: 1..100, Millis :: number()}], RoundTrips :: non_neg_integer()}.
pings_in_exchange(Node, Senders, Size, Millis) ->
    [PingEcho | Echoes] = [spawn_link(Node, ?MODULE, echo, []) || _ <- lists:seq(0, Senders)],
    lists:foreach(fun(Echo) -> ok = round_trip(Echo, <<>>) end, [PingEcho | Echoes]),
    Payload = payload(Size),
    Done = counters:new(1, []),
    Start = erlang:monotonic_time(millisecond) + 1,
    Pids = [spawn_link(fun() -> exchange(Echo, Payload, Done) end) || Echo <- Echoes],
    At = fun(Offset, What) ->
        erlang:send_after(Start + Offset, self(), What, [{abs, true}])
    end,
    Count = Millis div ?EXCHANGE_PING_INTERVAL,
    _ = [At(N * ?EXCHANGE_PING_INTERVAL, {ping, N}) || N <- lists:seq(0, Count - 1)],
    _ = At(Millis, over),
    _ = At(Millis + ?PATIENCE, give_up),
    {Times, RoundTrips} = pings(PingEcho, Count, Start, {Pids, Done, 0}, #{}),
    Sorted = lists:sort(maps:values(Times)),
    {[{P, percentile(P, Sorted)} || P <- [10, 25, 50, 75, 90, 95, 99, 100]], RoundTrips}.

exchange(Echo, Payload, Done) ->
    ok = round_trip(Echo, Payload),
    counters:add(Done, 1, 1),
    exchange(Echo, Payload, Done).

%% Ends when the time is over and each ping has a time. One that is never answered has at least the
%% time that it was waited for.
pings(_, Count, _, {[], _, RoundTrips}, Times) when map_size(Times) =:= Count ->
    {Times, RoundTrips};
pings(Echo, Count, Start, {Pids, Done, RoundTrips} = Exchange, Times) ->
    Time = fun(N) ->
        micros_since(native(Start + N * ?EXCHANGE_PING_INTERVAL)) / 1000
    end,
    receive
        {ping, N} ->
            Echo ! {self(), <<N:32>>},
            pings(Echo, Count, Start, Exchange, Times);
        {Echo, <<N:32>>} ->
            pings(Echo, Count, Start, Exchange, Times#{N => Time(N)});
        over ->
            Counted = counters:get(Done, 1),
            lists:foreach(fun(Pid) -> unlink(Pid), exit(Pid, kill) end, Pids),
            pings(Echo, Count, Start, {[], Done, Counted}, Times);
        give_up ->
            Missing = maps:from_list([{N, Time(N)} || N <- lists:seq(0, Count - 1)]),
            {maps:merge(Missing, Times), RoundTrips}
    end.

%% The same bytes on both nodes. The block's length is prime, so that a part of a message in another
%% part's place shows.
payload(Size) ->
    BlockSize = 4093,
    {Block, _} = rand:bytes_s(BlockSize, rand:seed_s(exsss, 1)),
    binary:part(binary:copy(Block, Size div BlockSize + 1), 0, Size).

micros_since(Start) ->
    erlang:convert_time_unit(erlang:monotonic_time() - Start, native, nanosecond) / 1000.

native(Millis) ->
    erlang:convert_time_unit(Millis, millisecond, native).

percentiles(Times) ->
    Sorted = lists:sort(Times),
    {percentile(50, Sorted), percentile(99, Sorted)}.

percentile(P, Sorted) ->
    lists:nth(ceil(length(Sorted) * P / 100), Sorted).
