%% @doc Events of links and of the sidecar: subscribers get a message for each, and the library
%% `telemetry' is called, if it is loaded.
%%
%% This process owns the subscriptions. It is apart from {@link quic_dist_links}, which tells it
%% each event and never waits, so that a slow telemetry handler or many subscribers hold up nothing
%% else.
-module(quic_dist_events).
-behaviour(gen_server).

-export([start_link/0]).
-export([subscribe/1, unsubscribe/1]).
-export([tell/1, kinds/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([kind/0, event/0]).

-type kind() ::
    up
    | down
    | connect_failed
    | connection_ended
    | connection_resumed
    | refused
    | untrusted
    | flood
    | certificates
    | certificate_expires
    | certificates_failed
    | key_expires
    | listening
    | sidecar_up
    | sidecar_down
    | stopped.
%% `up': the distribution handshake of a link to a peer is over. `down': that link has ended.
%% `connect_failed': this node did not reach a peer. `connection_ended': a QUIC connection of a link
%% has ended, and the link waits for another; `connection_resumed': the link goes on over another
%% connection. `refused': this node refused an inbound connection. `untrusted': a link was closed
%% because the peer is not trusted any more. `flood': inbound connections are dropped.
%% `certificates': the certificates in use from files; `certificate_expires': one of them expires
%% soon, or has expired; `certificates_failed': changed files cannot be used. `key_expires': a link
%% over TLS and TCP ends soon, because its key may not encrypt more. `listening', `sidecar_up',
%% `sidecar_down': as they say. `stopped': distribution ends, and no events follow.

-type event() :: #{event := kind(), atom() => term()}.
%% `up' and `down' have `node', `carrier' (`quic', `local', or the form of HTTP: `http', `https',
%% `ws', `wss', `h2', `h3'), `direction' (`dialled' or `accepted') and `address' (IP address and
%% port). Over QUIC they have `channel', over HTTP a dialled link has its `url'. `up' has
%% `identity', as {@link quic_dist:info/1} has. `down' has `reason' (of portproto/PROTOCOL.md,
%% section 7; `sidecar_down'; of local links and over HTTP `closed'), `text', and `uptime' in
%% milliseconds. `connect_failed' has `node' and `text'. What the sidecar reports has a `text' and
%% `facts', a map of binaries. Facts of `connection_ended' are `node', `connection' (1 is the
%% first) and `err'; of `connection_resumed' `node', `connection', `peer', `pause' and `sent_again'
%% (bytes). `certificates' has `certificates', as {@link quic_dist:info/0} has. `listening' has
%% `address'; `sidecar_up' has `os_pid' and `executable'; `sidecar_down' has `text'. A `node' is an
%% atom. In `facts', which may be about strangers, names are binaries.

-record(state, {
    subscribers = #{} :: #{reference() => {pid(), all | [kind()]}},
    repeats = quic_dist_repeats:new() :: quic_dist_repeats:repeats()
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
        connection_ended,
        connection_resumed,
        refused,
        untrusted,
        flood,
        certificates,
        certificate_expires,
        certificates_failed,
        key_expires,
        listening,
        sidecar_up,
        sidecar_down,
        stopped
    ].

%% @doc The caller gets `{quic_dist, Reference, event()}' for each event of these kinds, until it
%% unsubscribes or ends.
-spec subscribe(all | [kind()]) ->
    {ok, reference()} | {error, {bad_kind, term()} | quic_dist_sidecar:reason()}.
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
-spec tell(event()) -> ok.
tell(Event) ->
    gen_server:cast(?MODULE, Event).

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
-spec handle_cast(event(), #state{}) -> {noreply, #state{}}.
handle_cast(#{event := _} = Event, State) ->
    {noreply, publish(Event, State)}.

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
    _ = publish(#{event => stopped}, State),
    ok.

publish(#{event := Kind} = Event, #state{subscribers = Subscribers} = State) ->
    maps:foreach(
        fun(Reference, {Pid, Kinds}) ->
            case Kinds =:= all orelse lists:member(Kind, Kinds) of
                true -> Pid ! {quic_dist, Reference, Event};
                false -> ok
            end
        end,
        Subscribers
    ),
    telemetry(Kind, maps:remove(event, Event), State).

%% Called by name, because telemetry is no dependency; at boot it is never there. A handler that
%% raises does so on every event, so its failures are logged as repeats.
telemetry(Kind, Metadata0, #state{repeats = Repeats0} = State) ->
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
                _ -> State
            catch
                Class:Reason ->
                    Now = erlang:monotonic_time(millisecond),
                    Why = io_lib:format("~0tp ~0tp", [Class, Reason]),
                    Facts = [{class, Class}, {reason, Reason}],
                    {Say, Repeats} = quic_dist_repeats:add(telemetry, Why, Now, Repeats0),
                    case Say of
                        silent -> ok;
                        say -> failed(Facts);
                        {again, Times} -> failed([{times_since_the_last_line, Times} | Facts])
                    end,
                    State#state{repeats = Repeats}
            end;
        false ->
            State
    end.

failed(Facts) ->
    quic_dist_log:log(warning, "telemetry failed on an event", Facts).
