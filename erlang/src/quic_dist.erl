%% @doc Erlang distribution over QUIC: the carrier that `erl -proto_dist quic' names.
%%
%% The callbacks of an alternative carrier (ERTS User's Guide, "How to Implement an Alternative
%% Carrier for the Erlang Distribution"), as net_kernel of OTP 25 to 29 makes them. Those marked so
%% run in the net_kernel process: they neither block on the network nor call net_kernel. What they
%% delegate to, and which processes belong to one distribution connection, is in DESIGN.md.
-module(quic_dist).

-export([childspecs/0]).
-export([listen/1, listen/2, address/0, address/1, accept/1, accept_connection/5, close/1]).
-export([select/1, setup/5, is_node_name/1]).
-export([info/0, reload/0]).
-export_type([listener/0]).

-include_lib("kernel/include/net_address.hrl").
-include_lib("kernel/include/dist_util.hrl").

-opaque listener() :: {quic_dist, quic_dist_port:listener()}.
%% What listen/2 returns and net_kernel hands back. The socket is the sidecar's.

%% No family of its own: the sidecar listens on IPv6 and IPv4 with one socket. The value has to
%% be the same in listen/2 and in the acceptor's message.
-define(FAMILY, inet).
-define(PROTOCOL, quic).

%% @doc Called by net_sup before anything else, each time distribution starts. Constants only: OTP
%% takes a crash in here for "no children".
-spec childspecs() -> {ok, [supervisor:child_spec()]}.
childspecs() ->
    {ok, [quic_dist_sup:child_spec()]}.

%% @doc What is known of the sidecar and where it listens: see {@link quic_dist_port:info/0}.
-spec info() -> #{atom() => term()} | {error, quic_dist_port:reason()}.
info() ->
    quic_dist_port:info().

%% @doc Has changed certificate files taken into use now, and not at the sidecar's next look: see
%% {@link quic_dist_port:reload/0}.
-spec reload() -> ok | {error, quic_dist_port:reason()}.
reload() ->
    quic_dist_port:reload().

%% Listening

%% @doc {@link listen/2} on the host that this machine calls itself. In net_kernel.
-spec listen(atom()) ->
    {ok, {listener(), #net_address{}, integer()}} | {error, term()}.
listen(Name) ->
    {ok, Host} = inet:gethostname(),
    listen(Name, Host).

%% @doc Has the sidecar listen for the node `Name@Host' and registers it with the epmd module,
%% unless its name says its port. In net_kernel. The creation is left to net_kernel, which draws 32
%% random bits. An error is a line for the operator, which net_kernel prints.
-spec listen(atom(), string()) ->
    {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name, Host) ->
    case quic_dist_port:options() of
        {ok, Options} -> listen(Name, Host, Options);
        {error, {_, Text}} -> {error, Text}
    end.

listen(Name, Host, Options) ->
    Node = iolist_to_binary([atom_to_binary(Name), $@, unicode:characters_to_binary(Host)]),
    {Min, Max} = quic_dist_names:listen_ports(Name, Host, Options),
    %% The process `auth', which runs before net_kernel, calls nobody.
    Cookie = quic_dist_admit:cookie(Node, Options),
    Parameters = Cookie#{
        node => Node,
        address => quic_dist_names:listen_address(Host, Options),
        port_min => Min,
        port_max => Max
    },
    case quic_dist_port:listen(Parameters) of
        {ok, #{bound := {_, UdpPort} = Bound} = Listener} ->
            case quic_dist_names:register(Name, UdpPort) of
                ok ->
                    Address = #net_address{
                        address = Bound, host = Host, protocol = ?PROTOCOL, family = ?FAMILY
                    },
                    {ok, {{quic_dist, Listener}, Address, -1}};
                {error, _} = Error ->
                    quic_dist_port:close_listener(),
                    Error
            end;
        {error, {_, Text}} ->
            {error, Text}
    end.

%% @doc The address of a node that does not listen. In net_kernel. There is no listen/2 then to
%% report what is wrong with configuration or executable, so that it ends the boot here.
-spec address() -> #net_address{}.
address() ->
    {ok, Host} = inet:gethostname(),
    address(Host).

%% @doc {@link address/0} for a node of this host name (OTP 27 and later). In net_kernel.
-spec address(string()) -> #net_address{}.
address(Host) ->
    case quic_dist_port:await() of
        ok -> #net_address{host = Host, protocol = ?PROTOCOL, family = ?FAMILY};
        {error, {_, Text}} -> refuse(Text, init:get_status())
    end.

-spec refuse(string(), tuple()) -> no_return().
refuse(Text, {starting, _}) ->
    erlang:display_string(Text ++ "\n"),
    halt(1);
refuse(Text, _) ->
    quic_dist_log:log(error, Text),
    error(badarg).

%% @doc Ends listening; channels go on. In net_kernel.
-spec close(listener()) -> ok.
close(_Listener) ->
    quic_dist_port:close_listener().

%% Accepting

%% @doc Starts the acceptor, which turns each channel that a peer opens into a connection
%% attempt. Called by net_kernel, again whenever an acceptor has ended.
-spec accept(listener()) -> pid().
accept({quic_dist, Listener}) ->
    Kernel = self(),
    start(fun() -> acceptor_init(Kernel, Listener) end, [link, {priority, max}]).

%% The options never ask for a monitor.
start(Fun, Options) ->
    Pid = spawn_opt(Fun, Options),
    true = is_pid(Pid),
    Pid.

%% A channel may end while it is being handed over, and the acceptor is linked to it for that time:
%% it traps exits, and no peer ends it.
acceptor_init(Kernel, Listener) ->
    process_flag(trap_exit, true),
    ok = quic_dist_port:accept(Listener),
    Monitor = monitor(process, quic_dist_port),
    acceptor(Kernel, Monitor).

acceptor(Kernel, Monitor) ->
    receive
        {accepted, Channel} ->
            case quic_dist_plane:open(Channel) of
                {ok, Ctrl} -> offer(Kernel, Ctrl, Channel);
                %% The peer was gone before we came to it, or else the sidecar.
                {error, _} -> ok
            end,
            acceptor(Kernel, Monitor);
        {'EXIT', Kernel, Reason} ->
            exit(Reason);
        {'EXIT', _, _} ->
            acceptor(Kernel, Monitor);
        {'DOWN', Monitor, process, _, Reason} ->
            %% net_kernel starts another, which finds the next quic_dist_port.
            exit({shutdown, Reason})
    end.

offer(Kernel, Ctrl, #{address := Ip, udp_port := UdpPort, claim := Claim}) ->
    Kernel ! {accept, self(), {Ctrl, {Ip, UdpPort}, Claim}, ?FAMILY, ?PROTOCOL},
    receive
        {Kernel, controller, Supervisor} ->
            %% If the channel has ended meanwhile, the supervisor finds that out.
            _ = quic_dist_plane:hand_over(Ctrl, Supervisor),
            Supervisor ! {self(), controller},
            ok;
        {Kernel, unsupported_protocol} ->
            exit(unsupported_protocol);
        {'EXIT', Kernel, Reason} ->
            exit(Reason)
    end.

%% @doc Starts the connection supervisor of an accepted channel, which answers the distribution
%% handshake, in which the peer has to keep the name that it gave our sidecar. Called by
%% net_kernel.
-spec accept_connection(
    pid(),
    {
        quic_dist_plane:ctrl(),
        {inet:ip_address(), inet:port_number()},
        quic_dist_peer:claim() | unclaimed
    },
    node(),
    [node()],
    timeout()
) -> pid().
accept_connection(Acceptor, {Ctrl, Address, Claim}, MyNode, Allowed, SetupTime) ->
    Kernel = self(),
    start(
        fun() ->
            receive
                {Acceptor, controller} ->
                    Timer = dist_util:start_timer(SetupTime),
                    Hs = quic_dist_peer:held_to(Claim, Address, quic_dist_plane:hs_data(Ctrl)),
                    dist_util:handshake_other_started(Hs#hs_data{
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
        {node, _, Host} ->
            #net_address{
                address = Address, host = Host, protocol = ?PROTOCOL, family = ?FAMILY
            };
        _ ->
            ?shutdown(no_node)
    end.

%% Connecting

%% @doc Does this carrier reach `Node'? Asked of each carrier in turn, in net_kernel up to OTP 28. A
%% discovery module that does not know the node leaves it to the next one.
-spec select(node()) -> boolean().
select(Node) ->
    case dist_util:split_node(Node) of
        {node, Name, Host} ->
            case quic_dist_port:options() of
                {ok, Options} -> quic_dist_names:known(Node, Name, Host, Options);
                {error, _} -> true
            end;
        _ ->
            false
    end.

%% @doc Is this the name of a node?
-spec is_node_name(term()) -> boolean().
is_node_name(Node) when is_atom(Node) ->
    case dist_util:split_node(Node) of
        {node, _, _} -> true;
        _ -> false
    end;
is_node_name(_) ->
    false.

%% @doc Starts the connection supervisor of an outgoing connection: it finds the node, opens a
%% channel and starts the distribution handshake. Called by net_kernel.
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
    Deadline = erlang:monotonic_time(millisecond) + SetupTime * 9 div 10,
    case connect(Node, MyNode, LongOrShortNames, Deadline) of
        {ok, Ctrl, Address} ->
            dist_util:reset_timer(Timer),
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
            quic_dist_log:log(warning, ["cannot connect to ", atom_to_binary(Node), ": ", Text]),
            ?shutdown2(Node, no_connection)
    end.

connect(Node, MyNode, LongOrShortNames, Deadline) ->
    case quic_dist_port:options() of
        {ok, Options} ->
            case quic_dist_admit:may_connect(atom_to_binary(Node), Options) of
                true -> connect(Node, MyNode, LongOrShortNames, Options, Deadline);
                false -> {error, "the option allow does not name it"}
            end;
        {error, {_, Text}} ->
            {error, Text}
    end.

connect(Node, MyNode, LongOrShortNames, Options, Deadline) ->
    case quic_dist_names:targets(Node, LongOrShortNames, Options, Deadline) of
        {ok, Targets, Host} ->
            dial(Node, MyNode, quic_dist_admit:cookie(Node, Options), Targets, Host, Deadline);
        {error, _} = Error ->
            Error
    end.

dial(Node, MyNode, Cookie, Targets, Host, Deadline) ->
    Parameters = Cookie#{
        node => atom_to_binary(Node),
        local => atom_to_binary(MyNode),
        targets => Targets,
        timeout => max(1, Deadline - erlang:monotonic_time(millisecond))
    },
    case quic_dist_port:dial(Parameters) of
        {ok, Channel} -> open(Channel, Host);
        {error, {_, Text}} -> {error, Text}
    end.

open(#{address := Ip, udp_port := UdpPort} = Channel, Host) ->
    Address = #net_address{
        address = {Ip, UdpPort}, host = Host, protocol = ?PROTOCOL, family = ?FAMILY
    },
    case quic_dist_plane:open(Channel) of
        {ok, Ctrl} -> {ok, Ctrl, Address};
        {error, Reason} -> {error, io_lib:format("no way to the sidecar (~0tp)", [Reason])}
    end.
