%% @doc An epmd module of the older kind: only port_please/2, and the name says the port: p7001. It
%% writes down each call.
-module(porting_epmd).

-export([start_link/0, register_node/3, listen_port_please/2, port_please/2, names/1]).
-export([calls/0]).

start_link() ->
    ignore.

register_node(Name, Port, Family) ->
    called({register_node, [Name, Port, Family]}),
    {ok, -1}.

listen_port_please(Name, Host) ->
    called({listen_port_please, [Name, Host]}),
    {ok, port_of(Name)}.

port_please(Name, Ip) ->
    called({port_please, [Name, Ip]}),
    {port, port_of(Name), 6}.

names(_Host) ->
    {error, address}.

port_of(Name) when is_atom(Name) -> port_of(atom_to_list(Name));
port_of("p" ++ Digits) -> list_to_integer(Digits).

called(Call) ->
    persistent_term:put(?MODULE, [Call | persistent_term:get(?MODULE, [])]).

calls() ->
    lists:reverse(persistent_term:get(?MODULE, [])).
