%% @doc Erlang distribution over HTTP: the carrier that `erl -proto_dist webdist' names.
%%
%% Connections go to the web port of the peer's host, which is asked to upgrade them to
%% distribution; and come in by this host's. Once upgraded, a connection is what it is over TCP. The
%% callbacks are those of `quic_dist'; those marked so run in net_kernel.
-module(webdist_dist).

-export([childspecs/0]).
-export([listen/1, listen/2, address/0, address/1, accept/1, accept_connection/5, close/1]).
-export([select/1, setup/5, is_node_name/1]).
-export_type([listener/0]).

-include_lib("kernel/include/net_address.hrl").
-include_lib("kernel/include/dist_util.hrl").

-opaque listener() :: webdist.
%% What listen/2 returns and net_kernel hands back. The sockets are the sidecar's.

-define(FAMILY, inet).
-define(PROTOCOL, webdist).

%% @doc Called by net_sup before anything else, each time distribution starts.
-spec childspecs() -> {ok, [supervisor:child_spec()]}.
childspecs() ->
    {ok, [webdist_sup:child_spec()]}.

%% Listening

%% @doc {@link listen/2} on the host that this machine calls itself. In net_kernel.
-spec listen(atom()) -> {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name) ->
    {ok, Host} = inet:gethostname(),
    listen(Name, Host).

%% @doc Has the node reached by the web port of its host. If that is not ours to use, the node still
%% connects to others, and goes on trying. In net_kernel. The creation is left to net_kernel.
-spec listen(atom(), string()) -> {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name, Host) ->
    Node = iolist_to_binary([atom_to_binary(Name), $@, unicode:characters_to_binary(Host)]),
    case webdist_server:listen(Node) of
        {ok, #{state := duplicate}} ->
            {error, duplicate_name};
        {ok, #{state := waiting, text := Text}} ->
            Words = ["this node cannot be connected to over HTTP: ", Text],
            quic_dist_log:log(warning, Words),
            {ok, {webdist, net_address(undefined, Host), -1}};
        {ok, #{address := Address, port := Port}} ->
            {ok, {webdist, net_address({parse(Address), Port}, Host), -1}};
        {error, Text} ->
            {error, Text}
    end.

parse(Address) ->
    case inet:parse_address(binary_to_list(Address)) of
        {ok, Ip} -> Ip;
        {error, einval} -> {0, 0, 0, 0}
    end.

net_address(Address, Host) ->
    #net_address{address = Address, host = Host, protocol = ?PROTOCOL, family = ?FAMILY}.

%% @doc The address of a node that does not listen. In net_kernel.
-spec address() -> #net_address{}.
address() ->
    {ok, Host} = inet:gethostname(),
    address(Host).

%% @doc {@link address/0} for a node of this host name (OTP 27 and later). In net_kernel.
-spec address(string()) -> #net_address{}.
address(Host) ->
    net_address(undefined, Host).

%% @doc Takes no more connections; those that are go on. In net_kernel.
-spec close(listener()) -> ok.
close(_) ->
    webdist_server:unlisten().

%% Accepting

%% @doc Connections come by {@link webdist_server}, which outlives net_kernel's acceptors. What
%% net_kernel gets has nothing to do but to end with it.
-spec accept(listener()) -> pid().
accept(_) ->
    Kernel = self(),
    start(
        fun() ->
            Monitor = monitor(process, Kernel),
            receive
                {'DOWN', Monitor, process, _, _} -> ok
            end
        end,
        [link]
    ).

%% The options never ask for a monitor.
start(Fun, Options) ->
    Pid = spawn_opt(Fun, Options),
    true = is_pid(Pid),
    Pid.

%% @doc Starts the connection supervisor of an accepted connection. Called by net_kernel.
-spec accept_connection(
    pid(),
    {quic_dist_plane:ctrl(), {inet:ip_address(), inet:port_number()}},
    node(),
    [node()],
    timeout()
) -> pid().
accept_connection(Acceptor, {Ctrl, Address}, MyNode, Allowed, SetupTime) ->
    Kernel = self(),
    start(
        fun() ->
            receive
                {Acceptor, controller} ->
                    Timer = dist_util:start_timer(SetupTime),
                    Hs = quic_dist_plane:hs_data(Ctrl),
                    Held = quic_dist_peer:held_to(unclaimed, Address, Hs),
                    dist_util:handshake_other_started(Held#hs_data{
                        kernel_pid = Kernel,
                        this_node = MyNode,
                        timer = Timer,
                        allowed = Allowed,
                        f_address = fun(_, Node) -> peer_address(Address, Node) end
                    })
            end
        end,
        dist_util:net_ticker_spawn_options()
    ).

peer_address(Address, Node) ->
    case dist_util:split_node(Node) of
        {node, _, Host} -> net_address(Address, Host);
        _ -> ?shutdown(no_node)
    end.

%% Connecting

%% @doc Does this carrier reach `Node'? Any node's host may have a web port.
-spec select(node()) -> boolean().
select(Node) ->
    is_node_name(Node).

%% @doc Is this the name of a node?
-spec is_node_name(term()) -> boolean().
is_node_name(Node) when is_atom(Node) ->
    case dist_util:split_node(Node) of
        {node, _, _} -> true;
        _ -> false
    end;
is_node_name(_) ->
    false.

%% @doc Starts the connection supervisor of an outgoing connection. Called by net_kernel.
-spec setup(node(), normal | hidden, node(), longnames | shortnames, timeout()) -> pid().
setup(Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Kernel = self(),
    start(
        fun() -> do_setup(Kernel, Node, Type, MyNode, LongOrShortNames, SetupTime) end,
        dist_util:net_ticker_spawn_options()
    ).

do_setup(Kernel, Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Timer = dist_util:start_timer(SetupTime),
    %% Our own bound is a little earlier, so that the reason is logged before the timer strikes.
    case connect(Node, LongOrShortNames, SetupTime * 9 div 10) of
        {ok, Socket, Address} ->
            dist_util:reset_timer(Timer),
            Hs = webdist_link:hs_data(Socket),
            dist_util:handshake_we_started(Hs#hs_data{
                kernel_pid = Kernel,
                other_node = Node,
                this_node = MyNode,
                timer = Timer,
                request_type = Type,
                f_address = fun(_, _) -> Address end
            });
        {error, Text} ->
            quic_dist_log:log(warning, ["cannot connect to ", atom_to_binary(Node), ": ", Text]),
            ?shutdown2(Node, no_connection)
    end.

connect(Node, LongOrShortNames, Timeout) ->
    case quic_dist_names:split(Node, LongOrShortNames) of
        {ok, _, Host} ->
            case webdist_dial:dial(Node, Host, any, Timeout) of
                {ok, #{socket := Socket, address := Address}} ->
                    {ok, Socket, net_address(Address, Host)};
                {error, _} = Error ->
                    Error
            end;
        {error, _} = Error ->
            Error
    end.
