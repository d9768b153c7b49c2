%% @doc Finds UDP ports and addresses for node names: this node's, and those of peers.
%%
%% A node's port comes from the table `nodes', or from its name if that is `port@host', or from the
%% epmd module, which is called as inet_tcp_dist calls it. Earlier sources win. The sidecar resolves
%% host names, because net_kernel must not wait for a resolver, and at boot there is none.
-module(quic_dist_names).

-export([listen_ports/3, listen_address/2, register/2, is_registered/1, names_port/1]).
-export([known/4, targets/4, split/2]).

%% epmd modules take the address family where OTP 25 passes the driver module, and ask for IPv4
%% addresses first; our own sockets know both.
-define(FAMILIES, [inet, inet6]).

%% Our own name

%% @doc The UDP ports to try, first to last; `{0, 0}' for any.
-spec listen_ports(atom(), string(), quic_dist_config:options()) ->
    {ok, {inet:port_number(), inet:port_number()}} | {error, quic_dist_config:error()}.
listen_ports(Name, Host, Options) ->
    case {udp_port(atom_to_list(Name)), Options} of
        {{ok, UdpPort}, _} ->
            {ok, {UdpPort, UdpPort}};
        {error, #{listen_port := Ports}} ->
            {ok, Ports};
        {error, _} ->
            case listen_port_please(net_kernel:epmd_module(), Name, Host) of
                {ok, 0} -> quic_dist_kernel:listen_range();
                {ok, UdpPort} -> {ok, {UdpPort, UdpPort}}
            end
    end.

listen_port_please(quic_epmd, Name, Host) -> quic_epmd:listen_port_please(quic, Name, Host);
listen_port_please(Module, Name, Host) -> call_epmd(Module, listen_port_please, [Name, Host]).

%% @doc The IP address to bind, as text; empty for all. A node called `name@127.0.0.1' can be
%% reached at that address only, so it is bound to no other.
-spec listen_address(string(), quic_dist_config:options()) ->
    {ok, binary()} | {error, quic_dist_config:error()}.
listen_address(_, #{listen_address := Address}) ->
    {ok, list_to_binary(inet:ntoa(Address))};
listen_address(Host, _) ->
    case quic_dist_kernel:interface() of
        {ok, undefined} -> {ok, loopback(inet:parse_strict_address(Host))};
        {ok, any} -> {ok, <<>>};
        {ok, Address} -> {ok, list_to_binary(inet:ntoa(Address))};
        {error, _} = Error -> Error
    end.

loopback({ok, {127, _, _, _} = Address}) -> list_to_binary(inet:ntoa(Address));
loopback({ok, {0, 0, 0, 0, 0, 0, 0, 1}}) -> <<"::1">>;
loopback(_) -> <<>>.

%% @doc Registers with the epmd module, unless there is none or the name says the port. The creation
%% that epmd hands out is not used.
-spec register(atom(), inet:port_number()) -> ok | {error, term()}.
register(Name, UdpPort) ->
    case udp_port(atom_to_list(Name)) =/= error orelse quic_dist_kernel:no_epmd() of
        true ->
            ok;
        false ->
            Module = net_kernel:epmd_module(),
            case register(Module, Name, UdpPort) of
                {ok, _Creation} -> ok;
                {error, duplicate_name} -> {error, duplicate_name};
                {error, already_registered} -> {error, duplicate_name};
                Other -> {error, not_registered(Name, Module, Other)}
            end
    end.

%% @doc Can other nodes find a node of this name? Of a user's own epmd module it is assumed.
-spec is_registered(atom()) -> boolean().
is_registered(Name) ->
    names_port(atom_to_list(Name)) orelse not quic_dist_kernel:no_epmd() orelse
        not lists:member(net_kernel:epmd_module(), [erl_epmd, quic_epmd]).

%% @doc Is the first part of a node's name its UDP port?
-spec names_port(string()) -> boolean().
names_port(Name) ->
    udp_port(Name) =/= error.

register(quic_epmd, Name, UdpPort) -> quic_epmd:register_quic(Name, UdpPort);
register(Module, Name, UdpPort) -> Module:register_node(Name, UdpPort, inet).

not_registered(_, quic_epmd, {error, Text}) ->
    Text;
not_registered(Name, Module, Reason) ->
    text(
        "~w could not register ~w (~0tp): start epmd, or use -no_epmd with a name of the form "
        "port@host or a table of nodes",
        [Module, Name, Reason]
    ).

%% Peers' names

%% @doc Does QUIC connect to this node? Yes, unless the epmd module says no.
-spec known(node(), string(), string(), quic_dist_config:options()) -> boolean().
known(Node, Name, Host, #{nodes := Table}) ->
    case is_map_key(Node, Table) orelse udp_port(Name) =/= error of
        true ->
            true;
        false ->
            case net_kernel:epmd_module() of
                erl_epmd -> true;
                quic_epmd -> quic_epmd:is_quic(Node);
                Module -> address_please(Module, Name, Host) =/= error
            end
    end.

%% @doc The addresses at which the sidecar tries a node, and the host part of the node's name. An
%% error is a line for the operator.
-spec targets(node(), longnames | shortnames, quic_dist_config:options(), integer()) ->
    {ok, [quic_dist_config:endpoint()], Host :: string()} | {error, string()}.
targets(Node, LongOrShortNames, #{nodes := Table}, Deadline) ->
    case split(Node, LongOrShortNames) of
        {ok, Name, Host} ->
            case {Table, udp_port(Name)} of
                {#{Node := Target}, _} ->
                    {ok, [Target], Host};
                {_, {ok, UdpPort}} ->
                    {ok, [{unicode:characters_to_binary(Host), UdpPort}], Host};
                {_, error} ->
                    case ask_epmd(net_kernel:epmd_module(), Node, Name, Host, Deadline) of
                        {ok, Targets} -> {ok, Targets, Host};
                        {error, _} = Error -> Error
                    end
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc The parts of a node's name, if inet_tcp_dist would accept it: long names have a host with
%% dots, or an IP address; short names have a host without dots.
-spec split(node(), longnames | shortnames) ->
    {ok, Name :: string(), Host :: string()} | {error, string()}.
split(Node, LongOrShortNames) ->
    case dist_util:split_node(Node) of
        {node, Name, Host} ->
            Dots = lists:member($., Host),
            case {LongOrShortNames, Dots} of
                {longnames, false} ->
                    case inet:parse_strict_address(Host) of
                        {ok, _} -> {ok, Name, Host};
                        _ -> {error, "this node uses long names, and the host part has no dot"}
                    end;
                {shortnames, true} ->
                    {error, "this node uses short names (-sname), and the host part has a dot"};
                _ ->
                    {ok, Name, Host}
            end;
        _ ->
            {error, "the name is not of the form name@host"}
    end.

ask_epmd(quic_epmd, Node, _, _, Deadline) ->
    quic_epmd:targets(Node, max(1, Deadline - erlang:monotonic_time(millisecond)));
ask_epmd(erl_epmd, _, Name, Host, Deadline) ->
    case quic_dist_kernel:no_epmd() andalso not quic_dist_kernel:common_port() of
        true ->
            {error,
                "no UDP port is known: there is no epmd (-no_epmd), the name is not of the form "
                "port@host, and the option nodes does not list it"};
        false ->
            ask_stock_epmd(Name, Host, Deadline)
    end;
ask_epmd(Module, _, Name, Host, _Deadline) ->
    case address_please(Module, Name, Host) of
        {ok, Ip, UdpPort} ->
            {ok, [target(Ip, UdpPort)]};
        {ok, Ip} ->
            case Module:port_please(Name, Ip) of
                {port, UdpPort, _Version} -> {ok, [target(Ip, UdpPort)]};
                Other -> {error, text("~w knows no port for it (~0tp)", [Module, Other])}
            end;
        error ->
            {error, text("~w knows no address for it", [Module])}
    end.

%% erl_epmd:address_please/3 only resolves the host, in one address family; the sidecar resolves it
%% in both.
ask_stock_epmd(Name, Host, Deadline) ->
    Timeout = max(1, Deadline - erlang:monotonic_time(millisecond)),
    Parameters = #{host => unicode:characters_to_binary(Host), timeout => Timeout},
    AnswerTime = quic_dist_sidecar:answer_time(Timeout),
    case quic_dist_sidecar:request(resolve, Parameters, resolved, AnswerTime) of
        {ok, #{addresses := Ips}} -> port_please(Ips, Name, Ips, []);
        {error, {_, Text}} -> {error, Text}
    end.

port_please([Ip | Rest], Name, All, Tried) ->
    case erl_epmd:port_please(Name, Ip) of
        {port, UdpPort, _Version} ->
            {ok, [target(Each, UdpPort) || Each <- [Ip | lists:delete(Ip, All)]]};
        _ ->
            port_please(Rest, Name, All, [inet:ntoa(Ip) | Tried])
    end;
port_please([], Name, _, Tried) ->
    {error,
        text("epmd at ~ts does not answer or does not know the name ~ts: is the node up?", [
            lists:join(", ", lists:reverse(Tried)), Name
        ])}.

target(Ip, UdpPort) when is_tuple(Ip) -> {list_to_binary(inet:ntoa(Ip)), UdpPort};
target(Host, UdpPort) -> {unicode:characters_to_binary(Host), UdpPort}.

%% epmd modules

address_please(Module, Name, Host) ->
    address_please(Module, Name, Host, ?FAMILIES).

address_please(Module, Name, Host, [Family | Rest]) ->
    case call_epmd(Module, address_please, [Name, Host, Family]) of
        {ok, Ip, UdpPort, _Version} -> {ok, Ip, UdpPort};
        {ok, Ip} -> {ok, Ip};
        _ -> address_please(Module, Name, Host, Rest)
    end;
address_please(_, _, _, []) ->
    error.

%% The optional callbacks have their defaults in erl_epmd.
call_epmd(Module, Function, Arguments) ->
    case erlang:function_exported(Module, Function, length(Arguments)) of
        true -> apply(Module, Function, Arguments);
        false -> apply(erl_epmd, Function, Arguments)
    end.

%% The name part of `port@host'.
udp_port(Name) ->
    case string:to_integer(Name) of
        {UdpPort, ""} when UdpPort > 0, UdpPort =< 65535 -> {ok, UdpPort};
        _ -> error
    end.

text(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).
