%% @doc Two connected nodes that live on from case to case of a group as long as cases pass; and the
%% groups for suites that run the same cases over each carrier.
%%
%% inet_tcp is the measure: a case that passes over it and fails over another carrier shows a fault
%% of ours. A group with the name of a data plane is for quic; webdist has one group for each way
%% in which a node gets a connection from its sidecar. What options choose beside QUIC is for `make
%% links': QUIC_DIST_TEST_LOCAL adds a group of local links, and QUIC_DIST_TEST_PATH is the option
%% path of the groups of quic.
-module(quic_dist_pair).

-export([groups/2, init_group/2, end_group/2, end_case/2]).
-export([pair/1, forget/1, show/1, with_nodes/3, nobody/1]).

-type config() :: [{atom(), term()}].

%% @doc The groups: `Cases' over each carrier, and further cases that need what one group has. A
%% connection that is a port is one; a sidecar for QUIC is one.
-spec groups(Cases, #{port => Cases, quic => Cases}) -> [{atom(), [], Cases}] when
    Cases :: [atom() | {group, atom()}].
groups(Cases, More) ->
    Port = maps:get(port, More, []),
    Quic = maps:get(quic, More, []),
    [
        {inet_tcp, [], Cases ++ Port},
        {quic_socket, [], Cases ++ Port ++ Quic},
        {quic_stdio, [], Cases ++ Quic},
        {webdist_descriptor, [], Cases ++ Port},
        {webdist_copy, [], Cases ++ Port}
    ] ++ [{quic_local, [], Cases ++ Port} || os:getenv("QUIC_DIST_TEST_LOCAL") =/= false].

%% @doc For init_per_group of such a group.
-spec init_group(Group :: atom(), config()) -> config().
init_group(Group, Config) ->
    {Carrier, Options} = nodes_of(Group),
    Node = Options#{carrier => Carrier},
    [{carrier, Carrier}, {nodes, [Node, Node]}, {pair, {?MODULE, Group}} | Config].

nodes_of(inet_tcp) ->
    {inet_tcp, #{}};
nodes_of(quic_socket) ->
    {quic, #{quic_dist => [{data_plane, socket} | path()]}};
nodes_of(quic_stdio) ->
    {quic, #{quic_dist => [{data_plane, stdio} | path()]}};
nodes_of(quic_local) ->
    {quic, #{quic_dist => [{local_links, auto}]}};
nodes_of(webdist_descriptor) ->
    {webdist, #{webdist => [{port, quic_dist_run:free_port()}, {hand_over, true}]}};
nodes_of(webdist_copy) ->
    {webdist, #{webdist => [{port, quic_dist_run:free_port()}, {hand_over, false}]}}.

path() ->
    case os:getenv("QUIC_DIST_TEST_PATH") of
        false -> [];
        Path -> [{resume, true}, {path, list_to_atom(Path)}]
    end.

%% @doc For end_per_group: no sidecar outlives its node.
-spec end_group(Group :: atom(), config()) -> ok.
end_group(_Group, Config) ->
    forget(Config),
    [] = quic_dist_node:stop_all(),
    ok.

%% @doc For end_per_testcase: a case that passed fails if the pair has logged a complaint. After a
%% case that failed the next one gets a new pair.
-spec end_case(Case :: atom(), config()) -> ok | {fail, {logged, [string()]}}.
end_case(_Case, Config) ->
    case proplists:get_value(tc_status, Config) of
        ok ->
            case complaints(living(Config)) of
                [] ->
                    ok;
                Complaints ->
                    forget(Config),
                    {fail, {logged, Complaints}}
            end;
        _ ->
            show(Config),
            forget(Config)
    end.

%% Cases do nothing with the pair that deserves a warning, but for the attempts to connect that fail
%% on purpose.
complaints(Nodes) ->
    [
        Line
     || Node <- Nodes,
        Line <- quic_dist_node:log_lines(Node, "^(emergency|alert|critical|error|warning) "),
        re:run(Line, "cannot connect to (nobody|[0-9]+)@|'global' at node") =:= nomatch
    ].

%% @doc The pair of the group, connected. `nodes' in the configuration says how to start the two.
-spec pair(config()) -> {quic_dist_node:t(), quic_dist_node:t()}.
pair(Config) ->
    [A, B] =
        case living(Config) of
            [] ->
                New = [quic_dist_node:start(Node) || Node <- proplists:get_value(nodes, Config)],
                persistent_term:put(proplists:get_value(pair, Config), New),
                New;
            Pair ->
                Pair
        end,
    quic_dist_node:connect(A, B),
    {A, B}.

living(Config) ->
    persistent_term:get(proplists:get_value(pair, Config), []).

%% @doc Ends the pair of the group, if it lives: the next case gets another one.
-spec forget(config()) -> ok.
forget(Config) ->
    Pair = living(Config),
    _ = persistent_term:erase(proplists:get_value(pair, Config)),
    lists:foreach(fun quic_dist_node:stop/1, Pair).

%% @doc Writes what the pair has logged to the page of the case.
-spec show(config()) -> ok.
show(Config) ->
    quic_dist_hooks:show_logs(living(Config)).

%% @doc Runs a fun with nodes of the group's carrier, which end with it. Each element of `Options'
%% is one node, with options beyond those of the carrier.
-spec with_nodes(config(), [quic_dist_node:start_options()], fun(([quic_dist_node:t()]) -> R)) -> R.
with_nodes(Config, Options, Fun) ->
    [Carrier | _] = proplists:get_value(nodes, Config),
    Nodes = [quic_dist_node:start(maps:merge(Carrier, Option)) || Option <- Options],
    try
        Fun(Nodes)
    after
        lists:foreach(fun quic_dist_node:stop/1, Nodes)
    end.

%% @doc The name of a node of the group's carrier that does not exist.
-spec nobody(config()) -> node().
nobody(Config) ->
    case proplists:get_value(carrier, Config) of
        inet_tcp -> 'nobody@127.0.0.1';
        _ -> list_to_atom(integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1")
    end.
