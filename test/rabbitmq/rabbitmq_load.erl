%% @doc Clients of RabbitMQ that live in the brokers: they publish and consume numbered messages, by
%% the AMQP client that comes with the broker. `rabbitmqctl eval' calls this module.
-module(rabbitmq_load).

-include_lib("amqp_client/include/amqp_client.hrl").

-export([start/1, begin_at/4, result/1]).

-define(QUORUM, <<"quorum">>).
-define(CLASSIC, <<"classic">>).
-define(PAUSE, 10).
-define(UNCONFIRMED, 200).
-define(PREFETCH, 100).
%% Each so many messages one is large, and goes over a lane of its own.
-define(LARGE_EVERY, 20).
-define(LARGE, 100000).
-define(SMALL, 200).
-define(CONFIRMS, 30000).

%% @doc Starts clients at three brokers. The quorum queue has its leader at the first, its publisher
%% at the second and its consumer at the third; the classic queue is at the second, its publisher at
%% the third, its consumer at the first. So there is traffic between all three.
-spec start([{node(), inet:port_number()}]) -> ok.
start(Brokers) ->
    [
        ok = erpc:call(Node, ?MODULE, begin_at, [Port, Declare, Consume, Publish])
     || {{Node, Port}, {Declare, Consume, Publish}} <- lists:zip(Brokers, [
            {?QUORUM, ?CLASSIC, none}, {?CLASSIC, none, ?QUORUM}, {none, ?QUORUM, ?CLASSIC}
        ])
    ],
    ok.

%% @doc Ends the publishers when all their messages are confirmed, or after 30 s. Returns of each
%% queue how many messages were published, which of them were not confirmed, were refused, and were
%% confirmed and did not arrive in 20 s, how many arrived again or behind a later one, and for how
%% many ms the confirmations were waited for; and the nodedown messages of all brokers.
-spec result([node()]) -> {[{binary(), #{atom() => term()}}], Nodedowns :: [string()]}.
result([First, Second, Third] = Nodes) ->
    Queues = [
        begin
            Began = erlang:monotonic_time(millisecond),
            Published = ask(publisher, PublishedAt, stop),
            Waited = erlang:monotonic_time(millisecond) - Began,
            {Queue, maps:merge(Published#{waited => Waited}, arrived(ConsumedAt, Published, 200))}
        end
     || {Queue, PublishedAt, ConsumedAt} <- [{?QUORUM, Second, Third}, {?CLASSIC, Third, First}]
    ],
    {Queues, lists:append([ask(nodedowns, Node, nodedowns) || Node <- Nodes])}.

arrived(Node, Published, Tries) ->
    #{published := Last, unconfirmed := Unconfirmed, refused := Refused} = Published,
    {Arrived, Again, Overtaken} = ask(consumer, Node, arrived),
    case [N || N <- lists:seq(1, Last) -- Unconfirmed -- Refused, not is_map_key(N, Arrived)] of
        [_ | _] when Tries > 0 ->
            timer:sleep(100),
            arrived(Node, Published, Tries - 1);
        Missing ->
            #{missing => Missing, again => Again, overtaken => Overtaken}
    end.

%% @private
-spec begin_at(inet:port_number(), binary() | none, binary() | none, binary() | none) -> ok.
begin_at(Port, Declare, Consume, Publish) ->
    {ok, _} = application:ensure_all_started(amqp_client),
    process(nodedowns, fun() ->
        ok = net_kernel:monitor_nodes(true, [nodedown_reason]),
        watch([])
    end),
    Declare =:= none orelse declare(channel(Port), Declare),
    Consume =:= none orelse consume(Port, Consume),
    Publish =:= none orelse publish(Port, Publish),
    ok.
%% Processes

process(Name, Fun) ->
    Starter = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        true = register(name(Name), self()),
        Starter ! {self(), started},
        Fun()
    end),
    receive
        {Pid, started} -> demonitor(Monitor, [flush]);
        {'DOWN', Monitor, _, _, Reason} -> error(Reason)
    end.

name(Name) -> list_to_atom("rabbitmq_load_" ++ atom_to_list(Name)).

ask(Name, Node, Question) ->
    Monitor = monitor(process, {name(Name), Node}),
    {name(Name), Node} ! {ask, self(), Monitor, Question},
    receive
        {Monitor, Answer} -> Answer;
        {'DOWN', Monitor, _, _, Reason} -> error({Name, Node, Reason})
    end.

watch(Downs) ->
    receive
        {nodedown, Node, Info} ->
            watch([lists:flatten(io_lib:format("~0p: ~0p", [Node, Info])) | Downs]);
        {nodeup, _, _} ->
            watch(Downs);
        {ask, From, Tag, nodedowns} ->
            From ! {Tag, lists:reverse(Downs)},
            watch(Downs)
    end.

channel(Port) ->
    {ok, Connection} = amqp_connection:start(#amqp_params_network{host = "127.0.0.1", port = Port}),
    {ok, Channel} = amqp_connection:open_channel(Connection),
    Channel.

declare(Channel, Queue) ->
    #'queue.declare_ok'{} = amqp_channel:call(Channel, #'queue.declare'{
        queue = Queue, durable = true, arguments = [{<<"x-queue-type">>, longstr, Queue}]
    }).

wait_for(Queue) ->
    case rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Queue)) of
        {ok, _} ->
            ok;
        {error, not_found} ->
            timer:sleep(100),
            wait_for(Queue)
    end.

%% The publisher

publish(Port, Queue) ->
    process(publisher, fun() ->
        wait_for(Queue),
        Channel = channel(Port),
        #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
        ok = amqp_channel:register_confirm_handler(Channel, self()),
        publish(Channel, Queue, 1, gb_sets:new(), [])
    end).

%% A channel numbers its messages from 1, as we do.
publish(Channel, Queue, N, Open, Refused) ->
    Wait = case gb_sets:size(Open) < ?UNCONFIRMED of true -> ?PAUSE; false -> infinity end,
    receive
        {ask, From, Tag, stop} ->
            Late = erlang:send_after(?CONFIRMS, self(), late),
            {Open1, Refused1} = confirms(Open, Refused),
            _ = erlang:cancel_timer(Late),
            Unconfirmed = gb_sets:to_list(Open1),
            From ! {Tag, #{published => N - 1, unconfirmed => Unconfirmed, refused => Refused1}};
        Confirm when element(1, Confirm) =/= ask ->
            {Open1, Refused1} = confirmed(Confirm, Open, Refused),
            publish(Channel, Queue, N, Open1, Refused1)
    after Wait ->
        Size = case N rem ?LARGE_EVERY of 0 -> ?LARGE; _ -> ?SMALL end,
        ok = amqp_channel:cast(
            Channel,
            #'basic.publish'{routing_key = Queue},
            #amqp_msg{
                props = #'P_basic'{delivery_mode = 2},
                payload = <<N:64, 0:(8 * Size)>>
            }
        ),
        publish(Channel, Queue, N + 1, gb_sets:add(N, Open), Refused)
    end.

confirms(Open, Refused) ->
    case gb_sets:is_empty(Open) of
        true ->
            {Open, Refused};
        false ->
            receive
                late ->
                    {Open, Refused};
                Confirm ->
                    {Open1, Refused1} = confirmed(Confirm, Open, Refused),
                    confirms(Open1, Refused1)
            end
    end.

confirmed(#'basic.ack'{delivery_tag = Tag, multiple = Multiple}, Open, Refused) ->
    {_, Rest} = settled(Tag, Multiple, Open),
    {Rest, Refused};
confirmed(#'basic.nack'{delivery_tag = Tag, multiple = Multiple}, Open, Refused) ->
    {Settled, Rest} = settled(Tag, Multiple, Open),
    {Rest, Settled ++ Refused}.

settled(Tag, false, Open) ->
    {[Tag], gb_sets:del_element(Tag, Open)};
settled(Tag, true, Open) ->
    {Settled, Rest} = lists:splitwith(fun(N) -> N =< Tag end, gb_sets:to_list(Open)),
    {Settled, gb_sets:from_ordset(Rest)}.

%% The consumer

consume(Port, Queue) ->
    process(consumer, fun() ->
        wait_for(Queue),
        Channel = channel(Port),
        #'basic.qos_ok'{} = amqp_channel:call(Channel, #'basic.qos'{prefetch_count = ?PREFETCH}),
        #'basic.consume_ok'{} =
            amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue}, self()),
        consume(Channel, #{}, 0, 0, 0)
    end).

consume(Channel, Arrived, Again, Overtaken, Last) ->
    receive
        {#'basic.deliver'{delivery_tag = Tag}, #amqp_msg{payload = <<N:64, _/binary>>}} ->
            ok = amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Tag}),
            case Arrived of
                #{N := _} ->
                    consume(Channel, Arrived, Again + 1, Overtaken, Last);
                #{} when N < Last ->
                    consume(Channel, Arrived#{N => []}, Again, Overtaken + 1, Last);
                #{} ->
                    consume(Channel, Arrived#{N => []}, Again, Overtaken, N)
            end;
        {ask, From, Tag, arrived} ->
            From ! {Tag, {Arrived, Again, Overtaken}},
            consume(Channel, Arrived, Again, Overtaken, Last);
        #'basic.consume_ok'{} ->
            consume(Channel, Arrived, Again, Overtaken, Last)
    end.
