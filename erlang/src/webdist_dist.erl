%% @doc Erlang distribution over HTTP: the carrier that `erl -proto_dist webdist' names.
%%
%% A connection goes to the web port of the peer's host, which upgrades it to distribution. After
%% that it works as over TCP. The callbacks are those of `quic_dist'; "in net_kernel" marks those
%% that run in the net_kernel process.
-module(webdist_dist).

-export([childspecs/0]).
-export([listen/1, listen/2, address/0, address/1, accept/1, accept_connection/5, close/1]).
-export([select/1, setup/5, is_node_name/1]).
-export_type([listener/0]).

-include_lib("kernel/include/net_address.hrl").

-opaque listener() :: webdist.
%% What listen/2 returns and net_kernel hands back. The sockets are the sidecar's.

%% @doc Called by net_sup before anything else, each time distribution starts.
-spec childspecs() -> {ok, [supervisor:child_spec()]}.
childspecs() ->
    {ok, [webdist_sup:child_spec()]}.

%% Listening

%% @doc {@link listen/2} on the host that this machine calls itself. In net_kernel.
-spec listen(atom()) -> {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name) ->
    listen(Name, quic_dist_setup:host()).

%% @doc Makes the node reachable by the web port of its host. A node that cannot use the port still
%% connects to others, and tries again. In net_kernel. The creation is left to net_kernel.
-spec listen(atom(), string()) -> {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name, Host) ->
    Node = iolist_to_binary([atom_to_binary(Name), $@, unicode:characters_to_binary(Host)]),
    case webdist_server:listen(Node) of
        {ok, #{state := duplicate}} ->
            {error, duplicate_name};
        {ok, #{state := waiting, text := Text}} ->
            quic_dist_log:log(warning, ["this node cannot be connected to over HTTP: ", Text]),
            {ok, {webdist, net_address(undefined, Host), -1}};
        {ok, #{address := Address, port := Port}} ->
            Endpoint =
                case quic_dist_proto:ip(Address) of
                    {ok, Ip} -> {Ip, Port};
                    error -> undefined
                end,
            {ok, {webdist, net_address(Endpoint, Host), -1}};
        {error, Text} ->
            {error, Text}
    end.

net_address(Endpoint, Host) ->
    quic_dist_setup:net_address(webdist, Endpoint, Host).

%% @doc The address of a node that does not listen. In net_kernel.
-spec address() -> #net_address{}.
address() ->
    address(quic_dist_setup:host()).

%% @doc {@link address/0} for a node of this host name (OTP 27 and later). In net_kernel.
-spec address(string()) -> #net_address{}.
address(Host) ->
    net_address(undefined, Host).

%% @doc Takes no more connections; those that are up go on. In net_kernel.
-spec close(listener()) -> ok.
close(_) ->
    webdist_server:unlisten().

%% Accepting

%% @doc {@link webdist_server} offers connections to net_kernel, because it outlives net_kernel's
%% acceptors. The acceptor that net_kernel gets only ends with net_kernel.
-spec accept(listener()) -> pid().
accept(_) ->
    Kernel = self(),
    quic_dist_setup:start(
        fun() ->
            Monitor = monitor(process, Kernel),
            receive
                {'DOWN', Monitor, process, _, _} -> ok
            end
        end,
        [link]
    ).

%% @doc Starts the connection supervisor of an accepted connection. Called by net_kernel.
-spec accept_connection(pid(), quic_dist_setup:connection(), node(), [node()], timeout()) -> pid().
accept_connection(Acceptor, Connection, MyNode, Allowed, SetupTime) ->
    quic_dist_setup:accept_connection(webdist, Acceptor, Connection, MyNode, Allowed, SetupTime).

%% Connecting

%% @doc Does this carrier reach `Node'? Any node's host may have a web port.
-spec select(node()) -> boolean().
select(Node) ->
    is_node_name(Node).

%% @doc Is this the name of a node?
-spec is_node_name(term()) -> boolean().
is_node_name(Node) ->
    quic_dist_setup:is_node_name(Node).

%% @doc Starts the connection supervisor of an outgoing connection. Called by net_kernel.
-spec setup(node(), normal | hidden, node(), longnames | shortnames, timeout()) -> pid().
setup(Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Connect = fun connect/4,
    quic_dist_setup:setup(webdist, Connect, Node, Type, MyNode, LongOrShortNames, SetupTime).

connect(Node, _MyNode, LongOrShortNames, Deadline) ->
    case quic_dist_names:split(Node, LongOrShortNames) of
        {ok, _, Host} ->
            Timeout = max(1, Deadline - erlang:monotonic_time(millisecond)),
            case webdist_dial:dial(Node, Host, any, Timeout) of
                {ok, Link} ->
                    {Ctrl, Endpoint} = webdist_dial:connection(Link),
                    {ok, Ctrl, Endpoint, Host};
                {error, _} = Error ->
                    Error
            end;
        {error, _} = Error ->
            Error
    end.
