%% @doc What happens to links and to the sidecar, for processes that want to know: subscribers get a
%% message for each event, and the library `telemetry', where that is loaded, is called.
%%
%% A process of its own, so that neither a slow telemetry handler nor a great number of subscribers
%% holds up `quic_dist_port', which tells it what happens and never waits. It owns the subscriptions
%% and what is known of each link from its beginning to its end.
-module(quic_dist_events).
-behaviour(gen_server).

-export([start_link/0]).
-export([subscribe/1, unsubscribe/1]).
-export([tell/1, logged/2, kinds/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([kind/0, event/0, happening/0]).

-type kind() ::
    up
    | down
    | connect_failed
    | refused
    | untrusted
    | flood
    | certificates
    | certificate_expires
    | certificates_failed
    | listening
    | sidecar_up
    | sidecar_down
    | stopped.
%% `up': a peer is authenticated and its link is there; the distribution handshake follows. `down':
%% that link has ended. `connect_failed': this node did not reach a peer. `refused': this node
%% turned an inbound connection away. `untrusted': a link was closed since the peer is not trusted
%% any more. `flood': inbound connections are dropped. `certificates': which are in use from
%% files; `certificate_expires': one does soon, or has; `certificates_failed': changed files
%% cannot be used. `listening', `sidecar_up', `sidecar_down': as they say. `stopped': distribution
%% ends, and there are no events any more.

-type event() :: #{event := kind(), atom() => term()}.
%% `up' and `down' have `node', `channel', `address' (IP address and UDP port), `direction'
%% (`dialled' or `accepted'); `up' may have `identity', what the peer's certificate names; `down'
%% has `reason' (of portproto/PROTOCOL.md, section 7, or `sidecar_down'), `text' and `uptime' in
%% milliseconds. `connect_failed' has `node' and `text'. What the sidecar reports has a `text' and
%% `facts', a map of binaries. `certificates' has `certificates', as {@link quic_dist:info/0} has.
%% `listening' has `address'; `sidecar_up' has `os_pid' and `executable'; `sidecar_down' has
%% `text'. A `node' is an atom, or a binary if this VM has no such atom.

-type happening() ::
    {up, Id :: non_neg_integer(), Node :: binary(), dialled | accepted, Facts :: map()}
    | {down, Id :: non_neg_integer(), Reason :: atom(), Text :: binary()}
    | {sidecar_down, Text :: string()}
    | event().
%% What `quic_dist_port' and the carrier tell.

-record(link, {facts :: map(), since :: integer()}).

-record(state, {
    subscribers = #{} :: #{reference() => {pid(), all | [kind()]}},
    links = #{} :: #{non_neg_integer() => #link{}}
}).

-define(MAX_SUBSCRIBERS, 1024).
-define(CALL_TIMEOUT, 5000).

%% @private
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc All kinds of events.
-spec kinds() -> [kind(), ...].
kinds() ->
    [
        up,
        down,
        connect_failed,
        refused,
        untrusted,
        flood,
        certificates,
        certificate_expires,
        certificates_failed,
        listening,
        sidecar_up,
        sidecar_down,
        stopped
    ].

%% @doc The caller gets `{quic_dist, Reference, event()}' for each event of these kinds, until it
%% unsubscribes or ends.
-spec subscribe(all | [kind()]) ->
    {ok, reference()} | {error, {bad_kind, term()} | quic_dist_port:reason()}.
subscribe(all) ->
    call({subscribe, all});
subscribe(Kinds) when is_list(Kinds) ->
    case Kinds -- kinds() of
        [] -> call({subscribe, Kinds});
        [Unknown | _] -> {error, {bad_kind, Unknown}}
    end;
subscribe(Other) ->
    {error, {bad_kind, Other}}.

%% @doc Ends a subscription of the caller. No message of it is left in the mailbox.
-spec unsubscribe(reference()) -> ok.
unsubscribe(Reference) ->
    _ = call({unsubscribe, Reference}),
    forget(Reference).

forget(Reference) ->
    receive
        {quic_dist, Reference, _} -> forget(Reference)
    after 0 ->
        ok
    end.

call(Request) ->
    try
        gen_server:call(?MODULE, Request, ?CALL_TIMEOUT)
    catch
        exit:{timeout, _} -> {error, {timeout, "events are held up by a telemetry handler"}};
        exit:{_, _} -> {error, {down, "distribution over QUIC is not running"}}
    end.

%% @doc Tells what has happened. Does not wait.
-spec tell(happening()) -> ok.
tell(Happening) ->
    gen_server:cast(?MODULE, Happening).

%% @doc Tells what the sidecar has logged, if it is an event, and logs it, if the option `log_level'
%% wants it: events come at any level.
-spec logged(quic_dist_proto:fields(), logger:level()) -> ok.
logged(#{level := Level, what := What, facts := Facts} = Log, Least) ->
    case Log of
        #{event := Kind} -> tell(#{event => Kind, text => What, facts => maps:from_list(Facts)});
        _ -> ok
    end,
    case logger:compare_levels(Level, Least) of
        lt -> ok;
        _ -> quic_dist_log:log(area(Log), Level, What, Facts)
    end.

area(#{event := _}) -> security;
area(_) -> sidecar.

%% gen_server

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({subscribe, _}, _, #state{subscribers = Subscribers} = State) when
    map_size(Subscribers) >= ?MAX_SUBSCRIBERS
->
    {reply, {error, {limit, "there are 1024 subscribers already"}}, State};
handle_call({subscribe, Kinds}, {Pid, _}, #state{subscribers = Subscribers} = State) ->
    Reference = monitor(process, Pid),
    {reply, {ok, Reference}, State#state{subscribers = Subscribers#{Reference => {Pid, Kinds}}}};
handle_call({unsubscribe, Reference}, {Pid, _}, #state{subscribers = Subscribers} = State) ->
    case Subscribers of
        #{Reference := {Pid, _}} ->
            demonitor(Reference, [flush]),
            {reply, ok, State#state{subscribers = maps:remove(Reference, Subscribers)}};
        _ ->
            {reply, ok, State}
    end.

%% @private
-spec handle_cast(happening(), #state{}) -> {noreply, #state{}}.
handle_cast({up, Id, Node, Direction, Facts0}, #state{links = Links} = State) ->
    Facts = Facts0#{node => quic_dist_info:name(Node), channel => Id, direction => Direction},
    publish(Facts#{event => up}, State),
    Link = #link{facts = maps:remove(identity, Facts), since = now_ms()},
    {noreply, State#state{links = Links#{Id => Link}}};
handle_cast({down, Id, Reason, Text}, #state{links = Links} = State) ->
    case maps:take(Id, Links) of
        {Link, Rest} ->
            ended(Link, Reason, Text, State),
            {noreply, State#state{links = Rest}};
        error ->
            %% Nobody has been told that it was up.
            {noreply, State}
    end;
handle_cast({sidecar_down, Text}, #state{links = Links} = State) ->
    Words = unicode:characters_to_binary(Text),
    maps:foreach(fun(_, Link) -> ended(Link, sidecar_down, Words, State) end, Links),
    publish(#{event => sidecar_down, text => Words}, State),
    {noreply, State#state{links = #{}}};
handle_cast(#{event := _} = Event, State) ->
    publish(Event, State),
    {noreply, State}.

ended(#link{facts = Facts, since = Since}, Reason, Text, State) ->
    Event = #{event => down, reason => Reason, text => Text, uptime => now_ms() - Since},
    publish(maps:merge(Facts, Event), State).

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', Reference, process, _, _}, #state{subscribers = Subscribers} = State) ->
    {noreply, State#state{subscribers = maps:remove(Reference, Subscribers)}};
handle_info(Message, State) ->
    quic_dist_log:log(warning, "unexpected message", [{message, Message}]),
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, State) ->
    publish(#{event => stopped}, State).

now_ms() ->
    erlang:monotonic_time(millisecond).

publish(#{event := Kind} = Event, #state{subscribers = Subscribers}) ->
    maps:foreach(
        fun(Reference, {Pid, Kinds}) ->
            case Kinds =:= all orelse lists:member(Kind, Kinds) of
                true -> Pid ! {quic_dist, Reference, Event};
                false -> ok
            end
        end,
        Subscribers
    ),
    telemetry(Kind, maps:remove(event, Event)).

%% Called by name: it is no dependency, and at boot it is never there.
telemetry(Kind, Metadata0) ->
    Module = telemetry,
    case erlang:function_exported(Module, execute, 3) of
        true ->
            Time = #{system_time => erlang:system_time()},
            {Measurements, Metadata} =
                case maps:take(uptime, Metadata0) of
                    {Uptime, Rest} ->
                        Duration = erlang:convert_time_unit(Uptime, millisecond, native),
                        {Time#{duration => Duration}, Rest};
                    error ->
                        {Time, Metadata0}
                end,
            try Module:execute([quic_dist, Kind], Measurements, Metadata) of
                _ -> ok
            catch
                Class:Reason ->
                    Facts = [{class, Class}, {reason, Reason}],
                    quic_dist_log:log(warning, "telemetry failed on an event", Facts)
            end;
        false ->
            ok
    end.
