%% @doc What this VM does at its host's web port: keeps what is wanted, has each sidecar do it, and
%% turns upgraded connections into connection attempts of this node.
%%
%% `erl -s webdist_server' calls {@link start/0}: the VM then takes part in holding the port. In a
%% VM without distribution that makes a proxy; in a node, connections for the node come in as well.
-module(webdist_server).
-behaviour(gen_server).

-export([start/0, start_link/1]).
-export([listen/1, unlisten/0, name/2, register_name/2, info/0, tell/1]).
-export([names/2]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([status/0]).

-type status() :: #{
    state := holding | registered | waiting | duplicate,
    address := binary(),
    port := inet:port_number(),
    text := binary()
}.
%% How the sidecar stands at the port: it listens there; another process of this host does, and
%% knows our node; neither; or another node has our name. Where that is, and in words why not.

-type carrier() :: {inet | inet6, tcp | webdist | quic}.
%% Family and protocol of the carrier that takes connections.

-record(state, {
    %% Hold the port, if that is free.
    serve = false :: boolean(),
    %% The node that takes connections, its TCP port for others, and its carrier.
    node = <<>> :: binary(),
    node_port = 0 :: inet:port_number(),
    %% The host part of a name that is about to be registered without one.
    host = "" :: string(),
    status = undefined :: undefined | status()
}).

%% Milliseconds. A sidecar may have to be started first.
-define(CALL_TIMEOUT, 15000).
-define(REQUEST_TIMEOUT, 12000).
%% net_kernel may be busy.
-define(OFFER_TIMEOUT, 10000).

%% API

%% @doc Takes part in holding the web port. What is wrong is logged, and returned.
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
start_link(What) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, What, []).

%% @doc Takes connections for a node, and takes part in holding the port. In net_kernel.
-spec listen(Node :: binary()) -> {ok, status()} | {error, string()}.
listen(Node) ->
    call({listen, Node}).

%% @doc Takes no more connections.
-spec unlisten() -> ok.
unlisten() ->
    gen_server:cast(?MODULE, unlisten).

%% @doc Says which host part belongs to the name that will be registered next. In net_kernel.
-spec name(atom(), string()) -> ok.
name(_Name, Host) ->
    gen_server:cast(?MODULE, {host, Host}).

%% @doc Takes connections for the node `Name', whose carrier listens at a TCP port. In net_kernel.
-spec register_name(string() | atom(), inet:port_number()) -> {ok, status()} | {error, string()}.
register_name(Name, Port) ->
    call({register, text(Name), Port}).

%% @doc How things are; `undefined' if nothing was wanted yet.
-spec info() -> {ok, undefined | status()} | {error, string()}.
info() ->
    call(info).

%% @doc The nodes of a host: first parts of their names, and their TCP ports (0: not known).
-spec names(string(), timeout()) ->
    {ok, [{binary(), inet:port_number()}]} | {error, quic_dist_port:reason()}.
names(Host, Timeout) ->
    case webdist_config:read() of
        {ok, #{port := Port}} ->
            Name = unicode:characters_to_binary(Host),
            Fields = #{host => Name, port => Port, timeout => Timeout},
            case quic_dist_port:request(web_names, Fields, web_named, Timeout + 1000) of
                {ok, #{names := Names}} -> {ok, Names};
                {error, _} = Error -> Error
            end;
        {error, Text} ->
            {error, {down, Text}}
    end.

%% @doc Called by the sidecar's owner: the sidecar is up, or has sent an event. Never waits, and it
%% does not matter if there is no such process.
-spec tell(up | {atom(), quic_dist_proto:fields()}) -> ok.
tell(Event) ->
    case whereis(?MODULE) of
        undefined ->
            ok;
        Pid ->
            Pid ! {sidecar, Event},
            ok
    end.

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
-spec init(wait | serve) -> {ok, #state{}} | {ok, #state{}, {continue, apply_wish}}.
init(What) ->
    case {recall(), What} of
        {{ok, State}, _} -> {ok, State, {continue, apply_wish}};
        {none, serve} -> {ok, serve(#state{}), {continue, apply_wish}};
        {none, wait} -> {ok, #state{}}
    end.

%% @private
-spec handle_continue(apply_wish, #state{}) -> {noreply, #state{}}.
handle_continue(apply_wish, State) ->
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
    {Reply, State} = apply_wish(State0),
    {reply, Reply, State}.

%% What is wanted outlives this process, and not the supervisor that starts it again.
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
handle_cast({host, Host}, State) ->
    {noreply, State#state{host = Host}};
handle_cast(unlisten, State0) ->
    {reply, _, State} = reply(State0#state{node = <<>>, node_port = 0}),
    {noreply, State};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({sidecar, up}, #state{status = undefined} = State) ->
    {noreply, State};
handle_info({sidecar, up}, State) ->
    %% Another one, which knows of nothing.
    {noreply, apply_again(State)};
handle_info({sidecar, {web_accepted, Fields}}, State) ->
    _ = spawn(fun() -> accept(Fields) end),
    {noreply, State};
handle_info({sidecar, {web_changed, Status}}, State) ->
    #{state := Stands, address := Address, port := Port, text := Text} = Status,
    Facts = [{address, Address}, {port, Port}] ++ [{why, Text} || Text =/= <<>>],
    quic_dist_log:log(notice, ["the web port: ", atom_to_list(Stands)], Facts),
    {noreply, State#state{status = Status}};
handle_info(_, State) ->
    {noreply, State}.

apply_again(State0) ->
    case apply_wish(State0) of
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

%% What is wanted goes to the sidecar. The answer is that of a sidecar that is up: what was
%% said before it about sidecars coming up is old.
apply_wish(#state{serve = Serve, node = Node, node_port = NodePort} = State) ->
    case webdist_config:read() of
        {ok, #{port := Port, mode := Mode, allow := Allow, names_to := NamesTo} = Options} ->
            #{listen := Listen, h3 := H3} = Options,
            #{insecure_proxy := InsecureProxy, insecure_clear := InsecureClear} = Options,
            State#state.status =:= undefined andalso warn_if_insecure(Options),
            Fields = #{
                tls => tls(Listen),
                h3 => H3,
                insecure_clear => InsecureClear,
                insecure_proxy => InsecureProxy,
                node => Node,
                node_port => NodePort,
                take => webdist_link:take(Options),
                serve => Serve,
                address => listen_address(Options),
                port => Port,
                mode => Mode,
                allow => Allow,
                epmd_port => quic_dist_names:epmd_port(),
                names_to => NamesTo,
                upstream => maps:get(web_upstream, Options, <<>>)
            },
            case quic_dist_port:request(web_serve, Fields, web_serving, ?REQUEST_TIMEOUT) of
                {ok, Answer} ->
                    forget_ups(),
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

forget_ups() ->
    receive
        {sidecar, up} -> forget_ups()
    after 0 -> ok
    end.

tls([http]) -> off;
tls([https]) -> only;
tls([http, https]) -> beside.

%% When it is wanted for the first time: what weakens the port is never forgotten.
warn_if_insecure(#{insecure_proxy := Proxy, insecure_clear := Clear}) ->
    Proxy andalso
        quic_dist_log:log(
            warning,
            "webdist: insecure_proxy is set: over https peers are let in, and dialled, that cannot "
            "prove who they are, and nothing but Erlang's cookie handshake is between them and this "
            "node"
        ),
    Clear andalso
        quic_dist_log:log(
            warning,
            "webdist: insecure_clear is set: in clear peers are let in, and dialled, without a "
            "certificate, and nothing but Erlang's cookie handshake is between them and this node"
        ),
    ok.

listen_address(#{listen_address := Address}) -> list_to_binary(inet:ntoa(Address));
listen_address(_) -> <<>>.

%% Connections that peers have had upgraded

%% Runs in a process of its own, which owns the socket until net_kernel's has it.
accept(#{address := Address, port := Port} = Fields) ->
    case {carrier(), webdist_link:open(Fields)} of
        {{ok, Carrier}, {ok, Socket}} ->
            offer(Carrier, Socket, {address(Address), Port});
        {error, {ok, Socket}} ->
            gen_tcp:close(Socket);
        {_, {error, Reason}} ->
            Facts = [{from, Address}, {reason, Reason}],
            quic_dist_log:log(notice, "an upgraded connection was gone before it was taken", Facts)
    end.

address(Text) ->
    case inet:parse_address(binary_to_list(Text)) of
        {ok, Ip} -> Ip;
        {error, einval} -> {0, 0, 0, 0}
    end.

offer({Family, Protocol}, Socket, Peer) ->
    Ctrl =
        case Protocol of
            tcp -> Socket;
            webdist -> {{webdist_link, Socket, single}, Peer};
            quic -> {{webdist_link, Socket, single}, Peer, unclaimed}
        end,
    case whereis(net_kernel) of
        undefined ->
            gen_tcp:close(Socket);
        Kernel ->
            Monitor = monitor(process, Kernel),
            Kernel ! {accept, self(), Ctrl, Family, Protocol},
            offered(Kernel, Monitor, Socket, ?OFFER_TIMEOUT)
    end.

%% A net_kernel that is late finds a closed socket, and not a supervisor that waits for ever for
%% who has made the offer.
offered(Kernel, Monitor, Socket, Timeout) ->
    receive
        {Kernel, controller, Supervisor} ->
            %% If the connection has ended meanwhile, the supervisor finds that out.
            _ = webdist_link:hand_over(Socket, Supervisor),
            Supervisor ! {self(), controller},
            ok;
        {Kernel, unsupported_protocol} ->
            gen_tcp:close(Socket);
        {'DOWN', Monitor, process, _, _} ->
            gen_tcp:close(Socket)
    after Timeout ->
        gen_tcp:close(Socket),
        offered(Kernel, Monitor, Socket, infinity)
    end.

%% The first of the node's carriers that can take a TCP connection.
-spec carrier() -> {ok, carrier()} | error.
carrier() ->
    case [Carrier || Name <- quic_dist_names:protocols(), Carrier <- carrier_of(Name)] of
        [Carrier | _] -> {ok, Carrier};
        [] -> error
    end.

carrier_of("inet_tcp") -> [{inet, tcp}];
carrier_of("inet6_tcp") -> [{inet6, tcp}];
carrier_of("webdist") -> [{inet, webdist}];
carrier_of("quic") -> [{inet, quic}];
carrier_of(_) -> [].
