%% @doc The sidecar's owner: finds, starts and greets it, routes its frames, starts another when it
%% dies, and ends it when distribution ends.
%%
%% ```
%%            open_port          hello            ok (and listening)
%%   down ---------------> starting ----> configuring -------> up
%%    ^                       |               |                 |
%%    +--- after a delay -----+---------------+-----------------+
%%          exit status, no hello in time, another version, a broken frame
%% '''
%%
%% Requests that come while a sidecar is being started wait for it; those that come in `down' are
%% answered with the reason. Whoever makes a request is monitored until it is answered, and who
%% owns a channel as long as that lives, so nothing outlives its user: a request is cancelled, a
%% channel closed. The reverse holds too: when the sidecar dies every request is answered and every
%% channel is told.
%%
%% A channel on stdio is attached ({@link attach/3}) to the processes that move its data: frames
%% from the sidecar are sent on to them as `{data, Payload}', `{credit, Bytes}' and `closed', and
%% what they send they write to the port themselves. A channel with a socket is released ({@link
%% release/1}) to it: who closes the socket closes the channel.
-module(quic_dist_port).
-behaviour(gen_statem).

-export([start_link/0]).
-export([await/0, listen/1, close_listener/0, accept/1, resolve/2, dial/1, attach/3, release/1]).
-export([register/1, registration/0, request/4, options/0, info/0, reload/0, trace/1]).
-export([callback_mode/0, init/1, terminate/3, format_status/1]).
-export([down/3, starting/3, configuring/3, up/3]).
-export_type([channel/0, listener/0, reason/0, streams/0, registration/0]).

-type listener() :: #{
    node := binary(),
    address := binary(),
    port_min := inet:port_number(),
    port_max := inet:port_number(),
    cookie => binary(),
    bound => {inet:ip_address(), inet:port_number()}
}.
%% What to listen at: an empty address means every address, ports 0 any port. `cookie' is our own,
%% for the sidecar to know before the first peer comes; it is not kept. `bound' is where the sidecar
%% listens.

-type registration() :: #{
    node := binary(), quic := inet:port_number(), tcp := inet:port_number()
}.
%% What others are to find: the first part of our name, and our ports, 0 where there is none.

-type channel() :: #{
    id := non_neg_integer(),
    port := port(),
    address := inet:ip_address(),
    udp_port := inet:port_number(),
    streams := streams(),
    credit := non_neg_integer(),
    claim => quic_dist_peer:claim(),
    socket => binary(),
    token => binary()
}.
%% A channel: its number, the Erlang port of its sidecar, where the peer's sidecar is, the mode that
%% both sidecars use, who the peer claims to be if it was the peer that opened it, and the way its
%% data takes: the bytes that may be written to the port at first; or the path of a socket and the
%% token that opens it.

-type streams() :: single | bulk | sender.
%% What may leave the main stream of a channel: nothing, fragmented messages, or all that names its
%% sender.

-type reason() :: {Code :: atom(), Text :: string()}.
%% Code is one of portproto/PROTOCOL.md, section 7, or `down': there is no sidecar.

-record(data, {
    config :: {ok, quic_dist_config:options()} | {error, string()},
    reset_key :: binary(),
    %% The Erlang port, and the pipe it belongs to.
    port :: undefined | port(),
    pipe :: undefined | quic_dist_pipe:pipe(),
    executable = "" :: file:filename_all(),
    %% Why there is no sidecar, for whoever asks.
    error = "" :: string(),
    %% Sidecars that ended since the last that was up for ?STABLE, that one included.
    failures = 0 :: non_neg_integer(),
    up_since :: undefined | integer(),
    listener :: undefined | listener(),
    registration = #{node => <<>>, quic => 0, tcp => 0} :: registration(),
    acceptor :: undefined | {pid(), reference()},
    %% Accepted channels that no acceptor has been told of, newest first.
    waiting = [] :: [channel()],
    next_id = 1 :: pos_integer(),
    certificates = [] :: [quic_dist_info:certificate()],
    users = quic_dist_users:new() :: quic_dist_users:users()
}).

%% Milliseconds. The sidecar's own bounds are in portproto/PROTOCOL.md, sections 3 and 8.
-define(HELLO_TIMEOUT, 5000).
%% kernel_sup gives distribution that `net_kernel:start/2' started one second to end, all in all.
-define(STOP_TIMEOUT, 800).
-define(LISTEN_TIMEOUT, 10000).
-define(CALL_TIMEOUT, 5000).
%% The sidecar's own bound is 10 s.
-define(REGISTER_TIMEOUT, 12000).
-define(STABLE, 10000).
-define(MAX_DELAY, 5000).
-define(WEDGED, 5000).
%% NAT bindings for UDP live 30 s and more (RFC 4787); a peer whose sidecar was replaced is noticed
%% by the next keep-alive.
-define(KEEP_ALIVE, 5000).
%% Accepted channels that wait for an acceptor: it is there as soon as listen/2 has returned.
-define(MAX_WAITING, 64).

-define(NEEDS_SIDECAR(Request),
    (Request =:= await orelse element(1, Request) =:= request)
).

%% API

-spec start_link() -> gen_statem:start_ret().
start_link() ->
    Options = [{spawn_opt, [{message_queue_data, off_heap}]}],
    gen_statem:start_link({local, ?MODULE}, ?MODULE, [], Options).

%% @doc Waits until the sidecar is up, or it is known why it is not.
-spec await() -> ok | {error, reason()}.
await() ->
    call(await, ?LISTEN_TIMEOUT).

%% @doc Listens, also in the next sidecar if this one dies, and on the same port.
-spec listen(listener()) -> {ok, listener()} | {error, reason()}.
listen(Listener) ->
    call({request, listen, Listener, listening}, ?LISTEN_TIMEOUT).

%% @doc Stops listening. Does not wait.
-spec close_listener() -> ok.
close_listener() ->
    gen_statem:cast(?MODULE, close_listener).

%% @doc Makes the caller the acceptor of what {@link listen/1} returned: each channel that a peer
%% opens comes as the message `{accepted, channel()}'. Acceptors outlive this process, and so
%% bring the listener to its successor.
-spec accept(listener()) -> ok.
accept(Listener) ->
    gen_statem:cast(?MODULE, {accept, self(), Listener}).

%% @doc The addresses of a host name, as the sidecar's resolver has them.
-spec resolve(string(), timeout()) -> {ok, [inet:ip_address()]} | {error, reason()}.
resolve(Host, Timeout) ->
    Parameters = #{host => unicode:characters_to_binary(Host), timeout => Timeout},
    call({request, resolve, Parameters, resolved}, Timeout + 1000).

%% @doc Connects to a peer's sidecar. The caller owns the channel until it is attached.
-spec dial(#{
    node := binary(),
    local := binary(),
    cookie => binary(),
    targets := [quic_dist_config:endpoint()],
    timeout := timeout()
}) ->
    {ok, channel()} | {error, reason()}.
dial(#{timeout := Timeout} = Parameters) ->
    call({request, dial, Parameters, dialled}, Timeout + 1000).

%% @doc Names the processes of a channel. Frames go to `Input' (data, closed) and `Output'
%% (credit); when `Output' ends, the channel is closed.
-spec attach(channel(), Input :: pid(), Output :: pid()) -> ok | {error, closed | reason()}.
attach(#{id := Id, port := Port}, Input, Output) ->
    call({attach, Port, Id, Input, Output}, infinity).

%% @doc Lets the socket own a channel, in place of a process.
-spec release(channel()) -> ok | {error, reason()}.
release(#{id := Id, port := Port}) ->
    call({release, Port, Id}, infinity).

%% @doc Has this node found by others, also when this sidecar dies and another comes.
-spec register(registration()) ->
    {ok, #{state := atom(), text := binary(), _ => _}} | {error, reason()}.
register(Registration) ->
    call({request, register, Registration, registered}, ?REGISTER_TIMEOUT).

%% @doc What was registered last.
-spec registration() -> {ok, registration()} | {error, reason()}.
registration() ->
    call(registration, ?CALL_TIMEOUT).

%% @doc Makes a request whose answer has the tag `Answer', and returns the answer's fields.
-spec request(atom(), quic_dist_proto:fields(), Answer :: atom(), timeout()) ->
    {ok, quic_dist_proto:fields()} | {error, reason()}.
request(Tag, Parameters, Answer, Timeout) ->
    call({request, Tag, Parameters, Answer}, Timeout).

%% @doc Sets what the sidecar writes down of connections: the fields of `trace'.
-spec trace(quic_dist_proto:fields()) -> ok | {error, reason()}.
trace(Fields) ->
    call({request, trace, Fields, ok}, ?LISTEN_TIMEOUT).

%% @doc The options that are in use.
-spec options() -> {ok, quic_dist_config:options()} | {error, reason()}.
options() ->
    call(options, ?CALL_TIMEOUT).

%% @doc What this process itself knows of what {@link quic_dist_info:info/0} tells.
-spec info() -> #{atom() => term()} | {error, reason()}.
info() ->
    call(info, ?CALL_TIMEOUT).

%% @doc Has the sidecar read the certificate files again. They serve connections that begin from
%% now on; if they cannot be used the error says why, and those in use stay so.
-spec reload() -> ok | {error, reason()}.
reload() ->
    call({request, reload, #{}, ok}, ?LISTEN_TIMEOUT).

%% Not gen_statem's default, which calls from a process of its own: the caller is to be the owner.
call(Request, Timeout) ->
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
-spec init([]) -> gen_statem:init_result(down).
init([]) ->
    process_flag(trap_exit, true),
    Data = #data{config = config(), reset_key = reset_key()},
    quic_dist_log:configure(Data#data.config),
    warn_if_insecure(Data#data.config),
    {ok, down, Data, [{next_event, internal, start}]}.

%% Each time distribution starts: what weakens it is never forgotten.
warn_if_insecure({ok, #{insecure_no_verify := true}}) ->
    quic_dist_log:log(
        security,
        warning,
        "insecure_no_verify is set: peers are not authenticated, and whoever reaches the UDP port "
        "gets as far as the distribution handshake",
        []
    );
warn_if_insecure(_) ->
    ok.

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

without_secrets(#data{config = Config, waiting = Waiting, users = Users} = Data) ->
    Data#data{
        config =
            case Config of
                {ok, #{password := _} = Options} -> {ok, Options#{password := <<"***">>}};
                _ -> Config
            end,
        reset_key = <<"***">>,
        pipe =
            case Data#data.pipe of
                undefined -> undefined;
                Pipe -> quic_dist_pipe:without_frames(Pipe)
            end,
        waiting = [maps:remove(token, Channel) || Channel <- Waiting],
        users = quic_dist_users:without_parameters(Users)
    }.

hide(message, _) -> '***';
hide(Events, _) when Events =:= queue; Events =:= postponed; Events =:= log -> [];
hide(_, Value) -> Value.

%% @private
-spec terminate(term(), atom(), #data{}) -> ok.
terminate(_, _, #data{pipe = undefined}) ->
    forget_messages();
terminate(_, _, #data{pipe = Pipe}) ->
    forget_messages(),
    Stop = quic_dist_proto:control(stop, #{}),
    quic_dist_pipe:close(?STOP_TIMEOUT, quic_dist_pipe:send(Stop, Pipe)).

%% A crash report shows the mailbox, past format_status/1: frames and requests are not for it. Who
%% waits for an answer learns of our end by his monitor.
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
starting(info, {Port, {data, Body}}, #data{port = Port, executable = File} = Data) ->
    Protocol = quic_dist_proto:protocol(),
    Build = build(),
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
                    File, quic_dist_exe:describe(File)
                ]),
                Data
            )
    end;
starting(info, {Port, {exit_status, Status}}, #data{port = Port} = Data) ->
    ended_early(["with status ", integer_to_list(Status)], Data);
starting(info, {'EXIT', Port, Reason}, #data{port = Port} = Data) ->
    %% The port noticed first that nobody reads.
    ended_early(io_lib:format("(~0tp)", [Reason]), Data);
starting(state_timeout, hello, #data{executable = File} = Data) ->
    fail(
        text("~ts (~ts) sent no hello within ~w ms: it is no quicdistd, or hangs", [
            File, quic_dist_exe:describe(File), ?HELLO_TIMEOUT
        ]),
        Data
    );
starting(Type, Event, Data) ->
    handle_common(Type, Event, starting, Data).

%% @private The sidecar takes its configuration and opens the listener that its predecessor had.
-spec configuring(gen_statem:event_type(), term(), #data{}) ->
    gen_statem:event_handler_result(atom()).
configuring(info, {Port, {data, Body}}, #data{port = Port} = Data) ->
    case quic_dist_proto:decode(Body) of
        {control, ok, #{id := 0}} ->
            restore_listener(Data);
        {control, listening, #{id := 0}} ->
            enter_up(Data);
        {control, error, #{id := 0, code := Code, text := Text}} ->
            {ok, Options} = Data#data.config,
            fail(text("~ts~ts (~w)", [quic_dist_config:blame(Text, Options), Text, Code]), Data);
        Frame ->
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
up(info, {Port, {data, Body}}, #data{port = Port} = Data) ->
    handle_frame(quic_dist_proto:decode(Body), Data);
up({call, From}, await, _) ->
    {keep_state_and_data, [{reply, From, ok}]};
up({call, From}, {request, Tag, Parameters, Answer}, #data{next_id = Id} = Data0) ->
    #data{pipe = Pipe} = Data = send(Tag, Parameters#{id => Id}, Data0),
    case quic_dist_pipe:is_open(Pipe) of
        true ->
            {keep_state, requested(Parameters, Answer, From, Data)};
        false ->
            %% Nobody has read it, and why is a message that is on its way: for the next sidecar.
            {keep_state_and_data, [postpone]}
    end;
up(Type, Event, Data) ->
    handle_common(Type, Event, up, Data).

%% What every state accepts.
handle_common({call, _}, Request, _, _) when ?NEEDS_SIDECAR(Request) ->
    {keep_state_and_data, [postpone]};
handle_common({call, From}, {attach, Port, Id, Input, Output}, _, #data{port = Port} = Data) ->
    case quic_dist_users:attach(Id, Input, Output, Data#data.users) of
        {ok, Users} -> {keep_state, Data#data{users = Users}, [{reply, From, ok}]};
        error -> {keep_state_and_data, [{reply, From, {error, closed}}]}
    end;
handle_common({call, From}, {release, Port, Id}, _, #data{port = Port} = Data) ->
    Users = quic_dist_users:release(Id, Data#data.users),
    {keep_state, Data#data{users = Users}, [{reply, From, ok}]};
handle_common({call, From}, {attach, _, _, _, _}, _, _) ->
    %% A channel of a sidecar that is gone.
    {keep_state_and_data, [{reply, From, {error, closed}}]};
handle_common({call, From}, {release, _, _}, _, _) ->
    %% Likewise; the socket's end shows it.
    {keep_state_and_data, [{reply, From, ok}]};
handle_common({call, From}, options, _, #data{config = Config}) ->
    Reply =
        case Config of
            {ok, Options} -> {ok, maps:remove(password, Options)};
            {error, Text} -> {error, {down, Text}}
        end,
    {keep_state_and_data, [{reply, From, Reply}]};
handle_common({call, From}, registration, _, #data{registration = Registration}) ->
    {keep_state_and_data, [{reply, From, {ok, Registration}}]};
handle_common({call, From}, info, State, Data) ->
    {keep_state_and_data, [{reply, From, info(State, Data)}]};
handle_common(cast, close_listener, State, #data{listener = Listener} = Data0) ->
    Data1 = Data0#data{listener = undefined},
    case {State, Listener} of
        {up, #{}} ->
            Data = send(close_listener, #{id => 0}, Data1),
            {keep_state, without_quic(fun send_registration/1, Data)};
        _ ->
            {keep_state, without_quic(fun(Data) -> Data end, Data1)}
    end;
handle_common(cast, {accept, Pid, Listener}, State, #data{waiting = Waiting} = Data0) ->
    Data1 = Data0#data{acceptor = {Pid, monitor(process, Pid)}, waiting = []},
    Data = lists:foldr(fun hand_over/2, Data1, Waiting),
    case {Data#data.listener, State} of
        {undefined, up} ->
            send_listen(Data#data{listener = Listener});
        {undefined, _} ->
            {keep_state, Data#data{listener = Listener}};
        _ ->
            {keep_state, Data}
    end;
handle_common(info, {Port, {exit_status, Status}}, State, #data{port = Port} = Data) ->
    ended(["with status ", integer_to_list(Status)], State, Data);
handle_common(info, {'EXIT', Port, Reason}, State, #data{port = Port} = Data) ->
    ended(io_lib:format("(~0tp)", [Reason]), State, Data);
handle_common(info, flush, _, #data{pipe = undefined}) ->
    keep_state_and_data;
handle_common(info, flush, _, #data{pipe = Pipe0} = Data0) ->
    {Blocked, Pipe} = quic_dist_pipe:flush(Pipe0),
    Data = Data0#data{pipe = Pipe},
    case Blocked > ?WEDGED of
        false ->
            {keep_state, Data};
        true ->
            fail(
                text(
                    "quicdistd (operating system process ~w) has not read for ~w ms: it is "
                    "stopped or hangs; connections lost: ~w; another is started",
                    [quic_dist_pipe:os_pid(Pipe), Blocked, quic_dist_users:count(Data#data.users)]
                ),
                Data
            )
    end;
handle_common(info, {'DOWN', Monitor, process, _, _}, _, Data) ->
    {keep_state, process_down(Monitor, Data)};
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

info(State, #data{listener = Listener, pipe = Pipe} = Data) ->
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
        listen =>
            case Listener of
                #{bound := Bound} -> Bound;
                _ -> undefined
            end,
        options =>
            case Data#data.config of
                {ok, Options} -> maps:without([password, sources], Options);
                {error, _} -> undefined
            end,
        channels => quic_dist_users:count(Data#data.users),
        certificates => certificates(Data)
    }.

certificates(#data{config = {ok, Options}, certificates = Certificates}) ->
    quic_dist_info:certificates(Certificates, Options);
certificates(_) ->
    [].

%% The sidecar's life

start(#data{config = {error, Text}} = Data) ->
    %% Configuration is read once, when distribution starts: there is nothing to wait for.
    {keep_state, Data#data{error = Text}};
start(#data{config = {ok, Options}} = Data) ->
    case quic_dist_exe:find(Options) of
        {ok, File} -> open(File, Data#data{executable = File});
        {error, Text} -> fail(Text, Data)
    end.

open(File, Data0) ->
    case quic_dist_pipe:open(File) of
        {ok, Pipe} ->
            Hello = #{
                protocol => quic_dist_proto:protocol(),
                build => build(),
                otp => list_to_binary(erlang:system_info(otp_release))
            },
            Opened = Data0#data{port = quic_dist_pipe:port(Pipe), pipe = Pipe},
            Data = send(hello, Hello, Opened),
            {next_state, starting, Data, [{state_timeout, ?HELLO_TIMEOUT, hello}]};
        {error, Reason} ->
            fail(
                text("~ts (~ts) cannot be started: ~0tp", [
                    File, quic_dist_exe:describe(File), Reason
                ]),
                Data0
            )
    end.

configure(#data{config = {ok, Options}, reset_key = ResetKey} = Data0) ->
    Given = [
        certfile,
        keyfile,
        password,
        cacertfile,
        certificate_names,
        close_untrusted,
        insecure_no_verify,
        log_level,
        data_plane,
        streams,
        lanes,
        status_port,
        qlog_dir,
        insecure_key_log,
        discovery,
        nodes_file,
        peer_port,
        names_to,
        dns_service,
        dns_service_tcp,
        dns_server
    ],
    Fields = maps:merge(maps:with(Given, Options), quic_dist_names:mapper(Options)),
    Configure = Fields#{
        id => 0,
        connections => connections(Options),
        reset_key => ResetKey,
        keep_alive => ?KEEP_ALIVE,
        idle_timeout => idle_timeout(),
        hello_timeout => setup_time()
    },
    Data = send(configure, Configure, Data0),
    {next_state, configuring, Data, [{state_timeout, ?HELLO_TIMEOUT, configure}]}.

connections(#{connections := auto}) -> 0;
connections(#{connections := Most}) -> Most.

restore_listener(#data{listener = undefined} = Data) ->
    enter_up(Data);
restore_listener(Data) ->
    send_listen(Data).

send_listen(#data{listener = Listener} = Data) ->
    {keep_state, send(listen, (maps:remove(bound, Listener))#{id => 0}, Data)}.

%% Nobody is to find a listener that is closed.
without_quic(Tell, #data{registration = #{quic := UdpPort} = Registration} = Data) when
    UdpPort > 0
->
    Tell(Data#data{registration = Registration#{quic := 0}});
without_quic(_, Data) ->
    Data.

send_registration(#data{registration = Registration} = Data) ->
    send(register, Registration#{id => 0}, Data).

restore_registration(#data{registration = #{quic := 0, tcp := 0}} = Data) -> Data;
restore_registration(Data) -> send_registration(Data).

enter_up(#data{pipe = Pipe, executable = File} = Data0) ->
    OsPid = quic_dist_pipe:os_pid(Pipe),
    Facts = #{os_pid => OsPid, executable => File},
    quic_dist_log:log(info, "quicdistd is up", maps:to_list(Facts)),
    quic_dist_events:tell(Facts#{event => sidecar_up}),
    webdist_server:tell(up),
    Data = Data0#data{error = "", up_since = erlang:monotonic_time(millisecond)},
    {next_state, up, restore_registration(Data)}.

%% The BEAM's ticks decide first whether a peer lives: the path gives up only after them.
idle_timeout() ->
    2 * 1000 * application:get_env(kernel, net_ticktime, 60).

setup_time() ->
    case application:get_env(kernel, net_setuptime, 7) of
        Seconds when is_integer(Seconds), Seconds > 0, Seconds =< 120 -> 1000 * Seconds;
        _ -> 7000
    end.

ended_early(How, #data{executable = File} = Data) ->
    {ok, Target} = target(),
    fail(
        text(
            "~ts (~ts) ended ~ts before its hello: is it a quicdistd for ~ts? It writes its own "
            "reason to standard error",
            [File, quic_dist_exe:describe(File), How, Target]
        ),
        Data
    ).

ended(How, State, #data{pipe = Pipe, users = Users} = Data) ->
    fail(
        text(
            "quicdistd (operating system process ~w) ended ~ts while ~ts; connections lost: ~w; "
            "another is started",
            [quic_dist_pipe:os_pid(Pipe), How, State, quic_dist_users:count(Users)]
        ),
        Data
    ).

%% The sidecar is gone, or must go. Everybody who waits for it is told.
fail(Text, Data0) ->
    log_failure(Text, Data0),
    quic_dist_events:tell({sidecar_down, Text}),
    case Data0#data.pipe of
        undefined -> ok;
        Pipe -> quic_dist_pipe:kill(Pipe)
    end,
    {Waiting, Inputs} = quic_dist_users:clear(Data0#data.users),
    Actions = [{reply, From, {error, {down, Text}}} || From <- Waiting],
    lists:foreach(fun(Input) -> Input ! closed end, Inputs),
    Failures =
        case stable(Data0) of
            true -> 1;
            false -> Data0#data.failures + 1
        end,
    Data = Data0#data{
        port = undefined,
        pipe = undefined,
        error = Text,
        failures = Failures,
        up_since = undefined,
        waiting = [],
        certificates = [],
        users = quic_dist_users:new()
    },
    case {Data0#data.up_since, Failures} of
        {Since, 1} when is_integer(Since) ->
            %% The first restart is at once, and who asks meanwhile waits for it.
            {next_state, State, Started, StartActions} = start(Data),
            {next_state, State, Started, Actions ++ StartActions};
        _ ->
            Delay = min(?MAX_DELAY, 50 bsl min(Failures, 10)),
            {next_state, down, Data, [{state_timeout, Delay, start} | Actions]}
    end.

%% Once for each reason. When the node boots, who waits for the first sidecar reports, and ends the
%% boot.
log_failure(Text, #data{error = Text}) ->
    ok;
log_failure(Text, #data{error = Before}) ->
    case init:get_status() of
        {starting, _} when Before =:= "" -> ok;
        _ -> quic_dist_log:log(error, Text)
    end.

stable(#data{up_since = undefined}) -> false;
stable(#data{up_since = Since}) -> erlang:monotonic_time(millisecond) - Since >= ?STABLE.

%% Requests

%% The tag of the answer and the parameters come back with it.
requested(Parameters, Answer, From, #data{next_id = Id} = Data) ->
    %% A cookie is passed on, and not kept where it could be shown.
    What = {Answer, maps:remove(cookie, Parameters)},
    Users = quic_dist_users:request(Id, What, From, Data#data.users),
    Data#data{next_id = Id + 1, users = Users}.

send(Tag, Fields, #data{pipe = Pipe} = Data) ->
    Data#data{pipe = quic_dist_pipe:send(quic_dist_proto:control(Tag, Fields), Pipe)}.

%% Frames from the sidecar

handle_frame(Frame, Data) ->
    try
        received(Frame, Data)
    catch
        throw:not_an_address -> broken(Frame, Data);
        throw:not_a_time -> broken(Frame, Data)
    end.

received({data, Id, Payload}, #data{users = Users}) ->
    case quic_dist_users:handlers(Id, Users) of
        {Input, _} ->
            Input ! {data, Payload},
            keep_state_and_data;
        undefined ->
            %% It crossed our close.
            keep_state_and_data
    end;
received({credit, Id, Bytes}, #data{users = Users}) ->
    case quic_dist_users:handlers(Id, Users) of
        {_, Output} ->
            Output ! {credit, Bytes},
            keep_state_and_data;
        undefined ->
            keep_state_and_data
    end;
received({control, closed, #{channel := Id, reason := Reason, text := Text}}, Data) ->
    {keep_state, channel_closed(Id, Reason, Text, Data)};
received({control, admit, Fields}, #data{port = Port, config = {ok, Options}}) ->
    %% Who knows may be net_kernel, which calls us and is not called from here.
    ok = quic_dist_admit:answer(Port, Fields, Options, setup_time()),
    keep_state_and_data;
received({control, accepted, #{channel := Id} = Fields}, Data0) ->
    case Data0 of
        #data{acceptor = undefined, waiting = Waiting} when length(Waiting) >= ?MAX_WAITING ->
            {keep_state, send(close, #{channel => Id}, Data0)};
        _ ->
            Channel = channel(Fields, Data0),
            tell_up(accepted, Channel, maps:get(node, Fields), maps:with([identity], Fields)),
            {keep_state, hand_over(Channel, Data0)}
    end;
received({control, Tag, Fields}, _) when Tag =:= web_accepted; Tag =:= web_changed ->
    webdist_server:tell({Tag, Fields}),
    keep_state_and_data;
received({control, log, Log}, #data{config = {ok, #{log_level := Least}}}) ->
    quic_dist_events:logged(Log, Least),
    keep_state_and_data;
received({control, certificates, #{certificates := Certificates}}, Data0) ->
    Data = Data0#data{certificates = [quic_dist_info:certificate(C) || C <- Certificates]},
    quic_dist_events:tell(#{event => certificates, certificates => certificates(Data)}),
    {keep_state, Data};
received({control, registration, Fields}, _) ->
    log_registration(Fields),
    keep_state_and_data;
received({control, registered, #{id := 0, state := State}}, _) when
    State =:= holding; State =:= registered
->
    keep_state_and_data;
received({control, registered, #{id := 0} = Fields}, _) ->
    log_registration(Fields),
    keep_state_and_data;
received({control, error, #{id := 0, text := Text}}, _) ->
    quic_dist_log:log(error, Text),
    keep_state_and_data;
received({control, Tag, #{id := 0}}, _) when Tag =:= listening; Tag =:= ok ->
    %% The listener is there again; or it is closed. Nobody waits for that.
    keep_state_and_data;
received({control, Tag, #{id := Id} = Fields} = Frame, #data{users = Users0} = Data) ->
    case {Tag, quic_dist_users:answered(Id, Users0)} of
        {error, {{_, From}, Users}} ->
            #{code := Code, text := Text} = Fields,
            Reason = {Code, unicode:characters_to_list(Text)},
            answer(From, {error, Reason}, Data#data{users = Users});
        {Tag, {{{Tag, Parameters}, From}, Users}} ->
            answered(Tag, Fields, Parameters, From, Data#data{users = Users});
        _ ->
            broken(Frame, Data)
    end;
received(Frame, Data) ->
    broken(Frame, Data).

log_registration(#{state := State, address := Address, port := Port, text := Text}) ->
    Level =
        case State of
            _ when State =:= holding; State =:= registered -> notice;
            _ -> warning
        end,
    Facts = [{address, Address}, {port, Port}] ++ [{why, Text} || Text =/= <<>>],
    quic_dist_log:log(Level, ["the names of this host: ", atom_to_list(State)], Facts).

broken(Frame, Data) ->
    Found =
        case Frame of
            {error, Kind, Words} -> [atom_to_binary(Kind), ": ", Words];
            _ -> ["an unexpected ", quic_dist_proto:format(Frame)]
        end,
    fail(
        text("quicdistd broke the control protocol (~ts) and is replaced: ~ts", [
            Found, "if that goes on, install library and executable from one release"
        ]),
        Data
    ).

answer(abandoned, _, Data) ->
    {keep_state, Data};
answer(From, Reply, Data) ->
    {keep_state, Data, [{reply, From, Reply}]}.

answered(listening, #{address := Address, port := UdpPort}, Parameters, From, Data) ->
    %% The next sidecar listens on the very port that peers know.
    Bound = {parse_address(Address), UdpPort},
    quic_dist_events:tell(#{event => listening, address => Bound}),
    Listener = Parameters#{port_min := UdpPort, port_max := UdpPort, bound => Bound},
    answer(From, {ok, Listener}, Data#data{listener = Listener});
answered(registered, #{state := State} = Fields, Parameters, From, Data0) ->
    Data =
        case State of
            duplicate -> Data0;
            _ -> Data0#data{registration = maps:with([node, quic, tcp], Parameters)}
        end,
    answer(From, {ok, maps:remove(id, Fields)}, Data);
answered(ok, #{}, _, From, Data) ->
    answer(From, ok, Data);
answered(resolved, #{addresses := Texts}, _, From, Data) ->
    answer(From, {ok, [parse_address(Text) || Text <- Texts]}, Data);
answered(dialled, #{channel := Id}, _, abandoned, Data) ->
    {keep_state, send(close, #{channel => Id}, Data)};
answered(dialled, Fields, #{node := Node}, {Pid, _} = From, Data) ->
    Channel = channel(Fields, Data),
    tell_up(dialled, Channel, Node, #{}),
    answer(From, {ok, Channel}, own(Channel, Pid, Data));
answered(_, Fields, _, From, Data) ->
    answer(From, {ok, Fields}, Data).

tell_up(Direction, #{id := Id, address := Ip, udp_port := UdpPort}, Node, Facts) ->
    quic_dist_events:tell({up, Id, Node, Direction, Facts#{address => {Ip, UdpPort}}}).

channel(#{channel := Id, address := Address, port := UdpPort} = Fields, Data) ->
    Path = maps:with([streams, credit, socket, token], Fields),
    (maps:merge(Path, claim(Fields)))#{
        id => Id,
        port => Data#data.port,
        address => parse_address(Address),
        udp_port => UdpPort
    }.

claim(#{node := Node} = Fields) ->
    #{claim => {Node, maps:get(identity, Fields, undefined)}};
claim(_) ->
    #{}.

%% An IPv6 address may come with a zone, which an ip_address() has no room for.
parse_address(Text) ->
    [Address | _] = binary:split(Text, <<"%">>),
    case inet:parse_strict_address(binary_to_list(Address)) of
        {ok, Ip} -> Ip;
        {error, einval} -> throw(not_an_address)
    end.

%% Channels

own(#{id := Id}, Pid, #data{users = Users} = Data) ->
    Data#data{users = quic_dist_users:own(Id, Pid, Users)}.

hand_over(Channel, #data{acceptor = undefined, waiting = Waiting} = Data) ->
    Data#data{waiting = [Channel | Waiting]};
hand_over(Channel, #data{acceptor = {Pid, _}} = Data) ->
    Pid ! {accepted, Channel},
    own(Channel, Pid, Data).

channel_closed(Id, Reason, Text, #data{users = Users0, waiting = Waiting} = Data) ->
    quic_dist_events:tell({down, Id, Reason, Text}),
    case quic_dist_users:close(Id, Users0) of
        {Handlers, Users} ->
            Facts = [{channel, Id}, {reason, Reason}],
            quic_dist_log:log(link, closed_level(Reason), Text, Facts),
            case Handlers of
                {Input, _} -> Input ! closed;
                undefined -> closed
            end,
            Data#data{users = Users};
        error ->
            Data#data{waiting = [C || #{id := Other} = C <- Waiting, Other =/= Id]}
    end.

closed_level(protocol_error) -> error;
closed_level(connection_lost) -> notice;
closed_level(_) -> info.

process_down(Monitor, #data{acceptor = {_, Monitor}} = Data) ->
    Data#data{acceptor = undefined};
process_down(Monitor, #data{users = Users0} = Data) ->
    case quic_dist_users:down(Monitor, Users0) of
        {cancel, Id, Users} -> send(cancel, #{id => Id}, Data#data{users = Users});
        {close, Id, Users} -> send(close, #{channel => Id}, Data#data{users = Users});
        error -> Data
    end.

%% Words

%% The version of this library. The application need not be loaded.
build() ->
    case application:get_key(quic_dist, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> build(code:where_is_file("quic_dist.app"))
    end.

build(non_existing) ->
    <<"unknown (quic_dist.app is not on the code path)">>;
build(File) ->
    {ok, Bytes, _} = erl_prim_loader:get_file(File),
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Bytes)),
    {ok, {application, quic_dist, Keys}} = erl_parse:parse_term(Tokens),
    list_to_binary(proplists:get_value(vsn, Keys)).

text(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).

target() ->
    case quic_dist_exe:target() of
        {ok, _} = Ok -> Ok;
        {error, Architecture} -> {ok, Architecture}
    end.
