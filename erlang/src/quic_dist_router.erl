%% @doc Where the frames of a sidecar go, and what the VM wants of a sidecar. Pure, but for
%% monitors: each function takes the state and returns what is to be done, its effects, and the next
%% state. {@link quic_dist_sidecar} performs the effects, in their order.
%%
%% The router knows requests and who waits for their answers, channels and who owns them ({@link
%% quic_dist_owners}), the listener with its acceptor, and the registration. Listener and
%% registration are the VM's: they outlive a sidecar, and {@link listen_again/1} and {@link up/1}
%% give them to the next one. All else ends with the sidecar ({@link down/2}).
-module(quic_dist_router).

-export([new/0, opened/2, up/1, down/2]).
-export([handle/2, is_own/1, own/1]).
-export([next_id/1, requested/4, process_down/2]).
-export([call/3, cast/2, listen_again/1]).
-export([outputs/1, bound/1, count/1, without_secrets/1]).
-export_type([router/0, effect/0, call/0, cast/0]).

-record(router, {
    %% The Erlang port of the sidecar. A channel of another port is one of a sidecar that is gone.
    port :: undefined | port(),
    up = false :: boolean(),
    listener :: undefined | quic_dist_channel:listener(),
    acceptor :: undefined | {pid(), reference()},
    %% Accepted channels that no acceptor has been told of, newest first.
    waiting = [] :: [quic_dist_channel:channel()],
    registration = #{node => <<>>, quic => 0, tcp => 0} :: quic_dist_sidecar:registration(),
    next_id = 1 :: pos_integer(),
    owners = quic_dist_owners:new() :: quic_dist_owners:owners(),
    %% The tokens with which the next sidecar tells the peers of this one's channels that they have
    %% ended, by channel; and those of the sidecars before, which are not yet sent.
    partings = #{} :: #{non_neg_integer() => binary()},
    lost = [] :: [binary()]
}).

-opaque router() :: #router{}.

-type effect() ::
    {reply, gen_statem:from(), Reply :: term()}
    | {send, pid(), Message :: term()}
    | {frame, Tag :: atom(), quic_dist_proto:fields()}
    | {event, quic_dist_feature:topic(), Fields :: map()}
    | {log, logger:level(), unicode:chardata(), quic_dist_log:facts()}.
%% What is to be done: answer a caller, send a message to a process, send a message to the sidecar,
%% tell the features, log a line.

-type call() ::
    {attach, port(), Id :: non_neg_integer(), Input :: pid(), Output :: pid()}
    | {release, port(), Id :: non_neg_integer()}
    | registration.
%% What {@link quic_dist_channel} asks, and what was registered last.

-type cast() ::
    {accept, pid(), quic_dist_channel:listener()}
    | {give_up, port(), Id :: non_neg_integer()}
    | close_listener.

%% The id of the requests that the core makes for itself, whose answers no caller waits for.
-define(OWN, 0).
%% Accepted channels that wait for an acceptor: it is there as soon as quic_dist:listen/2 has
%% returned.
-define(MAX_WAITING, 64).
%% PROTOCOL.md, section 9: tokens in one message; and how many peers are told at most.
-define(MAX_PARTINGS, 256).
-define(MAX_LOST, 4096).

-define(IS_FOUND(State), (State =:= holding orelse State =:= registered)).

%% @doc Nothing is wanted, and there is no sidecar.
-spec new() -> router().
new() ->
    #router{}.

%% @doc A sidecar was started.
-spec opened(port(), router()) -> router().
opened(Port, Router) ->
    Router#router{port = Port}.

%% @doc The sidecar serves. The peers of the last sidecar notice its death when they next send; so
%% this one tells them.
-spec up(router()) -> {[effect()], router()}.
up(#router{lost = Lost, registration = Registration} = Router) ->
    Register =
        case Registration of
            #{quic := 0, tcp := 0} -> [];
            #{} -> [register(Registration)]
        end,
    {partings(Lost) ++ Register, Router#router{up = true, lost = []}}.

partings([]) ->
    [];
partings(Tokens) ->
    {Some, Others} = lists:split(min(?MAX_PARTINGS, length(Tokens)), Tokens),
    [{frame, part, #{tokens => Some}} | partings(Others)].

%% @doc The sidecar is gone, and `Text' says why: whoever waits for an answer gets that, and each
%% channel ends.
-spec down(Text :: string(), router()) -> {[effect()], router()}.
down(Text, #router{owners = Owners, partings = Partings, lost = Lost} = Router) ->
    {Waiting, Inputs} = quic_dist_owners:clear(Owners),
    {
        [{send, Input, closed} || Input <- Inputs] ++
            [{reply, From, {error, {down, Text}}} || From <- Waiting],
        Router#router{
            port = undefined,
            up = false,
            waiting = [],
            partings = #{},
            lost = lists:sublist(maps:values(Partings) ++ Lost, ?MAX_LOST),
            owners = quic_dist_owners:new()
        }
    }.

%% Frames

%% @doc A frame from the sidecar. `feature': it is a feature's. `broken': it breaks the control
%% protocol.
-spec handle(quic_dist_proto:frame() | quic_dist_proto:refusal(), router()) ->
    {ok, [effect()], router()}
    | {feature, quic_dist_feature:topic(), quic_dist_proto:fields()}
    | broken.
handle({data, Id, Payload}, #router{owners = Owners} = Router) ->
    case quic_dist_owners:handlers(Id, Owners) of
        {Input, _} -> {ok, [{send, Input, {data, Payload}}], Router};
        %% It crossed our close.
        undefined -> {ok, [], Router}
    end;
handle({credit, Id, Bytes}, #router{owners = Owners} = Router) ->
    case quic_dist_owners:handlers(Id, Owners) of
        {_, Output} -> {ok, [{send, Output, {credit, Bytes}}], Router};
        undefined -> {ok, [], Router}
    end;
handle({control, parting, #{channel := Id, token := Token}}, Router) ->
    {ok, [], Router#router{partings = (Router#router.partings)#{Id => Token}}};
handle({control, accepted, #{node := Node} = Fields}, Router) ->
    case channel(Fields, Router) of
        {ok, Channel} -> accepted(Channel, Node, Fields, Router);
        error -> broken
    end;
handle({control, closed, #{channel := Id} = Fields}, Router) ->
    closed(Id, Fields, Router);
handle({control, registration, Fields}, Router) ->
    {ok, [log_registration(Fields)], Router};
handle({control, Tag, #{id := ?OWN} = Fields}, Router) ->
    own_answer(Tag, Fields, Router);
handle({control, Tag, #{id := Id} = Fields}, #router{owners = Owners0} = Router) ->
    case {Tag, quic_dist_owners:answered(Id, Owners0)} of
        {error, {{_, From}, Owners}} ->
            #{code := Code, text := Text} = Fields,
            Reply = {error, {Code, unicode:characters_to_list(Text)}},
            {ok, reply(From, Reply), Router#router{owners = Owners}};
        {Tag, {{{Tag, Parameters}, From}, Owners}} ->
            answered(Tag, Fields, Parameters, From, Router#router{owners = Owners});
        _ ->
            broken
    end;
handle({control, Tag, Fields}, _) ->
    {feature, Tag, Fields};
handle({error, _, _}, _) ->
    broken.

accepted(#{id := Id}, _, _, #router{acceptor = undefined, waiting = Waiting} = Router) when
    length(Waiting) >= ?MAX_WAITING
->
    {ok, [close(Id)], Router};
accepted(Channel, Node, Fields, Router0) ->
    {Effects, Router} = hand_over(Channel, Router0),
    {ok, channel_up(accepted, Channel, Node, Fields) ++ Effects, Router}.

closed(Id, Fields, #router{owners = Owners0, waiting = Waiting, partings = Partings} = Router0) ->
    Router = Router0#router{partings = maps:remove(Id, Partings)},
    Event = {event, channel_down, maps:with([channel, reason, text], Fields)},
    case quic_dist_owners:close(Id, Owners0) of
        {{Input, _}, Owners} ->
            {ok, [Event, {send, Input, closed}], Router#router{owners = Owners}};
        {undefined, Owners} ->
            {ok, [Event], Router#router{owners = Owners}};
        error ->
            Others = [Channel || #{id := Other} = Channel <- Waiting, Other =/= Id],
            {ok, [Event], Router#router{waiting = Others}}
    end.

%% @doc Fields of a request that the core makes for itself.
-spec own(quic_dist_proto:fields()) -> quic_dist_proto:fields().
own(Fields) ->
    Fields#{id => ?OWN}.

%% @doc Does this answer a request that the core has made for itself?
-spec is_own(quic_dist_proto:frame() | quic_dist_proto:refusal()) -> boolean().
is_own({control, _, #{id := ?OWN}}) -> true;
is_own(_) -> false.

own_answer(registered, #{state := State}, Router) when ?IS_FOUND(State) ->
    {ok, [], Router};
own_answer(registered, Fields, Router) ->
    {ok, [log_registration(Fields)], Router};
own_answer(error, #{text := Text}, Router) ->
    {ok, [{log, error, Text, []}], Router};
own_answer(Tag, _, Router) when Tag =:= listening; Tag =:= ok ->
    %% The listener is there again, or it is closed.
    {ok, [], Router};
own_answer(_, _, _) ->
    broken.

log_registration(#{state := State, address := Address, port := Port, text := Text}) ->
    Level =
        case ?IS_FOUND(State) of
            true -> notice;
            false -> warning
        end,
    Facts = [{address, Address}, {port, Port}] ++ [{why, Text} || Text =/= <<>>],
    {log, Level, ["the names of this host: ", atom_to_list(State)], Facts}.

%% Requests

%% @doc The id of the next request. Those of requests begin with 1.
-spec next_id(router()) -> pos_integer().
next_id(#router{next_id = Id}) ->
    Id.

%% @doc The request with the next id was sent. Its answer has the tag `Answer'; a cookie among its
%% parameters is not kept.
-spec requested(Answer :: atom(), quic_dist_proto:fields(), gen_statem:from(), router()) ->
    router().
requested(Answer, Parameters, From, #router{next_id = Id, owners = Owners} = Router) ->
    What = {Answer, maps:remove(cookie, Parameters)},
    Router#router{next_id = Id + 1, owners = quic_dist_owners:request(Id, What, From, Owners)}.

answered(listening, #{address := Text, port := UdpPort}, Parameters, From, Router) ->
    case quic_dist_proto:ip(Text) of
        {ok, Ip} ->
            %% The next sidecar listens on the very port that peers know.
            Bound = {Ip, UdpPort},
            Listener = Parameters#{port_min := UdpPort, port_max := UdpPort, bound => Bound},
            Event = {event, listening, #{address => Bound}},
            {ok, [Event | reply(From, {ok, Listener})], Router#router{listener = Listener}};
        error ->
            broken
    end;
answered(registered, #{state := duplicate} = Fields, _, From, Router) ->
    {ok, reply(From, {ok, maps:remove(id, Fields)}), Router};
answered(registered, Fields, Parameters, From, Router) ->
    Registration = maps:with([node, quic, tcp], Parameters),
    Reply = {ok, maps:remove(id, Fields)},
    {ok, reply(From, Reply), Router#router{registration = Registration}};
answered(ok, _, _, From, Router) ->
    {ok, reply(From, ok), Router};
answered(resolved, #{addresses := Texts} = Fields, _, From, Router) ->
    Parsed = [quic_dist_proto:ip(Text) || Text <- Texts],
    case lists:member(error, Parsed) of
        false ->
            Reply = {ok, Fields#{addresses := [Ip || {ok, Ip} <- Parsed]}},
            {ok, reply(From, Reply), Router};
        true ->
            broken
    end;
answered(dialled, #{channel := Id}, _, abandoned, Router) ->
    {ok, [close(Id)], Router};
answered(dialled, Fields, #{node := Node}, {Pid, _} = From, Router) ->
    case channel(Fields, Router) of
        {ok, Channel} ->
            Up = channel_up(dialled, Channel, Node, Fields),
            {ok, Up ++ reply(From, {ok, Channel}), own_channel(Channel, Pid, Router)};
        error ->
            broken
    end;
answered(_, Fields, _, From, Router) ->
    {ok, reply(From, {ok, Fields}), Router}.

reply(abandoned, _) -> [];
reply(From, Reply) -> [{reply, From, Reply}].

%% @doc A process has ended that was monitored here: its request is cancelled, its channel closed.
-spec process_down(reference(), router()) -> {[effect()], router()}.
process_down(Monitor, #router{acceptor = {_, Monitor}} = Router) ->
    {[], Router#router{acceptor = undefined}};
process_down(Monitor, #router{owners = Owners0} = Router) ->
    case quic_dist_owners:down(Monitor, Owners0) of
        {cancel, Id, Owners} -> {[{frame, cancel, #{id => Id}}], Router#router{owners = Owners}};
        {close, Id, Owners} -> {[close(Id)], Router#router{owners = Owners}};
        error -> {[], Router}
    end.

%% What the VM wants

%% @doc Does what a caller asks, and answers it. A channel of a sidecar that is gone is closed;
%% where it has a socket, the end of that shows it.
-spec call(call(), gen_statem:from(), router()) -> {[effect()], router()}.
call(registration, From, #router{registration = Registration} = Router) ->
    {reply(From, Registration), Router};
call({attach, Port, Id, Input, Output}, From, #router{port = Port, owners = Owners0} = Router) ->
    case quic_dist_owners:attach(Id, Input, Output, Owners0) of
        {ok, Owners} -> {reply(From, ok), Router#router{owners = Owners}};
        error -> {reply(From, {error, closed}), Router}
    end;
call({attach, _, _, _, _}, From, Router) ->
    {reply(From, {error, closed}), Router};
call({release, Port, Id}, From, #router{port = Port, owners = Owners} = Router) ->
    {reply(From, ok), Router#router{owners = quic_dist_owners:release(Id, Owners)}};
call({release, _, _}, From, Router) ->
    {reply(From, ok), Router}.

%% @doc Does what nobody waits for. A new acceptor gets the channels that wait, the oldest first,
%% and brings its listener to a router that has none, since that began after the acceptor. The UDP
%% port of a listener that is closed is withdrawn from the registration, so that no peer finds it.
-spec cast(cast(), router()) -> {[effect()], router()}.
cast({accept, Pid, Listener}, #router{waiting = Waiting} = Router0) ->
    Router1 = Router0#router{acceptor = {Pid, monitor(process, Pid)}, waiting = []},
    {Effects, Router} = hand_over_all(lists:reverse(Waiting), Router1),
    case Router of
        #router{listener = undefined, up = Up} ->
            {Effects ++ [listen(Listener) || Up], Router#router{listener = Listener}};
        _ ->
            {Effects, Router}
    end;
cast(close_listener, #router{up = Up, listener = Listener} = Router0) ->
    {Withdrawn, Router} = withdraw_quic(Router0#router{listener = undefined}),
    case Up andalso Listener =/= undefined of
        true -> {[{frame, close_listener, own(#{})} | Withdrawn], Router};
        false -> {[], Router}
    end;
cast({give_up, Port, Id}, #router{port = Port, owners = Owners0} = Router) ->
    case quic_dist_owners:close(Id, Owners0) of
        {_, Owners} -> {[close(Id)], Router#router{owners = Owners}};
        error -> {[], Router}
    end;
cast({give_up, _, _}, Router) ->
    {[], Router}.

%% @doc Makes a sidecar that is configured listen as the last one did, if that did.
-spec listen_again(router()) -> [effect()].
listen_again(#router{listener = undefined}) -> [];
listen_again(#router{listener = Listener}) -> [listen(Listener)].

listen(Listener) ->
    {frame, listen, own(maps:remove(bound, Listener))}.

withdraw_quic(#router{registration = #{quic := UdpPort} = Before} = Router) when UdpPort > 0 ->
    Registration = Before#{quic := 0},
    {[register(Registration)], Router#router{registration = Registration}};
withdraw_quic(Router) ->
    {[], Router}.

register(Registration) ->
    {frame, register, own(Registration)}.

%% Channels

channel(#{channel := Id, address := Text, port := UdpPort} = Fields, #router{port = Port}) ->
    case quic_dist_proto:ip(Text) of
        {ok, Ip} ->
            Path = maps:with(
                [streams, credit, socket, token, identity, meeting, meeting_token], Fields
            ),
            Channel = #{id => Id, port => Port, address => Ip, udp_port => UdpPort},
            {ok, maps:merge(maps:merge(Path, claim(Fields)), Channel)};
        error ->
            error
    end.

claim(#{node := Node} = Fields) ->
    #{claim => {Node, maps:get(identity, Fields, undefined)}};
claim(_) ->
    #{}.

%% A channel that gives way to a local link is no link, from its beginning to its end.
channel_up(_, #{meeting := _}, _, _) ->
    [];
channel_up(Direction, #{id := Id, address := Ip, udp_port := UdpPort}, Node, Fields) ->
    [
        {event, channel_up, (maps:with([identity], Fields))#{
            channel => Id, node => Node, direction => Direction, address => {Ip, UdpPort}
        }}
    ].

hand_over_all(Channels, Router0) ->
    lists:foldl(
        fun(Channel, {Effects, Router}) ->
            {More, Next} = hand_over(Channel, Router),
            {Effects ++ More, Next}
        end,
        {[], Router0},
        Channels
    ).

hand_over(Channel, #router{acceptor = undefined, waiting = Waiting} = Router) ->
    {[], Router#router{waiting = [Channel | Waiting]}};
hand_over(Channel, #router{acceptor = {Pid, _}} = Router) ->
    {[{send, Pid, {accepted, Channel}}], own_channel(Channel, Pid, Router)}.

own_channel(#{id := Id}, Pid, #router{owners = Owners} = Router) ->
    Router#router{owners = quic_dist_owners:own(Id, Pid, Owners)}.

close(Id) ->
    {frame, close, #{channel => Id}}.

%% @doc The output handlers of all channels that have one.
-spec outputs(router()) -> [pid()].
outputs(#router{owners = Owners}) ->
    quic_dist_owners:outputs(Owners).

%% What is known

%% @doc The IP address and the UDP port at which a sidecar has listened for this node.
-spec bound(router()) -> {inet:ip_address(), inet:port_number()} | undefined.
bound(#router{listener = #{bound := Bound}}) -> Bound;
bound(_) -> undefined.

%% @doc The number of channels that have an owner.
-spec count(router()) -> non_neg_integer().
count(#router{owners = Owners}) ->
    quic_dist_owners:count(Owners).

%% @doc What may be shown: without tokens, and without what requests are made with.
-spec without_secrets(router()) -> router().
without_secrets(#router{waiting = Waiting, owners = Owners} = Router) ->
    Router#router{
        partings = #{},
        lost = [],
        waiting = [maps:without([token, meeting_token], Channel) || Channel <- Waiting],
        owners = quic_dist_owners:without_parameters(Owners)
    }.
