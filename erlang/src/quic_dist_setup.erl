%% @doc net_kernel's side of a carrier, once for `quic_dist' and `webdist_dist': the processes that
%% supervise connections, the offer of accepted connections, and the addresses that net_kernel
%% shows.
%%
%% A carrier passes what differs: its protocol, and how it connects. The supervisors do not trap
%% exits, because net_kernel ends them when two nodes connect to each other at the same time.
-module(quic_dist_setup).

-export([start/2, offer/5, accept_connection/6, setup/7]).
-export([net_address/3, host/0, is_node_name/1]).
-export_type([protocol/0, endpoint/0, connection/0, connect/0]).

-include_lib("kernel/include/net_address.hrl").
-include_lib("kernel/include/dist_util.hrl").

-type protocol() :: quic | webdist.
%% The carrier, as `#net_address{}' and net_kernel's messages name it.

-type endpoint() :: {inet:ip_address(), inet:port_number()}.

-type connection() ::
    {quic_dist_plane:ctrl(), endpoint(), quic_dist_peer:claimed()}.
%% An accepted connection: its data plane, the other end, and the name that the peer gave our
%% sidecar, if it gave one there.

-type connect() :: fun(
    (node(), MyNode :: node(), longnames | shortnames, Deadline :: integer()) ->
        {ok, quic_dist_plane:ctrl(), endpoint(), Host :: string()} | {error, unicode:chardata()}
).
%% Opens a connection to a node until a deadline, in milliseconds of monotonic time. An error is a
%% line for the operator.

%% Carriers have no address family of their own: the sidecar listens on IPv6 and IPv4 with one
%% socket. The value must be the same in what listen/2 returns and in the acceptor's message.
-define(FAMILY, inet).

%% @doc Starts a process. The options never ask for a monitor.
-spec start(fun(() -> term()), [term()]) -> pid().
start(Fun, Options) ->
    Pid = spawn_opt(Fun, Options),
    true = is_pid(Pid),
    Pid.

%% Accepted connections

%% @doc Offers a connection of the caller's to net_kernel, and hands it over to the supervisor that
%% net_kernel starts for it. `Late' is called when net_kernel has not answered within `Timeout'. The
%% offer still stands after that, because the supervisor waits for its connection without limit.
-spec offer(
    Kernel :: pid(),
    {Family :: atom(), Protocol :: atom()} | protocol(),
    {Connection :: term(), HandOver :: fun((pid()) -> term())},
    timeout(),
    Late :: fun(() -> term())
) -> {ok, Supervisor :: pid()} | {error, Reason :: term()}.
offer(Kernel, {Family, Protocol}, {Connection, HandOver}, Timeout, Late) ->
    Monitor = monitor(process, Kernel),
    Kernel ! {accept, self(), Connection, Family, Protocol},
    Answer = await_supervisor(Kernel, Monitor, Timeout, Late),
    demonitor(Monitor, [flush]),
    case Answer of
        {ok, Supervisor} ->
            %% If the connection has ended meanwhile, the supervisor finds that out.
            _ = HandOver(Supervisor),
            Supervisor ! {self(), controller},
            {ok, Supervisor};
        {error, _} ->
            Answer
    end;
offer(Kernel, Protocol, Offered, Timeout, Late) ->
    offer(Kernel, {?FAMILY, Protocol}, Offered, Timeout, Late).

await_supervisor(Kernel, Monitor, Timeout, Late) ->
    receive
        {Kernel, controller, Supervisor} -> {ok, Supervisor};
        {Kernel, unsupported_protocol} -> {error, unsupported_protocol};
        {'DOWN', Monitor, process, _, Reason} -> {error, Reason}
    after Timeout ->
        _ = Late(),
        await_supervisor(Kernel, Monitor, infinity, Late)
    end.

%% @doc Starts the supervisor of an accepted connection. It answers the distribution handshake, in
%% which the peer must give the name that it gave our sidecar. Called by net_kernel.
-spec accept_connection(protocol(), pid(), connection(), node(), [node()], timeout()) -> pid().
accept_connection(Protocol, Acceptor, Connection, MyNode, Allowed, SetupTime) ->
    Kernel = self(),
    start(
        fun() ->
            receive
                {Acceptor, controller} ->
                    Hs = accepted(Protocol, Connection, SetupTime),
                    dist_util:handshake_other_started(Hs#hs_data{
                        kernel_pid = Kernel,
                        this_node = MyNode,
                        allowed = Allowed
                    })
            end
        end,
        dist_util:net_ticker_spawn_options()
    ).

accepted(Protocol, {Ctrl, Endpoint, Claim}, SetupTime) ->
    Timer = dist_util:start_timer(SetupTime),
    Hs = quic_dist_peer:require_name(Claim, Endpoint, quic_dist_plane:hs_data(Ctrl)),
    Hs#hs_data{
        timer = Timer,
        f_address = fun(_, Node) ->
            case dist_util:split_node(Node) of
                {node, _, Host} -> net_address(Protocol, Endpoint, Host);
                _ -> ?shutdown(no_node)
            end
        end
    }.

%% Connections to peers

%% @doc Starts the supervisor of an outgoing connection. It connects, and starts the distribution
%% handshake. Called by net_kernel.
-spec setup(
    protocol(), connect(), node(), normal | hidden, node(), longnames | shortnames, timeout()
) -> pid().
setup(Protocol, Connect, Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Kernel = self(),
    start(
        fun() ->
            Timer = dist_util:start_timer(SetupTime),
            %% Our own bound ends a little before the timer, so that the reason is logged.
            Deadline = erlang:monotonic_time(millisecond) + SetupTime * 9 div 10,
            case Connect(Node, MyNode, LongOrShortNames, Deadline) of
                {ok, Ctrl, Endpoint, Host} ->
                    dist_util:reset_timer(Timer),
                    Address = net_address(Protocol, Endpoint, Host),
                    Hs = quic_dist_plane:hs_data(Ctrl),
                    dist_util:handshake_we_started(Hs#hs_data{
                        kernel_pid = Kernel,
                        other_node = Node,
                        this_node = MyNode,
                        timer = Timer,
                        request_type = Type,
                        f_address = fun(_, _) -> Address end
                    });
                {error, Text} ->
                    quic_dist_links:failed(Node, Text),
                    ?shutdown2(Node, no_connection)
            end
        end,
        dist_util:net_ticker_spawn_options()
    ).

%% Addresses and names

%% @doc An address as net_kernel shows it; `undefined' for a node that does not listen.
-spec net_address(protocol(), endpoint() | undefined, Host :: string()) -> #net_address{}.
net_address(Protocol, Endpoint, Host) ->
    #net_address{address = Endpoint, host = Host, protocol = Protocol, family = ?FAMILY}.

%% @doc The host that this machine calls itself.
-spec host() -> string().
host() ->
    {ok, Host} = inet:gethostname(),
    Host.

%% @doc Is this the name of a node?
-spec is_node_name(term()) -> boolean().
is_node_name(Node) when is_atom(Node) ->
    case dist_util:split_node(Node) of
        {node, _, _} -> true;
        _ -> false
    end;
is_node_name(_) ->
    false.
