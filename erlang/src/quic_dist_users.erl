%% @doc Who uses the sidecar: the requests that are under way, and the owners of channels.
%%
%% Each is monitored by the process that keeps this, `quic_dist_port', so that nothing outlives its
%% user. A request's user is who made it; a channel's is who asked for it, or the acceptor, until
%% the channel is attached to the processes that move its data, or released to a socket.
-module(quic_dist_users).

-export([new/0, count/1, clear/1, down/2, without_parameters/1]).
-export([request/4, answered/2]).
-export([own/3, attach/4, release/2, close/2, handlers/2]).
-export_type([users/0, request/0, handlers/0]).

-record(request, {
    from :: gen_statem:from() | abandoned,
    monitor :: reference(),
    what :: term()
}).

-record(channel, {
    %% Of the owner; none once the channel is a socket's.
    monitor :: undefined | reference(),
    handlers :: handlers()
}).

-record(users, {
    requests = #{} :: #{id() => #request{}},
    channels = #{} :: #{id() => #channel{}},
    monitors = #{} :: #{reference() => {request | channel, id()}}
}).

-type id() :: non_neg_integer().

-type request() :: {What :: term(), gen_statem:from() | abandoned}.
%% What was asked for, and who waits for the answer: nobody, if who asked has died.

-type handlers() :: undefined | {Input :: pid(), Output :: pid()}.
%% Where a channel's frames go, once it is attached.

-opaque users() :: #users{}.

%% @doc Nobody.
-spec new() -> users().
new() ->
    #users{}.

%% @doc The number of channels.
-spec count(users()) -> non_neg_integer().
count(#users{channels = Channels}) ->
    maps:size(Channels).

%% @doc What may be shown of users: what was asked for may hold secrets.
-spec without_parameters(users()) -> users().
without_parameters(#users{requests = Requests} = Users) ->
    Users#users{requests = maps:map(fun(_, R) -> R#request{what = '***'} end, Requests)}.

%% @doc Everybody who is to be told that the sidecar is gone: those who wait for answers, and the
%% input handlers. Nobody is monitored any more.
-spec clear(users()) -> {[gen_statem:from()], Inputs :: [pid()]}.
clear(#users{requests = Requests, channels = Channels, monitors = Monitors}) ->
    lists:foreach(fun(Monitor) -> demonitor(Monitor, [flush]) end, maps:keys(Monitors)),
    {
        [From || #request{from = From} <- maps:values(Requests), From =/= abandoned],
        [Input || #channel{handlers = {Input, _}} <- maps:values(Channels)]
    }.

%% @doc A monitored process is down. What it has left is to be cancelled or closed: the request
%% stays until it is answered, the channel is forgotten.
-spec down(reference(), users()) -> {cancel | close, id(), users()} | error.
down(Monitor, #users{requests = Requests, channels = Channels, monitors = Monitors0} = Users) ->
    case maps:take(Monitor, Monitors0) of
        {{request, Id}, Monitors} ->
            #{Id := Request} = Requests,
            Abandoned = Requests#{Id := Request#request{from = abandoned}},
            {cancel, Id, Users#users{requests = Abandoned, monitors = Monitors}};
        {{channel, Id}, Monitors} ->
            {close, Id, Users#users{channels = maps:remove(Id, Channels), monitors = Monitors}};
        error ->
            error
    end.

%% @doc A request is under way. `What' comes back with its answer.
-spec request(id(), What :: term(), gen_statem:from(), users()) -> users().
request(Id, What, {Pid, _} = From, Users0) ->
    {Monitor, Users} = watch(Pid, {request, Id}, Users0),
    Request = #request{from = From, monitor = Monitor, what = What},
    Users#users{requests = (Users#users.requests)#{Id => Request}}.

%% @doc The request with this id has been answered.
-spec answered(id(), users()) -> {request(), users()} | error.
answered(Id, #users{requests = Requests} = Users) ->
    case maps:take(Id, Requests) of
        {#request{from = From, monitor = Monitor, what = What}, Rest} ->
            {{What, From}, unwatch(Monitor, Users#users{requests = Rest})};
        error ->
            error
    end.

%% @doc A new channel is `Pid''s.
-spec own(id(), pid(), users()) -> users().
own(Id, Pid, Users0) ->
    {Monitor, Users} = watch(Pid, {channel, Id}, Users0),
    put_channel(Id, #channel{monitor = Monitor}, Users).

%% @doc From now on the channel is its output handler's.
-spec attach(id(), Input :: pid(), Output :: pid(), users()) -> {ok, users()} | error.
attach(Id, Input, Output, #users{channels = Channels} = Users0) ->
    case Channels of
        #{Id := #channel{monitor = Before, handlers = undefined}} ->
            {Monitor, Users} = watch(Output, {channel, Id}, unwatch(Before, Users0)),
            Channel = #channel{monitor = Monitor, handlers = {Input, Output}},
            {ok, put_channel(Id, Channel, Users)};
        #{} ->
            error
    end.

%% @doc From now on the channel is a socket's. One that has ended meanwhile is nobody's.
-spec release(id(), users()) -> users().
release(Id, #users{channels = Channels} = Users) ->
    case Channels of
        #{Id := #channel{monitor = Before} = Channel} ->
            put_channel(Id, Channel#channel{monitor = undefined}, unwatch(Before, Users));
        #{} ->
            Users
    end.

%% @doc The channel has ended.
-spec close(id(), users()) -> {handlers(), users()} | error.
close(Id, #users{channels = Channels} = Users) ->
    case maps:take(Id, Channels) of
        {#channel{monitor = Monitor, handlers = Handlers}, Rest} ->
            {Handlers, unwatch(Monitor, Users#users{channels = Rest})};
        error ->
            error
    end.

%% @doc Where a channel's frames go; nowhere if it is not attached, or not a channel any more.
-spec handlers(id(), users()) -> handlers().
handlers(Id, #users{channels = Channels}) ->
    case Channels of
        #{Id := #channel{handlers = Handlers}} -> Handlers;
        #{} -> undefined
    end.

put_channel(Id, Channel, #users{channels = Channels} = Users) ->
    Users#users{channels = Channels#{Id => Channel}}.

watch(Pid, What, #users{monitors = Monitors} = Users) ->
    Monitor = monitor(process, Pid),
    {Monitor, Users#users{monitors = Monitors#{Monitor => What}}}.

unwatch(undefined, Users) ->
    Users;
unwatch(Monitor, #users{monitors = Monitors} = Users) ->
    demonitor(Monitor, [flush]),
    Users#users{monitors = maps:remove(Monitor, Monitors)}.
