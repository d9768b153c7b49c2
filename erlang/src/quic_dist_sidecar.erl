%% @doc The sidecar's owner: it finds and starts the sidecar, shakes hands with it, starts another
%% one when it dies, and ends it when distribution ends.
%%
%% ```
%%            open_port          hello            ok (and listening)
%%   down ---------------> starting ----> configuring -------> up
%%    ^                       |               |                 |
%%    +--- after a delay -----+---------------+-----------------+
%%          exit status, no hello in time, another version, a broken frame
%% '''
%%
%% This module is the life of the sidecar. What the frames of a sidecar that serves mean is decided
%% in {@link quic_dist_router}, whose effects are performed here; messages that answer no request go
%% to the features ({@link quic_dist_feature}).
%%
%% Requests that come while a sidecar is being started wait for it; those that come in `down' are
%% answered with the reason. A caller is monitored until its request is answered, and the owner of a
%% channel as long as the channel lives. So nothing outlives its user: a request is cancelled, a
%% channel closed. When the sidecar dies, every request is answered and every channel ends.
-module(quic_dist_sidecar).
-behaviour(gen_statem).

-export([start_link/1]).
-export([await/0, options/0, info/0, request/4, command/3, answer_time/1, send/2]).
-export([register/1, registration/0]).
-export([call/2, cast/1, stopping/0]).
-export([callback_mode/0, init/1, terminate/3, format_status/1]).
-export([down/3, starting/3, configuring/3, up/3]).
-export_type([reason/0, registration/0]).

-type registration() :: #{
    node := binary(), quic := inet:port_number(), tcp := inet:port_number()
}.
%% What other nodes find: the first part of our name, and our ports, 0 where there is none.

-type reason() :: {Code :: atom(), Text :: string()}.
%% Code is one of portproto/PROTOCOL.md, section 7, or `down': there is no sidecar.

-record(data, {
    config :: {ok, quic_dist_config:options()} | {error, string()},
    subscriptions :: quic_dist_feature:subscriptions(),
    router = quic_dist_router:new() :: quic_dist_router:router(),
    reset_key :: binary(),
    %% The Erlang port, and the pipe it belongs to.
    port :: undefined | port(),
    pipe :: undefined | quic_dist_pipe:pipe(),
    executable = "" :: file:filename_all(),
    %% Why there is no sidecar.
    error = "" :: string(),
    %% Sidecars that ended since the last that served for ?SERVED, that one included.
    failures = 0 :: non_neg_integer(),
    up_since :: undefined | integer(),
    pulse :: undefined | quic_dist_pulse:pulse(),
    %% When all must have ended, if net_kernel is ending.
    stop_by :: undefined | integer()
}).

%% Milliseconds. The sidecar's own bounds are in portproto/PROTOCOL.md, sections 3 and 8.
-define(HELLO_TIMEOUT, 5000).
%% kernel_sup gives distribution that `net_kernel:start/2' started one second to end, all in all. A
%% part of it is for what the emulator still has.
-define(STOP_TIMEOUT, 800).
-define(DELIVER_TIMEOUT, 500).
-define(AWAIT_TIMEOUT, 10000).
-define(CALL_TIMEOUT, 5000).
%% The sidecar's own bound is 10 s.
-define(REGISTER_TIMEOUT, 12000).
%% A sidecar that was up for this long has served: the next one is started at once.
-define(SERVED, 1000).
%% The longest pause before the next sidecar, where the last one was up for less, and where it never
%% was.
-define(MAX_DELAY_UP, 1000).
-define(MAX_DELAY, 5000).
-define(WEDGED, 5000).
%% NAT bindings for UDP live 30 s and more (RFC 4787); a peer whose sidecar was replaced is noticed
%% by the next keep-alive.
-define(KEEP_ALIVE, 4000).
%% TCP on Linux gives up unacknowledged data after this time (tcp_retries2).
-define(IDLE_TIMEOUT, 900000).

%% The id of the requests that show whether the sidecar answers. Others count from 1.
-define(PING, 16#FFFFFFFF).

-define(NEEDS_SIDECAR(Request),
    (Request =:= await orelse element(1, Request) =:= request)
).

%% API

%% @doc Starts the process, and with it the first sidecar. `Features' get the messages that answer
%% no request, and the events.
-spec start_link(Features :: [module()]) -> gen_statem:start_ret().
start_link(Features) ->
    Options = [{spawn_opt, [{message_queue_data, off_heap}]}],
    gen_statem:start_link({local, ?MODULE}, ?MODULE, Features, Options).

%% @doc Waits until the sidecar is up, or it is known why it is not.
-spec await() -> ok | {error, reason()}.
await() ->
    request_owner(await, ?AWAIT_TIMEOUT).

%% @doc The options in use, without those that are secret.
-spec options() -> {ok, quic_dist_config:options()} | {error, reason()}.
options() ->
    request_owner(options, ?CALL_TIMEOUT).

%% @doc The part of {@link quic_dist_info:info/0} that this process knows.
-spec info() -> #{atom() => term()} | {error, reason()}.
info() ->
    request_owner(info, ?CALL_TIMEOUT).

%% @doc Makes a request of the sidecar, whose answer has the tag `Answer'. Requests wait while a
%% sidecar starts. Returns what {@link quic_dist_router} makes of the answer: its fields, or for
%% `listening' the listener, and for `dialled' the channel.
-spec request(atom(), quic_dist_proto:fields(), Answer :: atom(), timeout()) ->
    {ok, #{atom() => term()}} | {error, reason()}.
request(Tag, Parameters, Answer, Timeout) ->
    request_owner({request, Tag, Parameters, Answer}, Timeout).

%% @doc Makes a request whose answer is `ok'.
-spec command(atom(), quic_dist_proto:fields(), timeout()) -> ok | {error, reason()}.
command(Tag, Parameters, Timeout) ->
    request_owner({request, Tag, Parameters, ok}, Timeout).

%% @doc Sends a message that has no answer to the sidecar, if that is up. Does not wait.
-spec send(Tag :: atom(), quic_dist_proto:fields()) -> ok.
send(Tag, Fields) ->
    gen_statem:cast(?MODULE, {message, Tag, Fields}).

%% @doc Milliseconds that a caller waits for the answer to a request for which the sidecar has
%% `Timeout'. They end before dist_util's timer ends a process that connects: that leaves no line in
%% the log.
-spec answer_time(non_neg_integer()) -> pos_integer().
answer_time(Timeout) ->
    Timeout + max(50, Timeout div 20).

%% @doc Registers this node, so that others find it; also with each sidecar that replaces this one.
-spec register(registration()) ->
    {ok, #{state := atom(), text := binary(), _ => _}} | {error, reason()}.
register(Registration) ->
    request(register, Registration, registered, ?REGISTER_TIMEOUT).

%% @doc What was registered last.
-spec registration() -> {ok, registration()} | {error, reason()}.
registration() ->
    case call(registration, ?CALL_TIMEOUT) of
        #{} = Registration -> {ok, Registration};
        {error, _} = Error -> Error
    end.

%% @private Distribution ends, and from now on the time in which all must end. Returns the output
%% handlers of the channels, and the monotonic time in milliseconds until which they may write what
%% the emulator still has.
-spec stopping() -> {ok, [pid()], Deadline :: integer()} | {error, reason()}.
stopping() ->
    Deadline = erlang:monotonic_time(millisecond) + ?DELIVER_TIMEOUT,
    case request_owner(stopping, ?DELIVER_TIMEOUT) of
        {ok, Outputs} -> {ok, Outputs, Deadline};
        {error, _} = Error -> Error
    end.

%% @private Something for {@link quic_dist_router:call/3}.
-spec call(quic_dist_router:call(), timeout()) -> term() | {error, reason()}.
call(Call, Timeout) ->
    request_owner({router, Call}, Timeout).

%% @private Something for {@link quic_dist_router:cast/2}.
-spec cast(quic_dist_router:cast()) -> ok.
cast(Cast) ->
    gen_statem:cast(?MODULE, {router, Cast}).

%% gen_statem's default calls from a process of its own; but the caller must be the owner.
request_owner(Request, Timeout) ->
    try
        gen_statem:call(?MODULE, Request, {dirty_timeout, Timeout})
    catch
        exit:{timeout, _} -> {error, {timeout, "quicdistd did not answer in time"}};
        exit:{_, _} -> {error, {down, "distribution over QUIC is not running"}}
    end.

%% gen_statem

%% @private
-spec callback_mode() -> gen_statem:callback_mode_result().
callback_mode() ->
    state_functions.

%% @private
-spec init(Features :: [module()]) -> gen_statem:init_result(down).
init(Features) ->
    process_flag(trap_exit, true),
    Data = #data{
        config = config(),
        subscriptions = quic_dist_feature:subscriptions(Features),
        reset_key = reset_key()
    },
    quic_dist_log:configure(Data#data.config),
    ok = quic_dist_config:warn(Data#data.config),
    {ok, down, Data, [{next_event, internal, start}]}.

%% A VM without crypto is still a VM; who can guess this key can only close connections.
reset_key() ->
    try
        crypto:strong_rand_bytes(32)
    catch
        error:_ -> rand:bytes(32)
    end.

config() ->
    case quic_dist_config:read() of
        {ok, _} = Ok -> Ok;
        {error, Reason} -> {error, quic_dist_config:format_error(Reason)}
    end.

%% @private What is secret stays out of crash reports and `sys:get_status/1': password, reset
%% key, tokens of sockets, what requests are made with, and frames that are not yet written.
-spec format_status(gen_statem:format_status()) -> gen_statem:format_status().
format_status(#{data := #data{} = Data} = Status) ->
    %% Events may hold frames, and frames what applications say to each other.
    maps:map(fun hide/2, Status#{data := without_secrets(Data)});
format_status(Status) ->
    maps:map(fun hide/2, Status).

without_secrets(#data{config = Config, router = Router, pipe = Pipe} = Data) ->
    Data#data{
        config =
            case Config of
                {ok, Options} -> {ok, quic_dist_config:without_secrets(Options)};
                {error, _} -> Config
            end,
        router = quic_dist_router:without_secrets(Router),
        reset_key = <<"***">>,
        pipe =
            case Pipe of
                undefined -> undefined;
                _ -> quic_dist_pipe:without_frames(Pipe)
            end
    }.

hide(message, _) -> '***';
hide(Events, _) when Events =:= queue; Events =:= postponed; Events =:= log -> [];
hide(_, Value) -> Value.

%% @private
-spec terminate(term(), atom(), #data{}) -> ok.
terminate(_, _, #data{pipe = undefined}) ->
    forget_messages();
terminate(_, _, #data{pipe = Pipe, stop_by = StopBy}) ->
    forget_messages(),
    Stop = quic_dist_proto:control(stop, #{}),
    Least = ?STOP_TIMEOUT - ?DELIVER_TIMEOUT,
    Grace =
        case StopBy of
            undefined -> ?STOP_TIMEOUT;
            _ -> max(Least, StopBy - erlang:monotonic_time(millisecond))
        end,
    quic_dist_pipe:close(Grace, quic_dist_pipe:send(Stop, Pipe)).

%% A crash report shows the mailbox, past format_status/1: frames and requests are not for it.
%% Callers learn of our end by their monitors.
forget_messages() ->
    receive
        {Port, {data, _}} when is_port(Port) -> forget_messages();
        {'$gen_call', _, _} -> forget_messages()
    after 0 ->
        ok
    end.

%% States

%% @private No sidecar; the state timeout starts one.
-spec down(gen_statem:event_type(), term(), #data{}) ->
    gen_statem:event_handler_result(atom()).
down(internal, start, Data) ->
    start(Data);
down(state_timeout, start, Data) ->
    start(Data);
down({call, From}, Request, #data{error = Text}) when ?NEEDS_SIDECAR(Request) ->
    {keep_state_and_data, [{reply, From, {error, {down, Text}}}]};
down(Type, Event, Data) ->
    handle_common(Type, Event, down, Data).

%% @private A sidecar runs and owes its hello.
-spec starting(gen_statem:event_type(), term(), #data{}) ->
    gen_statem:event_handler_result(atom()).
starting(info, {Port, {data, Body}}, #data{port = Port, executable = File} = Data0) ->
    Protocol = quic_dist_proto:protocol(),
    Build = quic_dist_executable:build(),
    %% Not before the other's: a program that ends at once would break the pipe, and so the port
    %% would not tell its status.
    Hello = #{
        protocol => Protocol,
        build => Build,
        otp => list_to_binary(erlang:system_info(otp_release))
    },
    Data = send(hello, Hello, Data0),
    case quic_dist_proto:decode(Body) of
        {control, hello, #{protocol := Protocol, build := Build}} ->
            configure(Data);
        {control, hello, #{protocol := OtherProtocol, build := OtherBuild}} ->
            fail(
                text(
                    "~ts is version ~ts (protocol ~w), the Erlang library is version ~ts "
                    "(protocol ~w): install both from one release",
                    [File, OtherBuild, OtherProtocol, Build, Protocol]
                ),
                Data
            );
        _ ->
            fail(
                text("~ts (~ts) did not begin with a hello: it is no quicdistd, or a broken one", [
                    File, quic_dist_executable:describe(File)
                ]),
                Data
            )
    end;
starting(info, {Port, {exit_status, Status}}, #data{port = Port} = Data) ->
    ended_early(quic_dist_pipe:how_ended(Status), Data);
starting(info, {'EXIT', Port, Reason}, #data{port = Port} = Data) ->
    ended_early(io_lib:format("ended (~0tp)", [Reason]), Data);
starting(state_timeout, hello, #data{executable = File} = Data) ->
    fail(
        text("~ts (~ts) sent no hello within ~w ms: it is no quicdistd, or hangs", [
            File, quic_dist_executable:describe(File), ?HELLO_TIMEOUT
        ]),
        Data
    );
starting(Type, Event, Data) ->
    handle_common(Type, Event, starting, Data).

%% @private The sidecar takes its configuration and opens the listener that its predecessor had.
-spec configuring(gen_statem:event_type(), term(), #data{}) ->
    gen_statem:event_handler_result(atom()).
configuring(info, {Port, {data, Body}}, #data{port = Port, router = Router} = Data) ->
    Frame = quic_dist_proto:decode(Body),
    case {quic_dist_router:is_own(Frame), Frame} of
        {true, {control, ok, _}} ->
            case quic_dist_router:listen_again(Router) of
                [] -> enter_up(Data);
                Effects -> {keep_state, perform(Effects, Data)}
            end;
        {true, {control, listening, _}} ->
            enter_up(Data);
        {true, {control, error, #{code := Code, text := Text}}} ->
            {ok, Options} = Data#data.config,
            Named = quic_dist_config:option_of_file(Text, Options),
            fail(text("~ts~ts (~w)", [Named, Text, Code]), Data);
        _ ->
            handle_frame(Frame, Data)
    end;
configuring(state_timeout, configure, Data) ->
    fail(
        text("~ts did not take its configuration within ~w ms: it hangs, and is replaced", [
            Data#data.executable, ?HELLO_TIMEOUT
        ]),
        Data
    );
configuring(Type, Event, Data) ->
    handle_common(Type, Event, configuring, Data).

%% @private The sidecar serves.
-spec up(gen_statem:event_type(), term(), #data{}) -> gen_statem:event_handler_result(atom()).
up(info, {Port, {data, Body}}, #data{port = Port, pulse = Pulse} = Data) ->
    case quic_dist_proto:decode(Body) of
        {control, ok, #{id := ?PING}} ->
            {keep_state, Data#data{pulse = quic_dist_pulse:answered(Pulse)}};
        Frame ->
            handle_frame(Frame, Data)
    end;
up({timeout, beat}, beat, Data) ->
    beat(Data);
up({call, From}, await, _) ->
    {keep_state_and_data, [{reply, From, ok}]};
up({call, From}, {request, Tag, Parameters, Answer}, #data{router = Router} = Data0) ->
    Id = quic_dist_router:next_id(Router),
    #data{pipe = Pipe} = Data = send(Tag, Parameters#{id => Id}, Data0),
    case quic_dist_pipe:is_open(Pipe) of
        true ->
            Requested = quic_dist_router:requested(Answer, Parameters, From, Router),
            {keep_state, Data#data{router = Requested}};
        false ->
            %% Nobody has read it, and why is a message that is on its way: for the next sidecar.
            {keep_state_and_data, [postpone]}
    end;
up(cast, {message, Tag, Fields}, Data) ->
    {keep_state, send(Tag, Fields, Data)};
up(Type, Event, Data) ->
    handle_common(Type, Event, up, Data).

%% Events that every state accepts.
handle_common({call, _}, Request, _, _) when ?NEEDS_SIDECAR(Request) ->
    {keep_state_and_data, [postpone]};
handle_common({call, From}, {router, Call}, _, #data{router = Router} = Data) ->
    routed(quic_dist_router:call(Call, From, Router), Data);
handle_common({call, From}, stopping, _, #data{router = Router} = Data) ->
    StopBy = erlang:monotonic_time(millisecond) + ?STOP_TIMEOUT,
    Reply = {ok, quic_dist_router:outputs(Router)},
    {keep_state, Data#data{stop_by = StopBy}, [{reply, From, Reply}]};
handle_common({call, From}, options, _, #data{config = Config}) ->
    Reply =
        case Config of
            {ok, Options} -> {ok, quic_dist_config:without_secrets(Options)};
            {error, Text} -> {error, {down, Text}}
        end,
    {keep_state_and_data, [{reply, From, Reply}]};
handle_common({call, From}, info, State, Data) ->
    {keep_state_and_data, [{reply, From, info(State, Data)}]};
handle_common(cast, {router, Cast}, _, #data{router = Router} = Data) ->
    routed(quic_dist_router:cast(Cast, Router), Data);
handle_common(cast, {message, _, _}, _, _) ->
    %% A feature repeats at `sidecar_up' what the next sidecar must know.
    keep_state_and_data;
handle_common({timeout, beat}, beat, _, _) ->
    %% Of a sidecar that is gone.
    keep_state_and_data;
handle_common(info, {Port, {exit_status, Status}}, State, #data{port = Port} = Data) ->
    ended(quic_dist_pipe:how_ended(Status), State, Data);
handle_common(info, {'EXIT', Port, Reason}, State, #data{port = Port} = Data) ->
    ended(io_lib:format("ended (~0tp)", [Reason]), State, Data);
handle_common(info, flush, _, #data{pipe = undefined}) ->
    keep_state_and_data;
handle_common(info, flush, _, #data{pipe = Pipe0} = Data0) ->
    {Blocked, Pipe} = quic_dist_pipe:flush(Pipe0),
    Data = Data0#data{pipe = Pipe},
    case Blocked > ?WEDGED of
        false -> {keep_state, Data};
        true -> hangs("read", Blocked, Data)
    end;
handle_common(info, {'DOWN', Monitor, process, _, _}, _, #data{router = Router} = Data) ->
    routed(quic_dist_router:process_down(Monitor, Router), Data);
handle_common(info, {'EXIT', Parent, Reason}, _, _) when is_pid(Parent) ->
    %% Only the supervisor is linked (and os:cmd's ports for a moment).
    {stop, Reason};
handle_common(info, {Port, _}, _, _) when is_port(Port) ->
    %% The last words of a sidecar that was given up.
    keep_state_and_data;
handle_common(info, {'EXIT', Port, _}, _, _) when is_port(Port) ->
    keep_state_and_data;
handle_common(Type, Event, State, _) ->
    quic_dist_log:log(warning, "unexpected event", [{state, State}, {type, Type}, {event, Event}]),
    keep_state_and_data.

info(State, #data{router = Router, pipe = Pipe} = Data) ->
    #{
        state =>
            case State of
                down -> {down, Data#data.error};
                _ -> State
            end,
        executable => Data#data.executable,
        os_pid =>
            case Pipe of
                undefined -> undefined;
                _ -> quic_dist_pipe:os_pid(Pipe)
            end,
        listen => quic_dist_router:bound(Router),
        options =>
            case Data#data.config of
                {ok, Options} -> maps:remove(sources, quic_dist_config:without_secrets(Options));
                {error, _} -> undefined
            end,
        channels => quic_dist_router:count(Router)
    }.

%% The sidecar's life

start(#data{config = {error, Text}} = Data) ->
    %% Configuration is read once, when distribution starts: there is nothing to wait for.
    {keep_state, Data#data{error = Text}};
start(#data{config = {ok, Options}} = Data) ->
    case quic_dist_executable:find(Options) of
        {ok, File} -> open(File, Data#data{executable = File});
        {error, Text} -> fail(Text, Data)
    end.

open(File, #data{router = Router} = Data0) ->
    case quic_dist_pipe:open(File) of
        {ok, Pipe} ->
            Port = quic_dist_pipe:port(Pipe),
            Data = Data0#data{
                port = Port, pipe = Pipe, router = quic_dist_router:opened(Port, Router)
            },
            {next_state, starting, Data, [{state_timeout, ?HELLO_TIMEOUT, hello}]};
        {error, Reason} ->
            fail(
                text("~ts (~ts) cannot be started: ~0tp", [
                    File, quic_dist_executable:describe(File), Reason
                ]),
                Data0
            )
    end.

configure(#data{config = {ok, Options}, reset_key = ResetKey} = Data0) ->
    Configure = (maps:merge(quic_dist_config:configure(Options), local_socket(Options)))#{
        reset_key => ResetKey,
        keep_alive => ?KEEP_ALIVE,
        idle_timeout => idle_timeout(),
        hello_timeout => quic_dist_kernel:setup_time()
    },
    Data = send(configure, quic_dist_router:own(Configure), Data0),
    {next_state, configuring, Data, [{state_timeout, ?HELLO_TIMEOUT, configure}]}.

local_socket(#{local_links := off}) ->
    #{};
local_socket(_) ->
    case quic_dist_meeting:name() of
        {ok, Name} -> #{local_socket => Name};
        none -> #{}
    end.

%% The BEAM's ticks decide whether a peer lives, by a tick time that may change at any moment; the
%% path gives up long after them, when TCP would.
idle_timeout() ->
    max(?IDLE_TIMEOUT, 2 * quic_dist_kernel:tick_time()).

enter_up(#data{pipe = Pipe, executable = File, router = Router} = Data0) ->
    OsPid = quic_dist_pipe:os_pid(Pipe),
    Fields = #{os_pid => OsPid, executable => File},
    quic_dist_log:log(info, "quicdistd is up", maps:to_list(Fields)),
    ok = event(sidecar_up, Fields, Data0),
    Now = erlang:monotonic_time(millisecond),
    Data = Data0#data{error = "", up_since = Now, pulse = quic_dist_pulse:new(Now)},
    {next_state, up, take(quic_dist_router:up(Router), Data), [next_beat()]}.

next_beat() ->
    {{timeout, beat}, quic_dist_pulse:interval(), beat}.

beat(#data{pipe = Pipe, pulse = Pulse0} = Data0) ->
    CpuTime = fun() -> quic_dist_pipe:cpu_time(Pipe) end,
    {Next, Pulse} = quic_dist_pulse:beat(erlang:monotonic_time(millisecond), CpuTime, Pulse0),
    Data = Data0#data{pulse = Pulse},
    case Next of
        ask -> {keep_state, send(ping, #{id => ?PING}, Data), [next_beat()]};
        wait -> {keep_state, Data, [next_beat()]};
        {hangs, Overdue} -> hangs("answered", Overdue, Data)
    end.

hangs(Verb, Milliseconds, #data{pipe = Pipe, router = Router} = Data) ->
    fail(
        text(
            "quicdistd (pid ~w) has not ~ts for ~w ms: it is stopped or hangs; connections lost: "
            "~w; another is started",
            [quic_dist_pipe:os_pid(Pipe), Verb, Milliseconds, quic_dist_router:count(Router)]
        ),
        Data
    ).

ended_early(How, #data{executable = File} = Data) ->
    fail(
        text(
            "~ts (~ts) ~ts before its hello: is it a quicdistd for ~ts? It writes its own reason "
            "to standard error",
            [File, quic_dist_executable:describe(File), How, quic_dist_executable:system()]
        ),
        Data
    ).

ended(How, State, #data{pipe = Pipe, router = Router} = Data) ->
    fail(
        text(
            "quicdistd (pid ~w) ~ts while ~ts; connections lost: ~w; another is started",
            [quic_dist_pipe:os_pid(Pipe), How, State, quic_dist_router:count(Router)]
        ),
        Data
    ).

broken(Frame, Data) ->
    Found =
        case Frame of
            {error, Kind, Text} -> [atom_to_binary(Kind), ": ", Text];
            _ -> ["an unexpected ", quic_dist_proto:format(Frame)]
        end,
    fail(
        text("quicdistd broke the control protocol (~ts) and is replaced: ~ts", [
            Found, "if that goes on, install library and executable from one release"
        ]),
        Data
    ).

%% The sidecar is gone, or must go: everybody who waits for it is told, and another one is started.
fail(Text, #data{pipe = Pipe, router = Router} = Data0) ->
    log_failure(Text, Data0),
    ok = event(sidecar_down, #{text => Text}, Data0),
    case Pipe of
        undefined -> ok;
        _ -> quic_dist_pipe:kill(Pipe)
    end,
    Failures = failures(Data0),
    Down = take(quic_dist_router:down(Text, Router), Data0),
    Data = Down#data{
        port = undefined,
        pipe = undefined,
        error = Text,
        failures = Failures,
        up_since = undefined,
        pulse = undefined
    },
    case {Data0#data.up_since, Failures} of
        {Since, 1} when is_integer(Since) ->
            %% The first restart is at once, and requests that come meanwhile wait for it.
            start(Data);
        {Since, _} ->
            Most =
                case Since of
                    undefined -> ?MAX_DELAY;
                    _ -> ?MAX_DELAY_UP
                end,
            Delay = min(Most, 50 bsl min(Failures, 10)),
            {next_state, down, Data, [{state_timeout, Delay, start}]}
    end.

%% A reason is logged once as long as it stays the same. While the node boots, the caller that waits
%% for the first sidecar reports it, and ends the boot.
log_failure(Text, #data{error = Text}) ->
    ok;
log_failure(Text, #data{error = Before}) ->
    case init:get_status() of
        {starting, _} when Before =:= "" -> ok;
        _ -> quic_dist_log:log(error, Text)
    end.

failures(#data{up_since = Since, failures = Failures}) ->
    Served = Since =/= undefined andalso erlang:monotonic_time(millisecond) - Since >= ?SERVED,
    case Served of
        true -> 1;
        false -> Failures + 1
    end.

%% Frames and effects

handle_frame(Frame, #data{router = Router0} = Data) ->
    case quic_dist_router:handle(Frame, Router0) of
        {ok, Effects, Router} ->
            routed({Effects, Router}, Data);
        {feature, Tag, Fields} ->
            case publish(Tag, Fields, Data) of
                ok -> keep_state_and_data;
                broken -> broken(Frame, Data)
            end;
        broken ->
            broken(Frame, Data)
    end.

routed(Result, Data) -> {keep_state, take(Result, Data)}.

%% Takes the state that the router returned, and performs the effects.
take({Effects, Router}, Data) ->
    perform(Effects, Data#data{router = Router}).

perform([Effect | Effects], Data) -> perform(Effects, do(Effect, Data));
perform([], Data) -> Data.

do({send, Pid, Message}, Data) ->
    Pid ! Message,
    Data;
do({frame, Tag, Fields}, Data) ->
    send(Tag, Fields, Data);
do({reply, From, Reply}, Data) ->
    gen_statem:reply(From, Reply),
    Data;
do({event, Topic, Fields}, Data) ->
    ok = event(Topic, Fields, Data),
    Data;
do({log, Level, Text, Facts}, Data) ->
    quic_dist_log:log(Level, Text, Facts),
    Data.

send(Tag, Fields, #data{pipe = Pipe} = Data) ->
    Data#data{pipe = quic_dist_pipe:send(quic_dist_proto:control(Tag, Fields), Pipe)}.

event(Topic, Fields, Data) ->
    _ = publish(Topic, Fields, Data),
    ok.

publish(Topic, Fields, #data{port = Port, config = Config, subscriptions = Subscriptions}) ->
    Ports = maps:from_list([{port, Port} || Port =/= undefined]),
    Context =
        case Config of
            {ok, Options} -> Ports#{options => Options};
            {error, _} -> Ports
        end,
    quic_dist_feature:publish(Topic, Fields, Context, Subscriptions).

%% Texts

text(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).
