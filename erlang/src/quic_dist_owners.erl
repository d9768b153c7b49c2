%% @doc The requests that are under way, with their callers, and the channels, with their owners.
%%
%% The process that keeps this, `quic_dist_sidecar', monitors callers and owners, so that nothing
%% outlives them. The owner of a channel is the process that dialled, or the acceptor; then the
%% output handler that the channel is attached to, or the socket that it is released to.
-module(quic_dist_owners).

-export([new/0, count/1, clear/1, down/2, without_parameters/1]).
-export([request/4, answered/2]).
-export([own/3, attach/4, release/2, close/2, handlers/2, outputs/1]).
-export_type([owners/0, request/0, handlers/0]).

-record(request, {
    from :: gen_statem:from() | abandoned,
    monitor :: reference(),
    what :: term()
}).

-record(channel, {
    %% Of the owner; none if a socket owns the channel.
    monitor :: undefined | reference(),
    handlers :: handlers()
}).

-record(owners, {
    requests = #{} :: #{id() => #request{}},
    channels = #{} :: #{id() => #channel{}},
    monitors = #{} :: #{reference() => {request | channel, id()}}
}).

-type id() :: non_neg_integer().

-type request() :: {What :: term(), gen_statem:from() | abandoned}.
%% What was asked for, and the caller that waits for the answer; `abandoned', if it has died.

-type handlers() :: undefined | {Input :: pid(), Output :: pid()}.
%% Where a channel's frames go, once it is attached.

-opaque owners() :: #owners{}.

%% @doc No requests, and no channels.
-spec new() -> owners().
new() ->
    #owners{}.

%% @doc The number of channels.
-spec count(owners()) -> non_neg_integer().
count(#owners{channels = Channels}) ->
    maps:size(Channels).

%% @doc What may be shown: what was asked for may hold secrets.
-spec without_parameters(owners()) -> owners().
without_parameters(#owners{requests = Requests} = Owners) ->
    Owners#owners{requests = maps:map(fun(_, R) -> R#request{what = '***'} end, Requests)}.

%% @doc The callers and input handlers that must learn that the sidecar is gone. Ends all monitors.
-spec clear(owners()) -> {[gen_statem:from()], Inputs :: [pid()]}.
clear(#owners{requests = Requests, channels = Channels, monitors = Monitors}) ->
    lists:foreach(fun(Monitor) -> demonitor(Monitor, [flush]) end, maps:keys(Monitors)),
    {
        [From || #request{from = From} <- maps:values(Requests), From =/= abandoned],
        [Input || #channel{handlers = {Input, _}} <- maps:values(Channels)]
    }.

%% @doc A monitored process has ended. Its request must be cancelled, and is kept until it is
%% answered; its channel must be closed, and is forgotten.
-spec down(reference(), owners()) -> {cancel | close, id(), owners()} | error.
down(Monitor, #owners{requests = Requests, channels = Channels, monitors = Monitors0} = Owners) ->
    case maps:take(Monitor, Monitors0) of
        {{request, Id}, Monitors} ->
            #{Id := Request} = Requests,
            Abandoned = Requests#{Id := Request#request{from = abandoned}},
            {cancel, Id, Owners#owners{requests = Abandoned, monitors = Monitors}};
        {{channel, Id}, Monitors} ->
            {close, Id, Owners#owners{channels = maps:remove(Id, Channels), monitors = Monitors}};
        error ->
            error
    end.

%% @doc A request is under way. `What' comes back with its answer.
-spec request(id(), What :: term(), gen_statem:from(), owners()) -> owners().
request(Id, What, {Pid, _} = From, Owners0) ->
    {Monitor, Owners} = watch(Pid, {request, Id}, Owners0),
    Request = #request{from = From, monitor = Monitor, what = What},
    Owners#owners{requests = (Owners#owners.requests)#{Id => Request}}.

%% @doc The request with this id has been answered.
-spec answered(id(), owners()) -> {request(), owners()} | error.
answered(Id, #owners{requests = Requests} = Owners) ->
    case maps:take(Id, Requests) of
        {#request{from = From, monitor = Monitor, what = What}, Rest} ->
            {{What, From}, unwatch(Monitor, Owners#owners{requests = Rest})};
        error ->
            error
    end.

%% @doc A new channel is `Pid''s.
-spec own(id(), pid(), owners()) -> owners().
own(Id, Pid, Owners0) ->
    {Monitor, Owners} = watch(Pid, {channel, Id}, Owners0),
    put_channel(Id, #channel{monitor = Monitor}, Owners).

%% @doc From now on the channel is its output handler's.
-spec attach(id(), Input :: pid(), Output :: pid(), owners()) -> {ok, owners()} | error.
attach(Id, Input, Output, #owners{channels = Channels} = Owners0) ->
    case Channels of
        #{Id := #channel{monitor = Before, handlers = undefined}} ->
            {Monitor, Owners} = watch(Output, {channel, Id}, unwatch(Before, Owners0)),
            Channel = #channel{monitor = Monitor, handlers = {Input, Output}},
            {ok, put_channel(Id, Channel, Owners)};
        #{} ->
            error
    end.

%% @doc From now on the channel is a socket's. One that has ended meanwhile is nobody's.
-spec release(id(), owners()) -> owners().
release(Id, #owners{channels = Channels} = Owners) ->
    case Channels of
        #{Id := #channel{monitor = Before} = Channel} ->
            put_channel(Id, Channel#channel{monitor = undefined}, unwatch(Before, Owners));
        #{} ->
            Owners
    end.

%% @doc The channel has ended.
-spec close(id(), owners()) -> {handlers(), owners()} | error.
close(Id, #owners{channels = Channels} = Owners) ->
    case maps:take(Id, Channels) of
        {#channel{monitor = Monitor, handlers = Handlers}, Rest} ->
            {Handlers, unwatch(Monitor, Owners#owners{channels = Rest})};
        error ->
            error
    end.

%% @doc The output handlers of all channels that have one.
-spec outputs(owners()) -> [pid()].
outputs(#owners{channels = Channels}) ->
    [Output || #channel{handlers = {_, Output}} <- maps:values(Channels)].

%% @doc Where a channel's frames go; nowhere if it is not attached, or not a channel any more.
-spec handlers(id(), owners()) -> handlers().
handlers(Id, #owners{channels = Channels}) ->
    case Channels of
        #{Id := #channel{handlers = Handlers}} -> Handlers;
        #{} -> undefined
    end.

put_channel(Id, Channel, #owners{channels = Channels} = Owners) ->
    Owners#owners{channels = Channels#{Id => Channel}}.

watch(Pid, What, #owners{monitors = Monitors} = Owners) ->
    Monitor = monitor(process, Pid),
    {Monitor, Owners#owners{monitors = Monitors#{Monitor => What}}}.

unwatch(undefined, Owners) ->
    Owners;
unwatch(Monitor, #owners{monitors = Monitors} = Owners) ->
    demonitor(Monitor, [flush]),
    Owners#owners{monitors = maps:remove(Monitor, Monitors)}.
