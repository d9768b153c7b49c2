%% @doc What all suites do before and after: a Common Test hook.
%%
%% Each case gets a free port, port/1. After each case it ends all nodes and programs, and fails a
%% case that passed if it had to kill one of them. The logs of the nodes of a case that failed go to
%% its page. A suite whose nodes live on from case to case says
%% `{ct_hooks, [{quic_dist_hooks, nodes_stay}]}', and ends them itself. After the suite it ends all
%% that is left, epmd too, and removes the run's folder.
-module(quic_dist_hooks).

-export([port/1, show_logs/1, end_run/0]).
%% Callbacks of Common Test
-export([init/2, pre_init_per_testcase/4, post_end_per_testcase/5, post_end_per_suite/4]).

-type config() :: [{atom(), term()}].
-type state() :: ends_after_each_case | nodes_stay.

%% @doc A port that is free, over UDP and TCP: the same one throughout a case.
-spec port(config()) -> inet:port_number().
port(Config) -> proplists:get_value(port, Config).

%% @private
-spec init(term(), [] | nodes_stay) -> {ok, state()}.
init(_Id, []) -> {ok, ends_after_each_case};
init(_Id, nodes_stay) -> {ok, nodes_stay}.

%% @private
-spec pre_init_per_testcase(module(), atom(), config(), state()) -> {config(), state()}.
pre_init_per_testcase(_Suite, _Case, Config, State) ->
    {[{port, quic_dist_run:free_port()} | Config], State}.

%% @private
-spec post_end_per_testcase(module(), atom(), config(), Result, state()) ->
    {Result | {fail, term()}, state()}.
post_end_per_testcase(_Suite, _Case, _Config, Result, nodes_stay = State) ->
    {Result, State};
post_end_per_testcase(_Suite, _Case, Config, Result, State) ->
    Status = proplists:get_value(tc_status, Config),
    Status =:= ok orelse show_logs(quic_dist_run:live()),
    case {quic_dist_node:stop_all(), Status} of
        {[_ | _] = Killed, ok} -> {{fail, {had_to_be_killed, Killed}}, State};
        _ -> {Result, State}
    end.

%% @doc Writes what these nodes have logged to the page of the case.
-spec show_logs([quic_dist_node:t()]) -> ok.
show_logs(Nodes) ->
    [
        ct:log("~ts has logged:~n~ts", [Name, quic_dist_node:log(Node)])
     || #{node := Name} = Node <- Nodes
    ],
    ok.

%% @private
-spec post_end_per_suite(module(), config(), Result, state()) -> {Result, state()}.
post_end_per_suite(_Suite, _Config, Result, State) ->
    ok = end_run(),
    {Result, State}.

%% @doc Ends all that this run has started, epmd too, and removes its folder.
-spec end_run() -> ok.
end_run() ->
    _ = quic_dist_node:stop_all(),
    [quic_dist_os:signal(Pid, kill) || {Pid, _} <- quic_dist_os:os_processes()],
    _ = file:del_dir_r(quic_dist_run:dir()),
    ok.
