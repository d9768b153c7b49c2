%% @doc Erlang distribution over QUIC: the carrier that `erl -proto_dist quic' names.
%%
%% The callbacks of an alternative carrier (ERTS User's Guide, "How to Implement an Alternative
%% Carrier for the Erlang Distribution"), as net_kernel of OTP 25 to 29 makes them. "In net_kernel"
%% marks those that run in the net_kernel process: they neither block on the network nor call
%% net_kernel. {@link quic_dist_setup} has what all carriers share. DESIGN.md says which processes
%% belong to one distribution connection.
-module(quic_dist).

-export([childspecs/0]).
-export([listen/1, listen/2, address/0, address/1, accept/1, accept_connection/5, close/1]).
-export([select/1, setup/5, is_node_name/1]).
-export([info/0, info/1, i/0, reload/0, subscribe/1, unsubscribe/1, trace/2]).
-export_type([listener/0]).

-include_lib("kernel/include/net_address.hrl").

-opaque listener() :: {quic_dist, quic_dist_channel:listener()}.
%% What listen/2 returns and net_kernel hands back. The socket is the sidecar's.

%% Milliseconds. A sidecar may have to be started first.
-define(RELOAD_TIMEOUT, 10000).

%% @doc Called by net_sup before anything else, each time distribution starts. Constants only: OTP
%% takes a crash in here for "no children".
-spec childspecs() -> {ok, [supervisor:child_spec()]}.
childspecs() ->
    {ok, [quic_dist_sup:child_spec()]}.

%% @doc What is known of the sidecar and of the links to peers: see {@link quic_dist_info:info/0}.
-spec info() -> quic_dist_info:info() | {error, quic_dist_sidecar:reason()}.
info() ->
    quic_dist_info:info().

%% @doc The link to one peer, as {@link info/0} has it.
-spec info(node()) -> quic_dist_info:peer() | {error, not_connected | quic_dist_sidecar:reason()}.
info(Node) ->
    quic_dist_info:info(Node).

%% @doc Prints a table of the links, one line for each peer, whatever carries it: see {@link
%% quic_dist_table:print/0}.
-spec i() -> ok.
i() ->
    quic_dist_table:print().

%% @doc The caller gets a message `{quic_dist, Reference, Event}' for each event of these kinds: see
%% {@link quic_dist_events}.
-spec subscribe(all | [quic_dist_events:kind()]) ->
    {ok, reference()} | {error, {bad_kind, term()} | quic_dist_sidecar:reason()}.
subscribe(Kinds) ->
    quic_dist_events:subscribe(Kinds).

%% @doc Ends a subscription of the caller.
-spec unsubscribe(reference()) -> ok.
unsubscribe(Reference) ->
    quic_dist_events:unsubscribe(Reference).

%% @doc Traces the connections to and from a node, or to and from all nodes that have no setting of
%% their own: see {@link quic_dist_trace:trace/2}.
-spec trace(node() | all, quic_dist_trace:setting()) -> ok | {error, quic_dist_sidecar:reason()}.
trace(Node, Setting) ->
    quic_dist_trace:trace(Node, Setting).

%% @doc Takes changed certificate files into use now, for connections that begin from now on, before
%% the sidecar looks at the files again. If they cannot be used, the error says why, and the
%% certificates in use stay.
-spec reload() -> ok | {error, quic_dist_sidecar:reason()}.
reload() ->
    quic_dist_sidecar:command(reload, #{}, ?RELOAD_TIMEOUT).

%% Listening

%% @doc {@link listen/2} on the host that this machine calls itself. In net_kernel.
-spec listen(atom()) ->
    {ok, {listener(), #net_address{}, integer()}} | {error, term()}.
listen(Name) ->
    listen(Name, quic_dist_setup:host()).

%% @doc Makes the sidecar listen for the node `Name@Host', and registers the node with the epmd
%% module, unless its name says its port. In net_kernel. The creation is left to net_kernel, which
%% draws 32 random bits. An error is a line for the operator, which net_kernel prints.
-spec listen(atom(), string()) ->
    {ok, {listener(), #net_address{}, -1}} | {error, term()}.
listen(Name, Host) ->
    case quic_dist_sidecar:options() of
        {ok, Options} -> listen(Name, Host, Options);
        {error, {_, Text}} -> {error, Text}
    end.

listen(Name, Host, Options) ->
    Where = {
        quic_dist_names:listen_ports(Name, Host, Options),
        quic_dist_names:listen_address(Host, Options)
    },
    case Where of
        {{ok, Ports}, {ok, Address}} -> listen(Name, Host, Address, Ports, Options);
        {{error, Reason}, _} -> {error, quic_dist_config:format_error(Reason)};
        {_, {error, Reason}} -> {error, quic_dist_config:format_error(Reason)}
    end.

listen(Name, Host, Address, {Min, Max} = Ports, Options) ->
    Node = iolist_to_binary([atom_to_binary(Name), $@, unicode:characters_to_binary(Host)]),
    %% The process `auth', which runs before net_kernel, calls no other process.
    Cookie = quic_dist_admit:cookie(Node, Options),
    Parameters = Cookie#{node => Node, address => Address, port_min => Min, port_max => Max},
    case quic_dist_channel:listen(Parameters) of
        {ok, Listener} -> register(Name, Host, Ports, Options, Listener);
        {error, {_, Text}} -> {error, Text}
    end.

register(Name, Host, Ports, Options, #{bound := {_, UdpPort} = Bound} = Listener) ->
    case quic_dist_names:register(Name, UdpPort) of
        ok ->
            quic_dist_advice:listening(Name, Host, Ports, Options),
            Address = quic_dist_setup:net_address(quic, Bound, Host),
            {ok, {{quic_dist, Listener}, Address, -1}};
        {error, _} = Error ->
            quic_dist_channel:close_listener(),
            Error
    end.

%% @doc The address of a node that does not listen. In net_kernel. No listen/2 reports then what is
%% wrong with configuration or executable, so such an error ends the boot here.
-spec address() -> #net_address{}.
address() ->
    address(quic_dist_setup:host()).

%% @doc {@link address/0} for a node of this host name (OTP 27 and later). In net_kernel.
-spec address(string()) -> #net_address{}.
address(Host) ->
    case quic_dist_sidecar:await() of
        ok -> quic_dist_setup:net_address(quic, undefined, Host);
        {error, {_, Text}} -> refuse(Text, init:get_status())
    end.

-spec refuse(string(), tuple()) -> no_return().
refuse(Text, {starting, _}) ->
    erlang:display_string(Text ++ "\n"),
    halt(1);
refuse(Text, _) ->
    quic_dist_log:log(error, Text),
    error(badarg).

%% @doc Stops listening; channels go on. In net_kernel, which calls this when it ends. Channels on
%% stdio end with net_kernel, so this first writes what the emulator still has for them.
-spec close(listener()) -> ok.
close(_Listener) ->
    quic_dist_channel:close_listener(),
    quic_dist_channel:deliver().

%% Accepting

%% @doc Starts the acceptor, which turns each channel that a peer opens into a connection
%% attempt. Called by net_kernel, again whenever an acceptor has ended.
-spec accept(listener()) -> pid().
accept({quic_dist, Listener}) ->
    Kernel = self(),
    Options = [link, {priority, max}],
    quic_dist_setup:start(fun() -> acceptor_init(Kernel, Listener) end, Options).

%% The acceptor is linked to a channel until it hands the channel over. It traps exits, so that a
%% channel that ends in that time does not end the acceptor.
acceptor_init(Kernel, Listener) ->
    process_flag(trap_exit, true),
    ok = quic_dist_channel:accept(Listener),
    Monitor = monitor(process, quic_dist_sidecar),
    acceptor(Kernel, Monitor).

acceptor(Kernel, Monitor) ->
    receive
        {accepted, #{meeting_token := _} = Channel} ->
            ok = quic_dist_local:expect(Channel),
            acceptor(Kernel, Monitor);
        {accepted, Channel} ->
            case quic_dist_plane:open(Channel) of
                {ok, Ctrl} -> offer(Kernel, Ctrl, Channel);
                {error, Reason} -> not_taken(Channel, Reason)
            end,
            acceptor(Kernel, Monitor);
        {'EXIT', Kernel, Reason} ->
            exit(Reason);
        {'EXIT', _, _} ->
            acceptor(Kernel, Monitor);
        {'DOWN', Monitor, process, _, Reason} ->
            %% net_kernel starts another, which finds the next quic_dist_sidecar.
            exit({shutdown, Reason})
    end.

%% Closes the channel, so that the peer need not wait. That the peer was gone first is no fault.
not_taken(#{claim := {Node, _}} = Channel, Reason) ->
    quic_dist_channel:give_up(Channel),
    Level =
        case Reason of
            {_, closed} -> info;
            connection_closed -> info;
            _ -> warning
        end,
    quic_dist_log:log(
        link, Level, ["cannot accept ", Node, ": ", quic_dist_plane:format_error(Reason)], []
    ).

offer(Kernel, Ctrl, #{address := Ip, udp_port := UdpPort, claim := Claim}) ->
    Connection = {Ctrl, {Ip, UdpPort}, Claim},
    HandOver = fun(Supervisor) -> quic_dist_plane:hand_over(Ctrl, Supervisor) end,
    Late = fun() -> ok end,
    case quic_dist_setup:offer(Kernel, quic, {Connection, HandOver}, infinity, Late) of
        {ok, _} -> ok;
        {error, Reason} -> exit(Reason)
    end.

%% @doc Starts the connection supervisor of an accepted channel. Called by net_kernel.
-spec accept_connection(pid(), quic_dist_setup:connection(), node(), [node()], timeout()) -> pid().
accept_connection(Acceptor, Connection, MyNode, Allowed, SetupTime) ->
    quic_dist_setup:accept_connection(quic, Acceptor, Connection, MyNode, Allowed, SetupTime).

%% Connecting

%% @doc Does this carrier reach `Node'? Asked of each carrier in turn, in net_kernel up to OTP 28.
%% A node that the discovery module does not know is left to the next carrier.
-spec select(node()) -> boolean().
select(Node) ->
    case dist_util:split_node(Node) of
        {node, Name, Host} ->
            case quic_dist_sidecar:options() of
                {ok, Options} -> quic_dist_names:known(Node, Name, Host, Options);
                {error, _} -> true
            end;
        _ ->
            false
    end.

%% @doc Is this the name of a node?
-spec is_node_name(term()) -> boolean().
is_node_name(Node) ->
    quic_dist_setup:is_node_name(Node).

%% @doc Starts the connection supervisor of an outgoing connection. Called by net_kernel.
-spec setup(node(), normal | hidden, node(), longnames | shortnames, timeout()) -> pid().
setup(Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Connect = fun connect/4,
    quic_dist_setup:setup(quic, Connect, Node, Type, MyNode, LongOrShortNames, SetupTime).

connect(Node, MyNode, LongOrShortNames, Deadline) ->
    case quic_dist_sidecar:options() of
        {ok, Options} ->
            case quic_dist_admit:may_connect(atom_to_binary(Node), Options) of
                true -> connect(Node, MyNode, LongOrShortNames, Options, Deadline);
                false -> {error, "the option allow does not name it"}
            end;
        {error, {_, Text}} ->
            {error, Text}
    end.

connect(Node, MyNode, LongOrShortNames, Options, Deadline) ->
    Quic = fun(Until) -> find(Node, MyNode, LongOrShortNames, Options, Until) end,
    case quic_dist_fallback:connect(Node, Quic, Options, Deadline) of
        {ok, {Channel, Host}} ->
            open(Channel, Host);
        {link, Link} ->
            {node, _, Host} = dist_util:split_node(Node),
            {Ctrl, Endpoint} = webdist_dial:connection(Link),
            {ok, Ctrl, Endpoint, Host};
        {error, _} = Error ->
            Error
    end.

%% An error has a code, by which the fallback decides.
find(Node, MyNode, LongOrShortNames, Options, Deadline) ->
    case quic_dist_names:targets(Node, LongOrShortNames, Options, Deadline) of
        {ok, Targets, Host} ->
            Cookie = quic_dist_admit:cookie(Node, Options),
            Parameters = Cookie#{
                node => atom_to_binary(Node),
                local => atom_to_binary(MyNode),
                targets => Targets
            },
            case dial(Node, Parameters, Deadline) of
                {ok, Channel} -> {ok, {Channel, Host}};
                {error, _} = Error -> Error
            end;
        {error, Text} ->
            {error, {no_port, Text}}
    end.

%% Of a local link that does not come about nothing is left but time: the peer is dialled again.
dial(Node, Parameters, Deadline) ->
    Timeout = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case quic_dist_channel:dial(Parameters#{timeout => Timeout}) of
        {ok, #{meeting := _} = Channel} ->
            case quic_dist_local:meet(Channel) of
                {ok, _} = Met ->
                    Met;
                {error, Why} ->
                    Name = atom_to_binary(Node),
                    Text = ["no local link to ", Name, ", but one over QUIC: ", Why],
                    quic_dist_links:repeated({local, Node}, notice, Text, Why, []),
                    dial(Node, Parameters#{local_link => false}, Deadline)
            end;
        Result ->
            Result
    end.

open(#{address := Ip, udp_port := UdpPort} = Channel, Host) ->
    case quic_dist_plane:open(Channel) of
        {ok, Ctrl} -> {ok, Ctrl, {Ip, UdpPort}, Host};
        {error, Reason} -> {error, quic_dist_plane:format_error(Reason)}
    end.
