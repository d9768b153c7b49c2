%% @doc The epmd module of distribution over HTTP: `-epmd_module webdist_epmd'.
%%
%% In mode `compat' it calls OTP's `erl_epmd', and logs each call at level debug. In mode `router'
%% there is no epmd: a node registers its name with the process that holds the web port of its host,
%% and asks other hosts for their nodes at their web ports.
%%
%% The callbacks are those that the carriers of OTP 25 to 29 call.
-module(webdist_epmd).

-export([start/0, start_link/0, stop/0]).
-export([register_node/2, register_node/3, listen_port_please/2, address_please/3]).
-export([port_please/2, port_please/3, names/0, names/1]).

%% Milliseconds; net_kernel's own limit for a connection is 7000.
-define(NAMES_TIMEOUT, 5000).
-define(VERSION, 6).

%% @doc Starts what names need, before net_kernel. In net_sup.
-spec start_link() -> supervisor:startlink_ret() | {error, term()}.
start_link() ->
    case mode() of
        {ok, router} -> webdist_sup:start_link();
        {ok, compat} -> erl_epmd:start_link();
        {error, Text} -> {error, Text}
    end.

%% @private As in erl_epmd.
-spec start() -> supervisor:startlink_ret() | {error, term()}.
start() ->
    start_link().

%% @private As in erl_epmd.
-spec stop() -> term().
stop() ->
    case mode() of
        {ok, router} -> webdist_server:unlisten();
        _ -> erl_epmd:stop()
    end.

%% @doc {@link register_node/3} without a family.
-spec register_node(atom() | string(), inet:port_number()) -> {ok, integer()} | {error, term()}.
register_node(Name, Port) ->
    register_node(Name, Port, inet).

%% @doc Registers this node. net_kernel draws the creation, 32 random bits. `Family' is the driver
%% module in OTP 25, and the address family later.
-spec register_node(atom() | string(), inet:port_number(), atom()) ->
    {ok, integer()} | {error, term()}.
register_node(Name, Port, Family) ->
    case mode(register_node, [Name, Port, Family]) of
        {ok, router} ->
            case webdist_server:register_name(Name, Port) of
                {ok, #{state := duplicate}} -> {error, duplicate_name};
                {ok, _} -> {ok, -1};
                {error, Text} -> {error, Text}
            end;
        {ok, compat} ->
            erl_epmd:register_node(Name, Port, Family);
        {error, Text} ->
            {error, Text}
    end.

%% @doc The TCP port at which a node must listen; 0: any.
-spec listen_port_please(atom() | string(), string()) -> {ok, inet:port_number()}.
listen_port_please(Name, Host) ->
    case mode(listen_port_please, [Name, Host]) of
        {ok, router} ->
            ok = webdist_server:name(Name, Host),
            erl_epmd:listen_port_please(Name, Host);
        _ ->
            erl_epmd:listen_port_please(Name, Host)
    end.

%% @doc The address of a node's host, and in mode router the node's port too.
-spec address_please(string(), string() | inet:ip_address(), inet | inet6) ->
    {ok, inet:ip_address()}
    | {ok, inet:ip_address(), inet:port_number(), integer()}
    | {error, term()}.
address_please(Name, Host, Family) ->
    _ = mode(address_please, [Name, Host, Family]),
    erl_epmd:address_please(Name, Host, Family).

%% @doc {@link port_please/3} without a time limit.
-spec port_please(atom() | string(), string() | inet:ip_address()) ->
    {port, inet:port_number(), integer()} | noport | closed | {error, term()}.
port_please(Name, Host) ->
    port_please(Name, Host, infinity).

%% @doc The TCP port at which a node's carrier listens, and the distribution version to use.
-spec port_please(atom() | string(), string() | inet:ip_address(), timeout()) ->
    {port, inet:port_number(), integer()} | noport | closed | {error, term()}.
port_please(Name, Host, Timeout) ->
    case mode(port_please, [Name, Host]) of
        {ok, router} ->
            case webdist_server:names(host(Host), min(Timeout, ?NAMES_TIMEOUT)) of
                {ok, Names} -> port_of(text(Name), Names);
                {error, _} -> noport
            end;
        {ok, compat} ->
            erl_epmd:port_please(Name, Host, Timeout);
        {error, Text} ->
            {error, Text}
    end.

port_of(Name, Names) ->
    case lists:keyfind(Name, 1, Names) of
        {_, Port} when Port > 0 -> {port, Port, ?VERSION};
        _ -> noport
    end.

%% @doc {@link names/1} of this host.
-spec names() -> {ok, [{string(), inet:port_number()}]} | {error, term()}.
names() ->
    {ok, Host} = inet:gethostname(),
    names(Host).

%% @doc The nodes of a host, and their TCP ports.
-spec names(atom() | string() | inet:ip_address()) ->
    {ok, [{string(), inet:port_number()}]} | {error, term()}.
names(Host) ->
    case mode(names, [Host]) of
        {ok, router} ->
            case webdist_server:names(host(Host), ?NAMES_TIMEOUT) of
                {ok, Names} ->
                    {ok, [{unicode:characters_to_list(Name), Port} || {Name, Port} <- Names]};
                {error, _} ->
                    {error, address}
            end;
        {ok, compat} ->
            erl_epmd:names(Host);
        {error, Text} ->
            {error, Text}
    end.

mode() ->
    case webdist_config:read() of
        {ok, #{mode := Mode}} -> {ok, Mode};
        {error, Text} -> {error, Text}
    end.

mode(Function, Arguments) ->
    quic_dist_log:log(debug, ["webdist_epmd:", atom_to_list(Function)], [{arguments, Arguments}]),
    mode().

%% The port of this host may be bound to the loopback address only, and always answers there.
host(Host) when is_tuple(Host) ->
    inet:ntoa(Host);
host(Host) when is_atom(Host) ->
    host(atom_to_list(Host));
host(Host) ->
    case inet:gethostname() of
        {ok, Host} -> "localhost";
        _ -> Host
    end.

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> unicode:characters_to_binary(Name).
