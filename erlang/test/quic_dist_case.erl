%% @doc The nodes of one case, for suites in which something breaks: nothing may be left of them.
%%
%% After a case no operating system process of its nodes is left, no file in their folder for
%% temporary files, and no UDP socket (a socket is its process's). Cases may run in parallel,
%% because each ends its own nodes only.
-module(quic_dist_case).

-export([planes/0, in_plane/2, thorough/0, of_case/2, end_case/2]).
-export([start/2, start_alone/2, distribute/2, env/1, tmp_dir/1]).
-export([resources/1, same_resources/2]).

-include_lib("common_test/include/ct.hrl").

-import(quic_dist_node, [call/2, call/4, log/1]).
-import(quic_dist_wait, [wait_until/3]).

-define(CASE, "QUIC_DIST_TEST_CASE").

-type config() :: [{atom(), term()}].

%% @doc The two ways of a channel's data from the VM to its sidecar, as names of groups.
-spec planes() -> [socket | stdio].
planes() -> [socket, stdio].

%% @doc For init_per_group: the nodes of a group with the name of a plane have that plane.
-spec in_plane(Group :: atom(), config()) -> config().
in_plane(Group, Config) ->
    case lists:member(Group, planes()) of
        true -> [{plane, Group} | Config];
        false -> Config
    end.

%% @doc Whether groups also have cases whose double is in another group: so says the environment
%% variable QUIC_DIST_TEST_RESUME, as in `make resume'.
-spec thorough() -> boolean().
thorough() -> os:getenv("QUIC_DIST_TEST_RESUME") =:= "all".

%% @doc For init_per_testcase: the nodes that are started with this configuration are the case's.
-spec of_case(Case :: atom(), config()) -> config().
of_case(Case, Config) -> [{'case', Case} | Config].

%% @doc For end_per_testcase: ends the nodes of a case, and fails it if anything is left of them.
%% The logs of the nodes of a case that failed go to its page.
-spec end_case(Case :: atom(), config()) -> ok | {fail, term()}.
end_case(Case, Config) ->
    Nodes = quic_dist_run:live(Case),
    case proplists:get_value(tc_status, Config) of
        {failed, _} -> quic_dist_hooks:show_logs(Nodes);
        _ -> ok
    end,
    lists:foreach(fun quic_dist_node:stop/1, Nodes),
    Left = fun() -> {os_processes(Case), files(tmp_dir(Case))} end,
    try
        wait_until({left_over, Case}, fun() -> Left() =:= {[], []} orelse Left() end, 3000)
    catch
        error:{timeout, _, {Processes, Files}} ->
            [quic_dist_os:signal(OsPid, kill) || {OsPid, _} <- Processes],
            {fail, {left_over, Processes, Files}}
    end.

files(Dir) ->
    {ok, Names} = file:list_dir(Dir),
    Names.

os_processes(Case) ->
    Mark = list_to_binary(?CASE ++ "=" ++ atom_to_list(Case)),
    [
        {OsPid, Line}
     || {OsPid, Line} <- quic_dist_os:os_processes(),
        lists:member(Mark, quic_dist_os:environment(OsPid))
    ].

%% @doc Starts a node of the case.
-spec start(config(), quic_dist_node:start_options()) -> quic_dist_node:t().
start(Config, Options) ->
    Plane = [{data_plane, Plane} || {plane, Plane} <- Config],
    quic_dist_node:start(Options#{
        owner => ?config('case', Config),
        quic_dist => Plane ++ maps:get(quic_dist, Options, []),
        env => env(Config) ++ maps:get(env, Options, []),
        %% The cases connect nodes, `global' does not.
        args => ["-connect_all", "false" | maps:get(args, Options, [])]
    }).

%% @doc Starts a node of the case that is not distributed yet.
-spec start_alone(config(), quic_dist_node:start_options()) -> quic_dist_node:t().
start_alone(Config, Options) ->
    start(Config, Options#{name => none, args => ["-no_epmd" | maps:get(args, Options, [])]}).

%% @doc Starts distribution on a node that was started alone. Returns the node under its name.
-spec distribute(quic_dist_node:t(), UdpPort :: inet:port_number()) -> quic_dist_node:t().
distribute(Node, UdpPort) ->
    Name = list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1"),
    case call(Node, net_kernel, start, [Name, #{name_domain => longnames}]) of
        {ok, _} -> Node#{node := Name};
        {error, Reason} -> error({not_distributed, Reason, log(Node)})
    end.

%% @doc The environment of the case's programs.
-spec env(config()) -> [{string(), string() | false}].
env(Config) ->
    Case = ?config('case', Config),
    [{?CASE, atom_to_list(Case)}, {"TMPDIR", tmp_dir(Case)}, {"XDG_RUNTIME_DIR", false}].

%% @doc The folder for temporary files of the case's nodes.
-spec tmp_dir(Case :: atom()) -> file:filename().
tmp_dir(Case) ->
    %% Short, as the path of a Unix socket has to be.
    Dir = filename:join(quic_dist_run:dir(), integer_to_list(erlang:phash2(Case), 36)),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Dir.

%% @doc Counts what may leak in a VM: processes, ports, tables, descriptors, and the monitors and
%% links of the process that owns the sidecar.
-spec resources(quic_dist_node:t()) -> #{atom() => non_neg_integer()}.
resources(#{os_pid := Beam} = Node) ->
    InVm = call(Node, fun() ->
        {monitors, Monitors} = process_info(whereis(quic_dist_sidecar), monitors),
        {links, Links} = process_info(whereis(quic_dist_sidecar), links),
        #{
            processes => length(processes()),
            ports => length(erlang:ports()),
            tables => length(ets:all()),
            monitors => length(Monitors),
            links => length(Links)
        }
    end),
    InVm#{descriptors => length(quic_dist_os:descriptors(Beam))}.

%% @doc Waits until the node has no more and no fewer resources than before.
-spec same_resources(quic_dist_node:t(), Before :: #{atom() => non_neg_integer()}) -> ok.
same_resources(Node, Before) ->
    wait_until({resources, Node, Before}, fun() ->
        After = resources(Node),
        After =:= Before orelse After
    end, 10000).
