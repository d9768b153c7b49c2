%% @doc This VM's part at the web port of its host: this process keeps what is wanted of the
%% sidecar, tells it to each sidecar, and turns upgraded connections into connection attempts of
%% this node.
%%
%% `erl -s webdist_server' calls {@link start/0}: the VM then takes part in holding the port. A VM
%% without distribution is a proxy then; a node also takes connections for itself.
-module(webdist_server).
-behaviour(gen_server).
-behaviour(quic_dist_feature).

-export([start/0, start_link/1]).
-export([topics/0, handle/3]).
-export([listen/1, unlisten/0, name/2, register_name/2, info/0, names/2]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([status/0]).

-type status() :: #{
    state := holding | registered | waiting | duplicate,
    address := binary(),
    port := inet:port_number(),
    text := binary()
}.
%% The sidecar holds the port; or another process of this host does, and knows our node; or neither;
%% or another node has our name. `address' and `port' are those of the web port, `text' says why the
%% sidecar is not there.

-type carrier() :: {inet | inet6, tcp | webdist | quic}.
%% Family and protocol of the carrier that takes connections.

%% Each new name in a distribution handshake becomes an atom, before the peer is authenticated, and
%% atoms stay. So many are made at once, and in a second; none when the atom table is this full.
-define(NEW_NAMES, 64).
-define(NEW_NAMES_RATE, 4).
-define(ATOMS_IN_USE, 0.75).

%% Lines of the log about strangers, at once and in a second.
-define(LINES, 10).
-define(LINES_RATE, 1).

-record(state, {
    %% Hold the port, if that is free.
    serve = false :: boolean(),
    %% The node that takes connections, its TCP port for others, and its carrier.
    node = <<>> :: binary(),
    node_port = 0 :: inet:port_number(),
    %% The host part of a name that is about to be registered without one.
    host = "" :: string(),
    %% New atoms, and lines of the log, that strangers may cause.
    new_names = webdist_limit:new(?NEW_NAMES, ?NEW_NAMES_RATE) :: webdist_limit:bucket(),
    lines = webdist_limit:new(?LINES, ?LINES_RATE) :: webdist_limit:bucket(),
    status = undefined :: undefined | status()
}).

%% Milliseconds. A sidecar may have to be started first.
-define(CALL_TIMEOUT, 15000).
-define(REQUEST_TIMEOUT, 12000).
%% Between two checks whether a handshake is over.
-define(LOOK, 50).
%% net_kernel may be busy.
-define(OFFER_TIMEOUT, 10000).

%% API

%% @doc Takes part in holding the web port. An error is logged, and returned.
-spec start() -> {ok, status()} | {error, string()}.
start() ->
    Started =
        case whereis(?MODULE) of
            undefined -> supervisor:start_child(kernel_safe_sup, webdist_sup:child_spec());
            _ -> {ok, running}
        end,
    case Started of
        {error, Reason} when Reason =/= already_present, element(1, Reason) =/= already_started ->
            failed(io_lib:format("cannot be started: ~0tp", [Reason]));
        _ ->
            case call(serve) of
                {ok, #{state := State} = Status} when State =:= holding; State =:= registered ->
                    {ok, Status};
                {ok, #{text := Text} = Status} ->
                    quic_dist_log:log(warning, ["the web port: ", Text]),
                    {ok, Status};
                {error, Text} ->
                    failed(Text)
            end
    end.

failed(Words) ->
    Text = unicode:characters_to_list(Words),
    quic_dist_log:log(error, ["the web port: ", Text]),
    {error, Text}.

%% @private
-spec start_link(wait | serve) -> gen_server:start_ret().
start_link(Mode) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Mode, []).

%% @doc Takes connections for a node, and takes part in holding the port. In net_kernel.
-spec listen(Node :: binary()) -> {ok, status()} | {error, string()}.
listen(Node) ->
    call({listen, Node}).

%% @doc Takes no more connections.
-spec unlisten() -> ok.
unlisten() ->
    gen_server:cast(?MODULE, unlisten).

%% @doc Sets the host part of the name that will be registered next. In net_kernel.
-spec name(atom(), string()) -> ok.
name(_Name, Host) ->
    gen_server:cast(?MODULE, {host, Host}).

%% @doc Takes connections for the node `Name', whose carrier listens at a TCP port. In net_kernel.
-spec register_name(string() | atom(), inet:port_number()) -> {ok, status()} | {error, string()}.
register_name(Name, Port) ->
    call({register, text(Name), Port}).

%% @doc The status at the web port; `undefined' if nothing was wanted yet.
-spec info() -> {ok, undefined | status()} | {error, string()}.
info() ->
    call(info).

%% @doc The nodes of a host: first parts of their names, and their TCP ports (0: not known).
-spec names(string(), timeout()) ->
    {ok, [{binary(), inet:port_number()}]} | {error, quic_dist_sidecar:reason()}.
names(Host, Timeout) ->
    case webdist_config:read() of
        {ok, Options} ->
            Name = unicode:characters_to_binary(Host),
            Fields = (webdist_config:fields(web_names, Options))#{host => Name, timeout => Timeout},
            case quic_dist_sidecar:request(web_names, Fields, web_named, Timeout + 1000) of
                {ok, #{names := Names}} -> {ok, Names};
                {error, _} = Error -> Error
            end;
        {error, Text} ->
            {error, {down, Text}}
    end.

%% @private
-spec topics() -> [quic_dist_feature:topic(), ...].
topics() ->
    [sidecar_up, web_accepted, web_changed].

%% @private In the process of the sidecar's owner. A VM that does not use the web port has no such
%% process.
-spec handle(quic_dist_feature:topic(), map(), quic_dist_feature:context()) -> ok.
handle(Topic, Fields, _) ->
    case whereis(?MODULE) of
        undefined ->
            ok;
        Pid ->
            Pid ! {sidecar, Topic, Fields},
            ok
    end.

%% Logs what a stranger has caused, and tells it as an event, unless there are too many such lines.
%% Never waits.
-spec stranger(
    {quic_dist_log:area(), logger:level(), Text :: unicode:chardata(), quic_dist_log:facts()},
    quic_dist_events:event()
) -> ok.
stranger(Line, Event) ->
    gen_server:cast(?MODULE, {stranger, Line, Event}).

call(Request) ->
    try
        gen_server:call(?MODULE, Request, ?CALL_TIMEOUT)
    catch
        exit:{timeout, _} -> {error, "webdist_server did not answer in time"};
        exit:{_, _} -> {error, "distribution over HTTP is not running"}
    end.

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> unicode:characters_to_binary(Name).

%% gen_server

%% @private
-spec init(wait | serve) -> {ok, #state{}} | {ok, #state{}, {continue, apply_wanted}}.
init(Mode) ->
    webdist_config:warn_if_insecure(),
    case {recall(), Mode} of
        {{ok, State}, _} -> {ok, State, {continue, apply_wanted}};
        {none, serve} -> {ok, serve(#state{}), {continue, apply_wanted}};
        {none, wait} -> {ok, #state{}}
    end.

%% @private
-spec handle_continue(apply_wanted, #state{}) -> {noreply, #state{}}.
handle_continue(apply_wanted, State) ->
    {noreply, apply_again(State)}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(serve, _, State) ->
    reply(serve(State));
handle_call({listen, Node}, _, State) ->
    reply(State#state{serve = true, node = Node, node_port = 0});
handle_call({register, Name, Port}, _, #state{host = Host} = State) ->
    Node =
        case Host of
            "" -> Name;
            _ -> <<Name/binary, $@, (unicode:characters_to_binary(Host))/binary>>
        end,
    reply(State#state{node = Node, node_port = Port});
handle_call(new_name, _, #state{new_names = Bucket0} = State) ->
    {Granted, Bucket} = webdist_limit:take(Bucket0, erlang:monotonic_time(millisecond)),
    Used = erlang:system_info(atom_count) / erlang:system_info(atom_limit),
    {reply, Granted andalso Used < ?ATOMS_IN_USE, State#state{new_names = Bucket}};
handle_call(info, _, #state{status = Status} = State) ->
    {reply, {ok, Status}, State};
handle_call(_, _, State) ->
    {reply, {error, "unknown request"}, State}.

%% A node without a name at the port gets that of this VM.
serve(#state{node = <<>>} = State) ->
    Node =
        case {is_alive(), carrier()} of
            {true, {ok, _}} -> atom_to_binary(node());
            _ -> <<>>
        end,
    State#state{serve = true, node = Node};
serve(State) ->
    State#state{serve = true}.

reply(State0) ->
    remember(State0),
    {Reply, State} = apply_wanted(State0),
    {reply, Reply, State}.

%% What is wanted outlives this process, but not the supervisor that starts it again.
remember(State) ->
    persistent_term:put(?MODULE, {whereis(webdist_sup), State#state{status = undefined}}).

recall() ->
    Supervisor = whereis(webdist_sup),
    case persistent_term:get(?MODULE, none) of
        {Supervisor, State} -> {ok, State};
        _ -> none
    end.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({stranger, {Area, Level, Text, Facts}, Event}, #state{lines = Bucket0} = State) ->
    {Granted, Bucket} = webdist_limit:take(Bucket0, erlang:monotonic_time(millisecond)),
    Granted andalso quic_dist_log:log(Area, Level, Text, Facts),
    Granted andalso quic_dist_links:tell(Event),
    {noreply, State#state{lines = Bucket}};
handle_cast({host, Host}, State) ->
    {noreply, State#state{host = Host}};
handle_cast(unlisten, State0) ->
    {reply, _, State} = reply(State0#state{node = <<>>, node_port = 0}),
    {noreply, State};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({sidecar, sidecar_up, _}, #state{status = undefined} = State) ->
    {noreply, State};
handle_info({sidecar, sidecar_up, _}, State) ->
    %% Another sidecar, which knows nothing of the web port.
    {noreply, apply_again(State)};
handle_info({sidecar, web_accepted, Fields}, State) ->
    _ = spawn(fun() -> accept(Fields) end),
    {noreply, State};
handle_info({sidecar, web_changed, Status}, State) ->
    #{state := Stands, address := Address, port := Port, text := Text} = Status,
    Facts = [{address, Address}, {port, Port}] ++ [{why, Text} || Text =/= <<>>],
    quic_dist_log:log(notice, ["the web port: ", atom_to_list(Stands)], Facts),
    {noreply, State#state{status = Status}};
handle_info(_, State) ->
    {noreply, State}.

apply_again(State0) ->
    case apply_wanted(State0) of
        {{ok, #{state := Stands}}, State} when Stands =:= holding; Stands =:= registered ->
            State;
        {{ok, _}, #state{serve = false, node = <<>>} = State} ->
            State;
        {{ok, #{text := Text}}, State} ->
            quic_dist_log:log(warning, ["the web port: ", Text]),
            State;
        {{error, Text}, State} ->
            quic_dist_log:log(error, ["the web port: ", Text]),
            State
    end.

%% Tells the sidecar what is wanted. A sidecar that is up has answered, so earlier messages about
%% sidecars that came up are old.
apply_wanted(#state{serve = Serve, node = Node, node_port = NodePort} = State) ->
    case webdist_config:read() of
        {ok, #{listen := Listen} = Options} ->
            webdist_config:warn_if_insecure(),
            Fields0 = #{address => <<>>, upstream => <<>>},
            Fields = (maps:merge(Fields0, webdist_config:fields(web_serve, Options)))#{
                tls => tls(Listen),
                node => Node,
                node_port => NodePort,
                take => webdist_link:take(Options),
                serve => Serve,
                epmd_port => quic_dist_kernel:epmd_port()
            },
            case quic_dist_sidecar:request(web_serve, Fields, web_serving, ?REQUEST_TIMEOUT) of
                {ok, Answer} ->
                    flush_sidecar_up(),
                    Status = maps:remove(id, Answer),
                    {{ok, Status}, State#state{status = Status}};
                {error, {_, Text}} ->
                    Status = #{
                        state => waiting,
                        address => <<>>,
                        port => 0,
                        text => unicode:characters_to_binary(Text)
                    },
                    {{error, Text}, State#state{status = Status}}
            end;
        {error, Text} ->
            {{error, Text}, State}
    end.

flush_sidecar_up() ->
    receive
        {sidecar, sidecar_up, _} -> flush_sidecar_up()
    after 0 -> ok
    end.

tls([http]) -> off;
tls([https]) -> only;
tls([http, https]) -> beside.

%% Upgraded connections

%% Runs in a process of its own, which owns the socket until the connection supervisor does, and
%% lives until the distribution handshake is over. Until it ends, the sidecar counts the link as one
%% of a stranger.
accept(#{address := Address, port := Port} = Fields) ->
    case {carrier(), quic_dist_proto:ip(Address), webdist_link:open(Fields)} of
        {{ok, Carrier}, {ok, Ip}, {ok, Socket}} ->
            case may_begin(Socket, maps:get(proven, Fields, false)) of
                ok ->
                    At = {Ip, Port},
                    offer(Carrier, Socket, At, webdist_link:web(accepted, Fields, At));
                {error, Reason} ->
                    gen_tcp:close(Socket),
                    gone(Address, Reason)
            end;
        {_, _, {ok, Socket}} ->
            gen_tcp:close(Socket);
        {_, _, {error, Reason}} ->
            gone(Address, Reason)
    end.

gone(Address, Reason) ->
    Facts = [{from, Address}, {reason, Reason}],
    Text = "an upgraded connection was gone before it was taken",
    Why = io_lib:format("~0tp", [Reason]),
    quic_dist_links:repeated(upgrade_gone, notice, Text, Why, Facts).

%% Reads the peer's first message, which has its name, and puts the message back for dist_util. A
%% peer that has proved nothing yet can cause only so many new atoms.
may_begin(_, true) ->
    ok;
may_begin(Socket, false) ->
    case inet_tcp:recv(Socket, 0, quic_dist_kernel:setup_time()) of
        {ok, Message} ->
            case quic_dist_peer:is_known(Message) orelse call(new_name) =:= true of
                true -> inet_tcp:unrecv(Socket, [<<(length(Message)):16>>, Message]);
                false -> {error, too_many_new_names}
            end;
        {error, _} = Error ->
            Error
    end.

offer({_, Protocol} = Carrier, Socket, Peer, Web) ->
    Connection =
        case Protocol of
            tcp -> Socket;
            _ -> {webdist_link:ctrl(Socket, Web), Peer, {unclaimed, fun stranger/2}}
        end,
    Protocol =:= tcp andalso quic_dist_links:tell({socket, Socket, Web}),
    case whereis(net_kernel) of
        undefined ->
            gen_tcp:close(Socket);
        Kernel ->
            HandOver = fun(Supervisor) -> webdist_link:hand_over(Socket, Supervisor) end,
            %% A net_kernel that is late finds a closed socket.
            Close = fun() -> gen_tcp:close(Socket) end,
            Offered = {Connection, HandOver},
            case quic_dist_setup:offer(Kernel, Carrier, Offered, ?OFFER_TIMEOUT, Close) of
                {ok, Supervisor} -> settle(Socket, monitor(process, Supervisor));
                {error, _} -> gen_tcp:close(Socket)
            end
    end.

%% Waits until the socket has the framing of distribution, because the handshake is over, or until
%% the supervisor has ended, after net_setuptime at most. Not all carriers tell when it is over.
settle(Socket, Supervisor) ->
    receive
        {'DOWN', Supervisor, process, _, _} -> ok
    after ?LOOK ->
        case inet:getopts(Socket, [packet]) of
            {ok, [{packet, 2}]} -> settle(Socket, Supervisor);
            _ -> ok
        end
    end.

%% The first of the node's carriers that can take a TCP connection.
-spec carrier() -> {ok, carrier()} | error.
carrier() ->
    case [Carrier || Name <- quic_dist_kernel:protocols(), Carrier <- carrier_of(Name)] of
        [Carrier | _] -> {ok, Carrier};
        [] -> error
    end.

carrier_of("inet_tcp") -> [{inet, tcp}];
carrier_of("inet6_tcp") -> [{inet6, tcp}];
carrier_of("webdist") -> [{inet, webdist}];
carrier_of("quic") -> [{inet, quic}];
carrier_of(_) -> [].
