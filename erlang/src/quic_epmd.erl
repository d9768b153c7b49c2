%% @doc The epmd module of clusters without epmd: `-start_epmd false -epmd_module quic_epmd'.
%%
%% The sidecar finds nodes, as the option `discovery' says: in a registry that the sidecars of a
%% host keep together, with OTP's epmd, in DNS, or at one port for all. Before that it reads the
%% file that the option `nodes_file' names.
%%
%% The module serves every carrier, so nodes with `-proto_dist quic', with `inet_tcp' or `inet_tls',
%% and with both find each other. A node with both asks it which carrier reaches a peer: `select/1'
%% of the carriers follows the answer.
%%
%% The callbacks are those that OTP 25 to 29 call. They run in net_kernel and in processes that set
%% up connections, so each has a time limit.
-module(quic_epmd).

%% as in erl_epmd
-export([start/0, start_link/0, stop/0]).
-export([register_node/2, register_node/3, listen_port_please/2, address_please/3]).
-export([port_please/2, port_please/3, names/0, names/1]).
%% for the carrier
-export([listen_port_please/3, register_quic/2, is_quic/1, targets/2]).

%% Milliseconds. net_kernel waits for select/1 and, at boot, for ports; setup/5 has 7000 in all.
-define(SELECT_TIMEOUT, 2000).
-define(FIND_TIMEOUT, 4000).
-define(NAMES_TIMEOUT, 5000).
%% The version of the distribution protocol. OTP 25 and later ignore it.
-define(VERSION, 6).

%% @doc Starts the sidecar's supervisor in net_sup, unless the carrier has done so.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    quic_dist_sup:start_link().

%% @private As in erl_epmd.
-spec start() -> supervisor:startlink_ret().
start() ->
    start_link().

%% @private As in erl_epmd. The supervisor ends with net_sup.
-spec stop() -> ok.
stop() ->
    ok.

%% Our own node

%% @doc {@link register_node/3} without a family.
-spec register_node(atom() | string(), inet:port_number()) -> {ok, -1} | {error, term()}.
register_node(Name, Port) ->
    register_node(Name, Port, inet).

%% @doc Registers a TCP port at which other nodes find this one. net_kernel draws the creation, 32
%% random bits. `Family' is the driver module in OTP 25, and the address family later.
-spec register_node(atom() | string(), inet:port_number(), atom()) ->
    {ok, -1} | {error, term()}.
register_node(Name, Port, _Family) ->
    register_port(Name, tcp, Port).

%% @doc Registers a UDP port at which other nodes find this one.
-spec register_quic(atom(), inet:port_number()) -> {ok, -1} | {error, term()}.
register_quic(Name, UdpPort) ->
    register_port(Name, quic, UdpPort).

register_port(Name, Carrier, Port) ->
    case quic_dist_sidecar:options() of
        {ok, #{discovery := Discovery}} when Discovery =:= registry; Discovery =:= epmd ->
            {ok, Before} = quic_dist_sidecar:registration(),
            registered(
                quic_dist_sidecar:register(Before#{node := text(Name), Carrier := Port}),
                Before,
                Discovery
            );
        {ok, _} ->
            {ok, -1};
        {error, {_, Text}} ->
            {error, Text}
    end.

registered({ok, #{state := State}}, _, _) when State =:= holding; State =:= registered ->
    {ok, -1};
registered({ok, #{state := State, text := Text}}, Before, Discovery) ->
    _ = quic_dist_sidecar:register(Before),
    case State of
        duplicate -> {error, duplicate_name};
        _ -> {error, lists:flatten([unicode:characters_to_list(Text), hint(Discovery)])}
    end;
registered({error, {_, Text}}, _, _) ->
    {error, Text}.

hint(registry) ->
    "";
hint(epmd) ->
    ": start epmd, or choose another discovery".

%% @doc The TCP port at which this node must listen; 0: any.
-spec listen_port_please(atom() | string(), string()) -> {ok, inet:port_number()}.
listen_port_please(Name, Host) ->
    listen_port_please(tcp, Name, Host).

%% @doc The port at which this node must listen for a carrier: the configured one, or else OTP's.
-spec listen_port_please(quic | tcp, atom() | string(), string()) -> {ok, inet:port_number()}.
listen_port_please(Carrier, Name, Host) ->
    Fields = #{node => node_name(Name, Host), carrier => Carrier},
    case quic_dist_sidecar:request(written, Fields, port, ?FIND_TIMEOUT) of
        {ok, #{port := Port}} when Port > 0 -> {ok, Port};
        _ -> erl_epmd:listen_port_please(Name, Host)
    end.

%% Peers

%% @doc The address and TCP port of a node. A node that QUIC reaches has none here, so that the
%% carriers over TCP leave it to ours.
-spec address_please(string(), string() | inet:ip_address(), inet | inet6) ->
    {ok, inet:ip_address(), inet:port_number(), ?VERSION} | {error, term()}.
address_please(Name, Host, Family) ->
    case find(node_name(Name, Host), carriers(), ?FIND_TIMEOUT) of
        {ok, #{carrier := tcp, targets := Targets}} ->
            Ips = [{Ip, Port} || {Text, Port} <- Targets, {ok, Ip} <- [quic_dist_proto:ip(Text)]],
            case [At || {Ip, _} = At <- Ips, is_of(Family, Ip)] of
                [{Ip, Port} | _] -> {ok, Ip, Port, ?VERSION};
                [] -> {error, nxdomain}
            end;
        {ok, #{carrier := quic}} ->
            {error, nxdomain};
        {error, _} = Error ->
            Error
    end.

is_of(inet, Ip) -> tuple_size(Ip) =:= 4;
is_of(inet6, Ip) -> tuple_size(Ip) =:= 8;
is_of(_, _) -> false.

%% @doc {@link port_please/3} with its own time limit.
-spec port_please(atom() | string(), string() | inet:ip_address()) ->
    {port, inet:port_number(), ?VERSION} | noport.
port_please(Name, Host) ->
    port_please(Name, Host, ?FIND_TIMEOUT).

%% @doc The TCP port of a node, or its UDP port if this VM has only QUIC.
-spec port_please(atom() | string(), string() | inet:ip_address(), timeout()) ->
    {port, inet:port_number(), ?VERSION} | noport.
port_please(Name, Host, Timeout) ->
    Carrier =
        case carriers() of
            quic -> quic;
            _ -> tcp
        end,
    case find(node_name(Name, Host), Carrier, min(Timeout, ?FIND_TIMEOUT)) of
        {ok, #{targets := [{_, Port} | _]}} -> {port, Port, ?VERSION};
        {error, _} -> noport
    end.

%% @doc Does QUIC reach this node? Yes for an unknown node, so that the carrier can say why there is
%% no connection.
-spec is_quic(node()) -> boolean().
is_quic(Node) ->
    case carriers() of
        quic ->
            true;
        Carriers ->
            case find(atom_to_binary(Node), Carriers, ?SELECT_TIMEOUT) of
                {ok, #{carrier := Carrier}} -> Carrier =:= quic;
                {error, _} -> true
            end
    end.

%% @doc The addresses and UDP ports of a node's sidecar. An error is a line for the operator.
-spec targets(node(), timeout()) -> {ok, [quic_dist_config:endpoint()]} | {error, string()}.
targets(Node, Timeout) ->
    case find(atom_to_binary(Node), quic, Timeout) of
        {ok, #{targets := Targets}} -> {ok, Targets};
        {error, {_, Text}} -> {error, Text}
    end.

find(Node, Carriers, Timeout) ->
    Fields = #{node => Node, carriers => Carriers, timeout => Timeout},
    quic_dist_sidecar:request(find, Fields, found, quic_dist_sidecar:answer_time(Timeout)).

%% The carriers of this VM, as `find' has them.
carriers() ->
    case lists:partition(fun(Name) -> Name =:= "quic" end, quic_dist_kernel:protocols()) of
        {[_ | _], []} -> quic;
        {[_ | _], _} -> both;
        {[], _} -> tcp
    end.

%% Names

%% @doc {@link names/1} of this host.
-spec names() -> {ok, [{string(), inet:port_number()}]} | {error, address}.
names() ->
    {ok, Host} = inet:gethostname(),
    names(Host).

%% @doc The nodes of a host and the port of each: its TCP port if it has one.
-spec names(atom() | string() | inet:ip_address()) ->
    {ok, [{string(), inet:port_number()}]} | {error, address}.
names(Host) ->
    Fields = #{host => host(Host), timeout => ?NAMES_TIMEOUT},
    case quic_dist_sidecar:request(names, Fields, named, ?NAMES_TIMEOUT + 1000) of
        {ok, #{names := Names}} ->
            {ok, [{unicode:characters_to_list(Name), Port} || {Name, Port} <- Names]};
        {error, _} ->
            {error, address}
    end.

node_name(Name, Host) ->
    <<(text(Name))/binary, $@, (host(Host))/binary>>.

host(Host) when is_tuple(Host) -> list_to_binary(inet:ntoa(Host));
host(Host) -> text(Host).

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> unicode:characters_to_binary(Name).
