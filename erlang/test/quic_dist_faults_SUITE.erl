%% @doc What breaks, and what a node makes of it: processes that die or stop, executables, files and
%% peers that are not what they should be, and garbage between the VM and its sidecar.
%%
%% After each case nothing is left of its nodes: no operating system process, no file in the folder
%% for temporary files, no UDP socket (a socket is its process's). The fakes of test/fakes and
%% certificates of every kind are made by init_per_suite in the folder that QUIC_DIST_TEST_FIXTURES
%% names, default _build/test-fixtures, with go and openssl; where these are missing, what an
%% earlier run has left there is used.
-module(quic_dist_faults_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    beam_killed/1,
    sidecar_killed/1,
    sidecar_killed_and_reconnected/1,
    both_sidecars_killed/1,
    sidecar_terminated/1,
    sidecar_killed_while_connecting/1,
    distribution_stopped_while_connecting/1,
    many_reconnects/1,
    sidecar_killed_while_starting/1,
    ten_sidecar_kills/1,
    sidecar_stopped/1,
    sidecar_stopped_under_load/1,
    halt_beside_a_stopped_sidecar/1,
    udp_port_taken_meanwhile/1,
    distribution_stopped/1,
    simultaneous_connects_while_sidecars_die/1,
    stopped_receiver/1,
    stopped_receiver_of_large_messages/1,
    refused_flags/1
]).
-export([
    no_executable/1,
    not_an_executable/1,
    executable_for_another_processor/1,
    executable_of_another_version/1,
    executable_that_ends/1,
    executable_of_another_protocol/1,
    executable_without_hello/1,
    executable_that_is_silent/1,
    executable_that_says_text/1,
    executable_that_takes_no_configuration/1,
    udp_port_in_use/1,
    bad_certificates/1,
    bad_options/1,
    repaired_without_restart/1,
    hello_cut_at_every_byte/1,
    asked_before_its_end_is_known/1,
    garbage_from_sidecar/1
]).
-export([
    unknown_host/1,
    nobody_listens/1,
    silent_peer/1,
    talking_peer/1,
    echoing_peer/1,
    peer_of_another_protocol/1,
    peer_of_another_wire_version/1,
    names_that_do_not_fit/1
]).
-export([
    keys_of_every_kind/1,
    strangers/1
]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [
    alive/1,
    call/2,
    call/3,
    call/4,
    connect/2,
    log/1,
    log_lines/2,
    scale/1,
    sidecar/1,
    signal/2,
    tell/2,
    wait_log/3,
    wait_until/3
]).

-import(quic_dist_fixtures, [shell/2, vsn/0]).

-define(NODES, ?MODULE).
-define(CASE, "QUIC_DIST_TEST_CASE").
-define(MB, 1048576).

%% Of the dialling nodes, in seconds and in milliseconds: kernel's own default is 7.
-define(SETUP_TIME, 2).
-define(PANG, 2000).

%% PROTOCOL.md and quic_dist_port: what a sidecar has for its hello.
-define(HELLO_TIMEOUT, 5000).

suite() ->
    [{timetrap, scale(90000 + 60 * reconnects())}].

all() ->
    [{group, Plane} || Plane <- planes()] ++ [{group, boot}, {group, dial}, {group, tls}].

%% The two ways of a channel's data from the VM to its sidecar.
planes() ->
    [socket, stdio].

groups() ->
    [{Plane, [], life() ++ [{group, slow}]} || Plane <- planes()] ++
        [
            %% They mostly wait, and may do it together.
            {slow, [parallel], [
                ten_sidecar_kills,
                sidecar_killed_while_starting,
                sidecar_stopped,
                sidecar_stopped_under_load,
                halt_beside_a_stopped_sidecar,
                udp_port_taken_meanwhile
            ]},
            {boot, [], [
                no_executable,
                not_an_executable,
                executable_for_another_processor,
                executable_of_another_version,
                executable_that_ends,
                executable_of_another_protocol,
                executable_without_hello,
                udp_port_in_use,
                bad_certificates,
                bad_options,
                repaired_without_restart,
                hello_cut_at_every_byte,
                asked_before_its_end_is_known,
                garbage_from_sidecar,
                {group, silence}
            ]},
            {silence, [parallel], [
                executable_that_is_silent,
                executable_that_says_text,
                executable_that_takes_no_configuration
            ]},
            {dial, [], [
                unknown_host,
                nobody_listens,
                silent_peer,
                talking_peer,
                echoing_peer,
                peer_of_another_protocol,
                peer_of_another_wire_version,
                names_that_do_not_fit
            ]},
            {tls, [], [keys_of_every_kind, strangers]}
        ].

life() ->
    [
        beam_killed,
        sidecar_killed,
        sidecar_killed_and_reconnected,
        both_sidecars_killed,
        sidecar_terminated,
        sidecar_killed_while_connecting,
        distribution_stopped,
        distribution_stopped_while_connecting,
        many_reconnects,
        simultaneous_connects_while_sidecars_die,
        stopped_receiver,
        stopped_receiver_of_large_messages,
        refused_flags
    ].

init_per_suite(Config) ->
    Self = self(),
    %% The table of the nodes of each case lives as long as the suite.
    {Owner, Monitor} = spawn_monitor(fun() ->
        ?NODES = ets:new(?NODES, [named_table, public, bag]),
        Self ! {self(), ready},
        receive
            stop -> ok
        end
    end),
    receive
        {Owner, ready} -> ok;
        {'DOWN', Monitor, process, Owner, Reason} -> error(Reason)
    end,
    [{table_owner, Owner}, {fixtures, fixtures()} | Config].

end_per_suite(Config) ->
    ?config(table_owner, Config) ! stop,
    quic_dist_node:end_run().

init_per_group(dial, Config0) ->
    %% One dialler for all cases: each leaves it working.
    Config = [{'case', dial} | Config0],
    A = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    B = start(Config, #{}),
    [{a, A}, {b, B} | Config0];
init_per_group(Plane, Config) when Plane =:= socket; Plane =:= stdio ->
    [{plane, Plane} | Config];
init_per_group(_, Config) ->
    Config.

end_per_group(dial, _Config) ->
    end_case(dial);
end_per_group(_, _Config) ->
    ok.

init_per_testcase(Case, Config) ->
    [{'case', Case} | Config].

end_per_testcase(Case, Config) ->
    Nodes = [Node || {_, Node} <- ets:lookup(?NODES, Case)],
    case lists:keyfind(tc_status, 1, Config) of
        {tc_status, {failed, _}} ->
            [ct:pal("~ts has logged:~n~ts", [maps:get(node, Node), log(Node)]) || Node <- Nodes];
        _ ->
            ok
    end,
    end_case(Case).

%% Ends the nodes of a case, and fails it if anything is left of them.
end_case(Case) ->
    lists:foreach(
        fun({_, Node}) -> quic_dist_node:stop(Node) end,
        ets:take(?NODES, Case)
    ),
    Left = fun() -> {os_processes(Case), files(tmp_dir(Case))} end,
    try
        wait_until({left_over, Case}, fun() -> Left() =:= {[], []} orelse Left() end, 3000)
    catch
        error:{timeout, _, {Processes, Files}} ->
            [signal(OsPid, kill) || {OsPid, _} <- Processes],
            {fail, {left_over, Processes, Files}}
    end.

%% Nodes of a case

start(Config, Options0) ->
    Options = with_plane(Config, Options0),
    Node = quic_dist_node:start(Options#{
        env => case_env(Config) ++ maps:get(env, Options, []),
        %% Who is connected to whom is the cases' affair, not that of `global'.
        args => ["-connect_all", "false" | maps:get(args, Options, [])]
    }),
    true = ets:insert(?NODES, {?config('case', Config), Node}),
    Node.

with_plane(Config, Options) ->
    case lists:keyfind(plane, 1, Config) of
        false ->
            Options;
        {plane, Plane} ->
            Options#{quic_dist => [{data_plane, Plane} | maps:get(quic_dist, Options, [])]}
    end.

%% A node that is not distributed yet.
start_alone(Config, Options) ->
    start(Config, Options#{name => none, args => ["-no_epmd" | maps:get(args, Options, [])]}).

case_env(Config) ->
    Case = ?config('case', Config),
    [{?CASE, atom_to_list(Case)}, {"TMPDIR", tmp_dir(Case)}, {"XDG_RUNTIME_DIR", false}].

tmp_dir(Case) ->
    %% Short, as the path of a Unix socket has to be.
    Dir = filename:join(quic_dist_node:dir(), integer_to_list(erlang:phash2(Case), 36)),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Dir.

files(Dir) ->
    {ok, Names} = file:list_dir(Dir),
    Names.

os_processes(Case) ->
    Mark = list_to_binary(?CASE ++ "=" ++ atom_to_list(Case)),
    [
        {OsPid, Line}
     || {OsPid, Line} <- quic_dist_node:os_processes(), lists:member(Mark, environment(OsPid))
    ].

environment(OsPid) ->
    case file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/environ") of
        {ok, Bytes} -> binary:split(Bytes, <<0>>, [global]);
        {error, _} -> []
    end.

%% Starts distribution on a node that was started alone. Returns the node under its name.
distribute(Node, UdpPort) ->
    Name = list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1"),
    case call(Node, net_kernel, start, [Name, #{name_domain => longnames}]) of
        {ok, _} -> Node#{node := Name};
        {error, Reason} -> error({not_distributed, Reason, log(Node)})
    end.

%% Tells this process of the nodes that `Node' loses: {nodedown, Node's name, Name, Reason}.
watch(#{node := Name} = Node) ->
    Self = self(),
    call(Node, fun() ->
        Caller = self(),
        spawn(fun() ->
            ok = net_kernel:monitor_nodes(true, [nodedown_reason, {node_type, all}]),
            Caller ! {self(), watching},
            watching(Self, Name)
        end),
        receive
            {_, watching} -> ok
        end
    end).

watching(Self, Name) ->
    receive
        {nodedown, Peer, Info} ->
            tell(Self, {nodedown, Name, Peer, proplists:get_value(nodedown_reason, Info)});
        _ ->
            ok
    end,
    watching(Self, Name).

%% The reason for which `Node' loses `Peer' within so many milliseconds from now.
nodedown(#{node := Name} = Node, #{node := Peer}, Within) ->
    receive
        {nodedown, Name, Peer, Reason} -> Reason
    after scale(Within) ->
        error({no_nodedown, Name, Peer, Within, quic_dist_node:flush(), log(Node)})
    end.

gone(OsPid, Within) ->
    wait_until({gone, OsPid}, fun() -> not alive(OsPid) end, Within).

kill(OsPid) ->
    signal(OsPid, kill).

%% The sidecar that has taken the place of another, within so many milliseconds from now.
next_sidecar(Node, OsPid, Within) ->
    wait_until(
        {next_sidecar, Node},
        fun() ->
            case quic_dist_node:info(Node) of
                #{state := up, os_pid := Next} when Next =/= OsPid -> {ok, Next};
                Other -> Other
            end
        end,
        Within
    ).

is_bound(UdpPort) ->
    lists:keymember(UdpPort, 2, quic_dist_node:udp_sockets()).

ping(Node, #{node := To}) -> ping(Node, To);
ping(Node, To) -> call(Node, net_adm, ping, [To]).

%% Asserts that a ping fails, and within so many milliseconds.
pang(Node, To, Within) ->
    {Microseconds, Answer} = timer:tc(fun() -> ping(Node, To) end),
    ?assertEqual(pang, Answer),
    within(Within, Microseconds div 1000, {ping, To}).

%% Asserts that something took no longer than this.
within(Limit, Milliseconds, What) ->
    Milliseconds =< scale(Limit) orelse error({too_slow, What, Milliseconds, Limit}),
    ok.

%% What may leak in a VM.
resources(#{os_pid := Beam} = Node) ->
    InVm = call(Node, fun() ->
        {monitors, Monitors} = process_info(whereis(quic_dist_port), monitors),
        {links, Links} = process_info(whereis(quic_dist_port), links),
        #{
            processes => length(processes()),
            ports => length(erlang:ports()),
            tables => length(ets:all()),
            monitors => length(Monitors),
            links => length(Links)
        }
    end),
    InVm#{descriptors => descriptors(Beam)}.

%% Life and death

%% A BEAM that is killed takes its sidecar with it and is down for its peers, both within a second.
beam_killed(Config) ->
    A = #{os_pid := Beam, node := Name} = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(B),
    Sidecar = sidecar(A),
    {UdpPort, _} = string:to_integer(atom_to_list(Name)),
    ?assert(is_bound(UdpPort)),
    %% Another program that the BEAM has started, and that outlives it, does not hold the sidecar.
    call(A, fun() -> is_port(open_port({spawn, "sleep 2"}, [])) end),
    kill(Beam),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    gone(Sidecar, 1000),
    ?assertNot(is_bound(UdpPort)),
    pang(B, Name, 1000).

%% A sidecar that is killed costs its connections and nothing else: both nodes learn of it, another
%% sidecar listens on the same UDP port within a second, and either node can connect again.
sidecar_killed(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    #{listen := Listen, os_pid := Sidecar} = quic_dist_node:info(A),
    kill(Sidecar),
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    Next = next_sidecar(A, Sidecar, 1000),
    ?assertMatch(#{listen := Listen, os_pid := Next}, quic_dist_node:info(A)),
    %% The new sidecar answers the peer's next keep-alive with a stateless reset.
    ?assertEqual(connection_closed, nodedown(B, A, 6000)),
    connect(B, A),
    ?assertMatch([_], wait_log(A, ended(137), 2000)).

%% A VM that writes to a sidecar in the moment in which that ends gets no status.
ended(Status) -> io_lib:format("ended (with status ~b|\\(epipe\\)) while", [Status]).

%% After a sidecar was killed the next ping reconnects, although the peer still takes the old
%% connection for alive.
sidecar_killed_and_reconnected(Config) ->
    A = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    connect(A, B),
    watch(A),
    kill(sidecar(A)),
    nodedown(A, B, 1000),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(NodeB, call(A, fun() -> erpc:call(NodeB, fun() -> node() end) end)).

%% Two nodes whose sidecars are killed at the same moment connect again.
both_sidecars_killed(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    Sidecars = [{Node, sidecar(Node)} || Node <- [A, B]],
    [kill(Sidecar) || {_, Sidecar} <- Sidecars],
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    [next_sidecar(Node, Sidecar, 1000) || {Node, Sidecar} <- Sidecars],
    connect(A, B).

%% A sidecar that an operator ends with SIGTERM says farewell to its peers, and is replaced.
sidecar_terminated(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(A),
    watch(B),
    Sidecar = sidecar(A),
    signal(Sidecar, term),
    ?assertEqual(connection_closed, nodedown(A, B, 1500)),
    ?assertEqual(connection_closed, nodedown(B, A, 1500)),
    next_sidecar(A, Sidecar, 1500),
    ?assertMatch([_], wait_log(A, ended(0), 2000)),
    connect(B, A).

%% Whoever waits for a connection when the sidecar is killed gets his answer at once.
sidecar_killed_while_connecting(Config) ->
    A = start(Config, #{}),
    silent(fun(UdpPort) ->
        Pings = start_pings(A, UdpPort, 20),
        Sidecar = sidecar(A),
        AtFirst = resources(A),
        kill(Sidecar),
        [
            receive
                {answer, N, Answer} -> ?assertEqual(pang, Answer)
            after scale(1000) ->
                error({no_answer, N})
            end
         || N <- Pings
        ],
        next_sidecar(A, Sidecar, 1000),
        %% One monitor and some processes for each ping, which are gone.
        ?assert(maps:get(monitors, resources(A)) < maps:get(monitors, AtFirst))
    end),
    connect(A, start(Config, #{})).

%% Pings to so many nodes that do not answer, all on their way; their answers come as messages.
start_pings(Node, UdpPort, Count) ->
    Self = self(),
    Numbers = lists:seq(1, Count),
    call(Node, fun() ->
        [
            spawn(fun() ->
                %% All of 127/8 is this host, and where the socket is bound is 127.0.0.1.
                To = lists:concat([UdpPort, "@127.0.0.", N]),
                tell(Self, {answer, N, net_adm:ping(list_to_atom(To))})
            end)
         || N <- Numbers
        ],
        ok
    end),
    wait_until(
        {dialling, Node},
        fun() ->
            Monitors = maps:get(monitors, resources(Node)),
            Monitors >= Count orelse Monitors
        end,
        2000
    ),
    Numbers.

silent(Test) ->
    %% Bound to every address: an answer to anything would come from the kernel else.
    {ok, Socket} = gen_udp:open(0, [{active, false}]),
    {ok, UdpPort} = inet:port(Socket),
    Test(UdpPort),
    ok = gen_udp:close(Socket).

%% net_kernel:stop does not wait for connections that are on their way.
distribution_stopped_while_connecting(Config) ->
    UdpPort = quic_dist_node:free_port(),
    A = distribute(start_alone(Config, #{}), UdpPort),
    silent(fun(Silent) ->
        Pings = start_pings(A, Silent, 5),
        Sidecar = sidecar(A),
        {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
        within(1500, Microseconds div 1000, net_kernel_stop),
        gone(Sidecar, 1000),
        [
            receive
                {answer, N, Answer} -> ?assertEqual(pang, Answer)
            after scale(1000) ->
                error({no_answer, N})
            end
         || N <- Pings
        ]
    end).

%% Connections that come and go leave nothing behind, neither in the VMs nor in the sidecars. There
%% are two hundred, or as many as QUIC_DIST_TEST_CHANNELS says.
many_reconnects(Config) ->
    A = #{node := NodeA} = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    Count = reconnects(),
    Reconnect = fun(_) ->
        true = call(A, erlang, disconnect_node, [NodeB]),
        %% One of some thousand attempts that follow at once is refused, over inet_tcp as well.
        wait_until(connected, fun() -> call(A, net_kernel, connect_node, [NodeB]) end, 20000),
        %% Before that B would take another connection for one at the same time.
        call(B, fun() -> await_node(NodeA) end)
    end,
    connect(A, B),
    lists:foreach(Reconnect, lists:seq(1, 50 + Count div 5)),
    settle(A, B),
    Before = [of_sidecar(Node) || Node <- [A, B]],
    {AtFirst, PeerAtFirst} = {resources(A), resources(B)},
    lists:foreach(Reconnect, lists:seq(1, Count)),
    same_resources(A, AtFirst),
    same_resources(B, PeerAtFirst),
    %% Go's runtime keeps threads that it has started, and memory for a while. A QUIC connection
    %% alone would be 50 KB and more.
    Slack = #{descriptors => 0, threads => 8, bytes => 4 * ?MB + 500 * Count},
    NoMore = fun({Old, New}) ->
        lists:all(
            fun({What, More}) -> maps:get(What, New) =< maps:get(What, Old) + More end,
            maps:to_list(Slack)
        )
    end,
    wait_until(
        {no_more, Before},
        fun() ->
            After = [of_sidecar(Node) || Node <- [A, B]],
            ct:log("~p connections: ~p before, ~p after", [Count, Before, After]),
            lists:all(NoMore, lists:zip(Before, After)) orelse After
        end,
        5000
    ).

reconnects() ->
    list_to_integer(os:getenv("QUIC_DIST_TEST_CHANNELS", "200")).

of_sidecar(Node) ->
    OsPid = sidecar(Node),
    #{
        descriptors => descriptors(OsPid),
        threads => status(OsPid, "Threads"),
        bytes => 1024 * status(OsPid, "VmRSS")
    }.

%% A number of proc(5)'s status file.
status(OsPid, Name) ->
    {ok, Text} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/status"),
    {match, [Number]} = re:run(Text, Name ++ ":\\s+([0-9]+)", [{capture, all_but_first, list}]),
    list_to_integer(Number).

%% On a node.
await_node(Node) ->
    case lists:member(Node, nodes(connected)) of
        true ->
            ok;
        false ->
            receive
            after 1 -> await_node(Node)
            end
    end.

%% Waits until the former channels are gone.
settle(A, B) ->
    wait_until(
        channels,
        fun() ->
            Channels = [maps:get(channels, quic_dist_node:info(Node)) || Node <- [A, B]],
            Channels =:= [1, 1] orelse Channels
        end,
        5000
    ).

descriptors(OsPid) ->
    {ok, Names} = file:list_dir("/proc/" ++ integer_to_list(OsPid) ++ "/fd"),
    length(Names).

%% A sidecar that is killed in its first moments is replaced like any other.
sidecar_killed_while_starting(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    #{listen := Listen} = quic_dist_node:info(A),
    Last = lists:foldl(
        fun(_, Before) ->
            Next = wait_until(
                {another_than, Before},
                fun() ->
                    case quic_dist_node:info(A) of
                        #{os_pid := OsPid} when is_integer(OsPid), OsPid =/= Before -> {ok, OsPid};
                        Other -> Other
                    end
                end,
                3000
            ),
            %% Not kill/1, which asks for our mark in the environment: while a process becomes
            %% another program it has none.
            _ = os:cmd("kill -KILL " ++ integer_to_list(Next)),
            Next
        end,
        none,
        lists:seq(1, 5)
    ),
    next_sidecar(A, Last, 3000),
    ?assertMatch(#{listen := Listen}, quic_dist_node:info(A)),
    connect(B, A).

%% However often a sidecar is killed, with messages under way, the node works, and nothing is left
%% in the VM of those that were.
ten_sidecar_kills(Config) ->
    A = start(Config, #{}),
    B = #{node := NodeB} = start(Config, #{}),
    connect(A, B),
    {AtFirst, PeerAtFirst} = {resources(A), resources(B)},
    %% These connect by themselves, too.
    Senders = call(A, fun() ->
        [spawn(fun() -> keep_sending({nobody, NodeB}) end) || _ <- [1, 2]]
    end),
    lists:foreach(
        fun(_) ->
            Sidecar = sidecar(A),
            kill(Sidecar),
            %% The pause between two grows up to five seconds.
            next_sidecar(A, Sidecar, 7000),
            connect(A, B)
        end,
        lists:seq(1, 10)
    ),
    call(A, fun() -> [exit(Sender, kill) || Sender <- Senders] end),
    same_resources(A, AtFirst),
    same_resources(B, PeerAtFirst).

keep_sending(To) ->
    To ! binary:copy(<<"0123456789">>, 10000),
    receive
    after 10 -> keep_sending(To)
    end.

same_resources(Node, Before) ->
    wait_until({resources, Node, Before}, fun() ->
        After = resources(Node),
        After =:= Before orelse After
    end, 10000).

%% A sidecar that is stopped, but not dead, hangs nothing: a ping fails in time, distribution can be
%% stopped, and the sidecar is gone then; started again, it works.
sidecar_stopped(Config) ->
    B = start(Config, #{}),
    C = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    UdpPort = quic_dist_node:free_port(),
    A = distribute(start_alone(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}), UdpPort),
    connect(A, B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    pang(A, maps:get(node, C), ?PANG + 500),
    %% Nor does it hang those who want to connect to us.
    pang(C, maps:get(node, A), ?PANG + 500),
    stop_distribution(A, Sidecar),
    distribute(A, UdpPort),
    connect(A, C).

%% The same while processes send so much that the pipes and sockets to the stopped sidecar are full.
sidecar_stopped_under_load(Config) ->
    B = start(Config, #{}),
    C = start(Config, #{}),
    UdpPort = quic_dist_node:free_port(),
    A = distribute(start_alone(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}), UdpPort),
    connect(A, B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    start_senders(A, maps:get(node, B), 4, 200, 100000),
    stalled(A),
    pang(A, maps:get(node, C), ?PANG + 500),
    pang(A, maps:get(node, C), ?PANG + 500),
    ?assertMatch(#{}, call(A, fun() -> quic_dist:info() end, 2000)),
    ?assertEqual([maps:get(node, B)], call(A, fun() -> nodes(connected) end, 2000)),
    stop_distribution(A, Sidecar),
    distribute(A, UdpPort),
    connect(A, C).

%% A node whose sidecar is stopped can be ended by init:stop, and takes the sidecar with it, which
%% says goodbye.
halt_beside_a_stopped_sidecar(Config) ->
    A = #{os_pid := Beam} = start(Config, #{}),
    B = start(Config, #{}),
    connect(A, B),
    watch(B),
    Sidecar = sidecar(A),
    signal(Sidecar, stop),
    quic_dist_node:cast(A, fun() -> init:stop() end),
    gone(Beam, 6000),
    gone(Sidecar, 1000),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)).

%% If another program takes the UDP port while the sidecar is being replaced, the node says so and
%% goes on trying; when the port is free it has it again.
udp_port_taken_meanwhile(Config) ->
    A = start(Config, #{}),
    B = start(Config, #{}),
    #{listen := {Ip, UdpPort} = Listen, os_pid := First} = quic_dist_node:info(A),
    kill(First),
    %% Before the second restart there is a pause.
    kill(next_sidecar(A, First, 1000)),
    Socket = wait_until(
        {taken, UdpPort},
        fun() -> gen_udp:open(UdpPort, [{ip, Ip}]) end,
        1000
    ),
    wait_log(A, "another program has it", 3000),
    ?assertMatch(#{state := {down, _}}, quic_dist_node:info(A)),
    ok = gen_udp:close(Socket),
    connect(wait_up(A, Listen), B),
    connect(B, A).

wait_up(Node, Listen) ->
    wait_until(
        {up, Node},
        fun() ->
            case quic_dist_node:info(Node) of
                #{state := up, listen := Listen} -> {ok, Node};
                Other -> Other
            end
        end,
        7000
    ).

%% net_kernel:stop returns within the time that a sidecar has to end, and then it has none.
stop_distribution(A, Sidecar) ->
    {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
    within(5000, Microseconds div 1000, net_kernel_stop),
    gone(Sidecar, 1000).

%% net_kernel:stop closes everything at once: peers hear of it, the sidecar is gone and its UDP port
%% free, and in the VM nothing is left. It can be started again, on the same port.
distribution_stopped(Config) ->
    B = start(Config, #{}),
    Alone = start_alone(Config, #{}),
    UdpPort = quic_dist_node:free_port(),
    watch(B),
    Resources = fun() ->
        call(Alone, fun() -> {length(processes()), length(erlang:ports()), length(ets:all())} end)
    end,
    %% What the first start loads and makes for good is not counted.
    once_distributed(Alone, B, UdpPort),
    Before = Resources(),
    once_distributed(Alone, B, UdpPort),
    once_distributed(Alone, B, UdpPort),
    wait_until({resources, Before}, fun() -> Resources() =:= Before orelse Resources() end, 3000).

once_distributed(Alone, B, UdpPort) ->
    A = distribute(Alone, UdpPort),
    connect(A, B),
    Sidecar = sidecar(A),
    {Microseconds, ok} = timer:tc(fun() -> call(A, net_kernel, stop, []) end),
    within(1000, Microseconds div 1000, net_kernel_stop),
    ?assertEqual(connection_closed, nodedown(B, A, 1000)),
    gone(Sidecar, 1000),
    ?assertNot(is_bound(UdpPort)).

%% Nodes that connect to each other at the same moment while their sidecars are killed find each
%% other in the end, and no process of either hangs.
simultaneous_connects_while_sidecars_die(Config) ->
    [A, B] = Nodes = [start(Config, #{}) || _ <- [a, b]],
    AtFirst = [resources(Node) || Node <- Nodes],
    lists:foreach(
        fun(Round) ->
            [call(Node, fun() -> disconnect_and_ping(maps:get(node, Peer)) end)
             || {Node, Peer} <- [{A, B}, {B, A}]],
            %% Before, in and after the handshake.
            receive
            after Round * 3 -> kill(sidecar(lists:nth(1 + Round rem 2, Nodes)))
            end
        end,
        lists:seq(1, 8)
    ),
    [
        wait_until({connected, Node}, fun() -> ping(Node, Peer) =:= pong end, 15000)
     || {Node, Peer} <- [{A, B}, {B, A}]
    ],
    call(A, erlang, disconnect_node, [maps:get(node, B)]),
    [same_resources(Node, Before) || {Node, Before} <- lists:zip(Nodes, AtFirst)].

%% On a node. Returns while the ping is under way.
disconnect_and_ping(Peer) ->
    erlang:disconnect_node(Peer),
    spawn(fun() -> net_adm:ping(Peer) end),
    ok.

%% A receiver that is stopped holds up its senders and fills nobody's memory; when it goes on, all
%% that was sent arrives, and in order.
stopped_receiver(Config) ->
    stopped_receiver(Config, 250, 100000).

stopped_receiver_of_large_messages(Config) ->
    stopped_receiver(Config, 1, 64 bsl 20).

stopped_receiver(Config, Each, Size) ->
    A = start(Config, #{}),
    B = #{os_pid := Beam} = start(Config, #{}),
    connect(A, B),
    Sidecars = [sidecar(A), sidecar(B)],
    Senders = 8,
    Counters = start_receivers(B, Senders, Each),
    signal(Beam, stop),
    start_senders(A, maps:get(node, B), Senders, Each, Size),
    stalled(A),
    ?assert(sent(A) < Senders * Each),
    %% The peak, not what is left of it.
    Peaks = [peak_memory(Sidecar) || Sidecar <- Sidecars],
    ct:pal("peaks of the sidecars' memory, in kB: ~w; sent: ~w of ~w", [
        Peaks, sent(A), Senders * Each
    ]),
    signal(Beam, cont),
    [
        receive
            {received, N, InOrder} -> ?assertEqual(Each, InOrder)
        after scale(30000) ->
            error({not_received, N, call(A, fun() -> nodes() end)})
        end
     || N <- Counters
    ],
    Largest = lists:max(Peaks ++ [peak_memory(Sidecar) || Sidecar <- Sidecars]),
    ?assert(Largest < largest_sidecar(), {largest, Largest, bound, largest_sidecar()}).

%% Kilobytes: a channel of eight lanes by the formula of DESIGN.md, section 5, and 16 MB for the
%% program itself. Go's collector may let half as much again stand.
largest_sidecar() ->
    Outbox = 4096 + (2 + 8) * 128,
    Backlog = 2 * (4096 + 128),
    Streams = 1 + 8,
    Channel = Outbox + Backlog + Streams * (128 + 4096) + 2 * (128 + 8 * 64),
    (Channel + 16384) * 3 div 2.

peak_memory(OsPid) ->
    {ok, Status} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/status"),
    {match, [Kilobytes]} = re:run(Status, "VmHWM:\\s*(\\d+) kB", [{capture, [1], list}]),
    list_to_integer(Kilobytes).

%% Processes of `Node' that send Each messages of Size bytes to their receivers at `To'.
start_senders(Node, To, Senders, Each, Size) ->
    call(Node, fun() ->
        Sent = atomics:new(1, []),
        persistent_term:put({?MODULE, sent}, Sent),
        Load = binary:copy(<<"0123456789">>, Size div 10),
        [
            spawn(fun() ->
                [
                    begin
                        {receiver(S), To} ! {N, Load},
                        atomics:add(Sent, 1, 1)
                    end
                 || N <- lists:seq(1, Each)
                ]
            end)
         || S <- lists:seq(1, Senders)
        ],
        ok
    end).

receiver(N) -> list_to_atom("receiver_" ++ integer_to_list(N)).

sent(Node) ->
    call(Node, fun() -> atomics:get(persistent_term:get({?MODULE, sent}), 1) end).

%% Waits until the senders get no further, and longer than they need for what is bounded.
stalled(Node) ->
    wait_until(
        stalled,
        fun() ->
            Before = sent(Node),
            receive
            after 1500 -> ok
            end,
            sent(Node) =:= Before
        end,
        20000
    ).

%% Each receiver tells this process how many of its messages came, from the first on and in order.
start_receivers(Node, Senders, Each) ->
    Self = self(),
    Numbers = lists:seq(1, Senders),
    call(Node, fun() ->
        Caller = self(),
        [
            spawn(fun() ->
                register(receiver(N), self()),
                Caller ! {registered, N},
                InOrder = count(1, Each),
                tell(Self, {received, N, InOrder})
            end)
         || N <- Numbers
        ],
        [
            receive
                {registered, N} -> ok
            end
         || N <- Numbers
        ],
        ok
    end),
    Numbers.

count(N, Each) when N > Each ->
    Each;
count(N, Each) ->
    receive
        {N, _} -> count(N + 1, Each);
        {Other, _} -> {after_message, N - 1, came, Other}
    end.

%% The atom cache is refused by whichever side knows its channel's mode to be another than single,
%% be it the one that dials or the one that accepts, and by nobody else; what is sent arrives.
refused_flags(Config) ->
    Single = #{quic_dist => [{streams, single}]},
    A = start_observed(Config, Single),
    [
        begin
            B = start_observed(Config, Options),
            ?assertEqual([single, Mode], handshake(A, B)),
            true = call(B, erlang, disconnect_node, [maps:get(node, A)]),
            ?assertEqual([Mode, single], handshake(B, A)),
            quic_dist_node:stop(B)
        end
     || {Mode, Options} <- [
            {single, Single},
            {bulk, announcing(Config, "bulk")},
            {sender, announcing(Config, "sender")}
        ]
    ],
    %% Sidecars that mean it.
    C = start_observed(Config, #{}),
    D = start_observed(Config, #{}),
    ?assertEqual([bulk, bulk], handshake(C, D)).

%% Options of a node whose sidecar says that its channels have this mode, and keeps to one stream.
announcing(Config, Mode) ->
    #{
        quic_dist => [{executable, fixture(Config, "fakesidecar")}, {streams, single}],
        env => [
            {"QUIC_DIST_FAKE_REAL", fixture(Config, "quicdistd")},
            {"QUIC_DIST_FAKE_STREAMS", Mode}
            | fake_env("announce")
        ]
    }.

%% A node that tells this process of each of its handshakes: {handshake, Node's name, the channel's
%% mode, the flags that both sides have agreed on}.
start_observed(Config, Options) ->
    #{node := Name} = Node = start(Config, Options),
    Self = self(),
    call(Node, fun() ->
        {module, _} = code:ensure_loaded(quic_dist_plane),
        Tracer = spawn(fun() -> observe(Self, Name, undefined) end),
        _ = erlang:trace(all, true, [call, {tracer, Tracer}]),
        1 = erlang:trace_pattern({quic_dist_plane, open, 1}, true, []),
        1 = erlang:trace_pattern({erlang, setnode, 3}, true, []),
        ok
    end),
    Node.

observe(Self, Name, Mode) ->
    receive
        {trace, _, call, {quic_dist_plane, open, [#{streams := Streams}]}} ->
            observe(Self, Name, Streams);
        {trace, _, call, {erlang, setnode, [_, _, {Flags, _}]}} ->
            tell(Self, {handshake, Name, Mode, Flags}),
            observe(Self, Name, undefined)
    end.

%% Connects two nodes, checks the flags that they agree on, and returns each one's mode.
handshake(A, #{node := NameB} = B) ->
    connect(A, B),
    Seen = [
        receive
            {handshake, Name, Mode, Flags} -> {Mode, Flags}
        after scale(5000) ->
            error({no_handshake, Name, quic_dist_node:flush()})
        end
     || #{node := Name} <- [A, B]
    ],
    {Modes, [Agreed, Agreed]} = lists:unzip(Seen),
    Refused = call(A, dist_util, strict_order_flags, []) band (bnot Agreed),
    ?assertEqual(Modes =/= [single, single], Refused =/= 0, {Modes, Agreed}),
    Atoms = [list_to_atom("atom" ++ integer_to_list(N)) || N <- lists:seq(1, 1000)],
    ?assertEqual(Atoms, call(A, erpc, call, [NameB, lists, reverse, [lists:reverse(Atoms)]])),
    Modes.

%% Booting with something that is not as it should be

%% Boots erl and asserts that it gives up with one message, which has all these words.
boot_fails(Config, Options, Env, Within, Words) ->
    boot_fails(Config, quic_dist_node:ebin(), Options, Env, Within, Words).

boot_fails(Config, Ebin, Options, Env, Within, Words) ->
    UdpPort = integer_to_list(quic_dist_node:free_port()),
    boot_fails(Config, Ebin, UdpPort, Options, Env, Within, Words).

boot_fails(Config, Ebin, UdpPort, Options, Env, Within, Words) ->
    Name = UdpPort ++ "@127.0.0.1",
    Args =
        ["-proto_dist", "quic", "-name", Name, "-no_epmd", "-pa", Ebin, "-noinput"] ++
            lists:append([
                ["-quic_dist", atom_to_list(Key), lists:flatten(io_lib:format("~0tp", [Value]))]
             || {Key, Value} <- Options
            ]),
    {Microseconds, Result} = timer:tc(fun() ->
        quic_dist_node:run(Args, #{env => case_env(Config) ++ Env, timeout => Within + 5000})
    end),
    case Result of
        {exit_status, Status, Output} when Status =/= 0 ->
            ct:pal("~ts", [Output]),
            Missing = [Word || Word <- Words, string:find(Output, Word) =:= nomatch],
            ?assertEqual([], Missing, Output),
            %% The message is there once, and is all there is but for what a sidecar itself says.
            Lines = string:lexemes(Output, "\n"),
            ?assertMatch([_], [L || L <- Lines, not lists:prefix("quicdistd: ", L)], Output);
        _ ->
            error({no_boot_error, Result})
    end,
    within(Within, Microseconds div 1000, boot).

%% A missing executable, named by the option or looked for in priv, ends the boot with the places
%% tried and what to do.
no_executable(Config) ->
    boot_fails(Config, [{executable, "/nowhere/quicdistd"}], [], 3000, [
        "/nowhere/quicdistd: no such file", "make build", "option executable"
    ]),
    Ebin = library_without_executable(Config),
    boot_fails(Config, Ebin, [], [], 3000, [
        filename:join(filename:dirname(Ebin), "priv"),
        "/quicdistd: no such file",
        "make build",
        "option executable"
    ]).

library_without_executable(Config) ->
    Top = filename:join([?config(priv_dir, Config), "lib", "quic_dist"]),
    Ebin = filename:join(Top, "ebin"),
    ok = filelib:ensure_dir(filename:join(Ebin, "x")),
    ok = filelib:ensure_dir(filename:join([Top, "priv", "x"])),
    [
        {ok, _} = file:copy(File, filename:join(Ebin, filename:basename(File)))
     || File <- filelib:wildcard(filename:join(quic_dist_node:ebin(), "*"))
    ],
    Ebin.

%% A folder, a text file, and a file without permission are called what they are.
not_an_executable(Config) ->
    Dir = ?config(priv_dir, Config),
    boot_fails(Config, [{executable, Dir}], [], 3000, [Dir, "is a directory", "option executable"]),
    Text = filename:join(Dir, "text"),
    ok = file:write_file(Text, "not a program\n"),
    boot_fails(Config, [{executable, Text}], [], 3000, [Text ++ ": not executable", "chmod +x"]),
    ok = file:change_mode(Text, 8#755),
    boot_fails(Config, [{executable, Text}], [], 3000, [
        Text, "not an executable of a known kind", "is it a quicdistd for"
    ]).

%% An executable for another processor is called that, with the platform that is wanted.
executable_for_another_processor(Config) ->
    File = filename:join(?config(priv_dir, Config), "quicdistd"),
    %% s390x is big-endian, so that even the header's other fields differ from ours.
    Header = <<16#7f, "ELF", 2, 2, 1, 0:72, 2:16, 22:16, 1:32, 0:384>>,
    ok = file:write_file(File, Header),
    ok = file:change_mode(File, 8#755),
    boot_fails(Config, [{executable, File}], [], 3000, [
        File, "64-bit ELF executable for s390x", "is it a quicdistd for"
    ]).

%% quicdistd of another version is refused with both versions.
executable_of_another_version(Config) ->
    File = fixture(Config, "quicdistd-9.9.9"),
    boot_fails(Config, [{executable, File}], [], 3000, [
        File, "9.9.9", "install both from one release"
    ]).

%% A program that ends before its hello is reported with its exit status.
executable_that_ends(Config) ->
    fake_fails(Config, "exit", 3000, ["ended", "before its hello"]).

%% A sidecar of another protocol is refused with both numbers.
executable_of_another_protocol(Config) ->
    fake_fails(Config, "protocol", 3000, [
        "protocol 2", "protocol 1", "install both from one release"
    ]).

%% A sidecar that says something else in place of its hello is refused.
executable_without_hello(Config) ->
    fake_fails(Config, "no_hello", 3000, ["did not begin with a hello"]).

%% A program that says nothing is given up after the time for the hello.
executable_that_is_silent(Config) ->
    fake_fails(Config, "silent", ?HELLO_TIMEOUT + 2000, ["sent no hello within 5000 ms"]).

%% A program that says words for people is none of ours.
executable_that_says_text(Config) ->
    fake_fails(Config, "text", ?HELLO_TIMEOUT + 2000, ["no quicdistd"]).

%% A sidecar that hangs after its hello is given up too.
executable_that_takes_no_configuration(Config) ->
    fake_fails(Config, "hello_only", ?HELLO_TIMEOUT + 2000, ["did not take its configuration"]).

fake_fails(Config, Mode, Within, Words) ->
    File = fixture(Config, "fakesidecar"),
    boot_fails(Config, [{executable, File}], fake_env(Mode), Within, Words).

fake_env(Mode) ->
    [{"QUIC_DIST_FAKE", Mode}, {"QUIC_DIST_FAKE_BUILD", binary_to_list(vsn())}].

%% A UDP port that another program has is named, and what to do.
udp_port_in_use(Config) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}]),
    {ok, UdpPort} = inet:port(Socket),
    Text = integer_to_list(UdpPort),
    boot_fails(Config, quic_dist_node:ebin(), Text, [], [], 3000, [Text, "another program has it"]),
    ok = gen_udp:close(Socket).

%% Certificate files that cannot be used end the boot with the file's name and what is wrong.
bad_certificates(Config) ->
    Cert = fun(Name) -> fixture(Config, Name) end,
    Encrypted = [{certfile, Cert("encrypted.pem")}, {keyfile, Cert("encrypted.key")}],
    Garbage = filename:join(?config(priv_dir, Config), "garbage.pem"),
    ok = file:write_file(Garbage, "no certificate\n"),
    Missing = "/nowhere/cert.pem",
    lists:foreach(
        fun({Options, Words}) ->
            boot_fails(Config, Options, [], 3000, ["bad_certificate" | Words])
        end,
        [
            {[{certfile, Missing}], [Missing, "no such file"]},
            {[{certfile, ?config(priv_dir, Config)}], [?config(priv_dir, Config), "directory"]},
            {[{certfile, Garbage}], [Garbage, "not PEM"]},
            {[{certfile, Cert("ec.pem")}], [Cert("ec.pem"), "holds no private key", "set keyfile"]},
            {[{certfile, Cert("ec.pem")}, {keyfile, Cert("ed25519.key")}], [
                Cert("ec.pem"), Cert("ed25519.key"), "do not belong together"
            ]},
            {Encrypted, [Cert("encrypted.key"), "set password"]},
            {Encrypted ++ [{password, "wrong"}], [Cert("encrypted.key"), "cannot be decrypted"]},
            {[{cacertfile, Cert("ec.key")}], [Cert("ec.key"), "holds no certificate"]}
        ]
    ).

%% An option that is not one, or not of its type, ends the boot with its name and what is accepted.
bad_options(Config) ->
    lists:foreach(
        fun({Options, Words}) -> boot_fails(Config, Options, [], 3000, Words) end,
        [
            {[{certfiel, "x"}], ["certfiel", "certfile", "cacertfile"]},
            {[{listen_port, 70000}], ["listen_port", "70000", "0 to 65535"]},
            {[{keyfile, "x"}], ["keyfile", "certfile"]}
        ]
    ).

%% Distribution that could not be started for want of a good executable, of a good certificate or of
%% the UDP port can be started when that is there, without a restart of the node.
repaired_without_restart(Config) ->
    Alone = start_alone(Config, #{env => fake_env("exit")}),
    B = start(Config, #{}),
    UdpPort = quic_dist_node:free_port(),
    Set = fun(Options) ->
        call(Alone, fun() ->
            Old = application:get_all_env(quic_dist),
            [application:unset_env(quic_dist, Key) || {Key, _} <- Old],
            [ok = application:set_env(quic_dist, Key, Value) || {Key, Value} <- Options],
            ok
        end)
    end,
    Name = list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1"),
    Refused = fun(Options) ->
        Set(Options),
        Start = fun() -> net_kernel:start(Name, #{name_domain => longnames}) end,
        ?assertMatch({error, _}, call(Alone, Start)),
        ?assertEqual(nonode@nohost, call(Alone, erlang, node, []))
    end,
    Refused([{executable, "/nowhere/quicdistd"}]),
    Refused([{executable, fixture(Config, "fakesidecar")}]),
    Refused([{certfile, "/nowhere/cert.pem"}]),
    {ok, Socket} = gen_udp:open(UdpPort, [{ip, {127, 0, 0, 1}}]),
    Refused([]),
    ok = gen_udp:close(Socket),
    Set([]),
    connect(distribute(Alone, UdpPort), B).

%% A sidecar that dies in its hello, after however many bytes, is an error like any other.
hello_cut_at_every_byte(Config) ->
    Alone = start_alone(Config, #{env => fake_env("half")}),
    Executable = fixture(Config, "fakesidecar"),
    Refused = call(
        Alone,
        fun() ->
            ok = application:set_env(quic_dist, executable, Executable),
            [hello_cut_at(N) || N <- lists:seq(0, 40)]
        end
    ),
    [
        ?assertMatch({match, _}, re:run(Text, "ended .* before its hello"), Text)
     || Text <- Refused
    ].

%% On a node.
hello_cut_at(Bytes) ->
    true = os:putenv("QUIC_DIST_FAKE_BYTES", integer_to_list(Bytes)),
    {ok, Sup} = quic_dist_sup:start_link(),
    {error, {down, Text}} = quic_dist_port:listen(#{
        node => <<"a@127.0.0.1">>, address => <<"127.0.0.1">>, port_min => 0, port_max => 0
    }),
    unlink(Sup),
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive
        {'DOWN', Monitor, process, Sup, _} -> Text
    end.

%% Whatever a sidecar that was good so far puts between its frames, the VM says so in one line,
%% replaces it by another on the same UDP port, and keeps running.
garbage_from_sidecar(Config) ->
    B = start(Config, #{}),
    [garbage(Config, B, Garbage) || Garbage <- garbage()].

garbage() ->
    Frame = fun(Body) -> <<(byte_size(Body)):32, Body/binary>> end,
    Message = fun(Tag, Fields) -> Frame(iolist_to_binary(quic_dist_proto:control(Tag, Fields))) end,
    Broke = "broke the control protocol",
    Hello = #{protocol => 1, build => vsn(), os => <<>>, arch => <<>>},
    [
        {empty, <<0:32>>, usr1, Broke},
        {bad_term, Frame(<<1, 131, 255>>), usr1, Broke},
        {unknown_type, Frame(<<9, 1, 2, 3>>), usr1, Broke},
        {too_large, Frame(<<2, 1:32, 0:((1 bsl 18) + 1)/unit:8>>), usr1, Broke},
        {cut, <<100:32, 1, 131, 104>>, usr2, "ended with status 9"},
        {second_hello, Message(hello, Hello), usr1, Broke},
        {answer_to_nothing, Message(dialled, channel(#{id => 4711})), usr1, Broke},
        {bad_address, Message(accepted, channel(#{node => <<"a@h">>})), usr1, Broke}
    ].

channel(Fields) ->
    Fields#{channel => 99, address => <<"nonsense">>, port => 1, streams => single, credit => 1}.

garbage(Config, B, {Name, Bytes, Signal, Words}) ->
    ct:pal("garbage: ~w", [Name]),
    Inject = filename:join(?config(priv_dir, Config), atom_to_list(Name)),
    ok = file:write_file(Inject, Bytes),
    A = start_behind_proxy(Config, [{"QUIC_DIST_FAKE_INJECT", Inject}]),
    connect(A, B),
    watch(A),
    #{listen := Listen, os_pid := Sidecar} = quic_dist_node:info(A),
    _ = os:cmd(lists:concat(["kill -", string:uppercase(atom_to_list(Signal)), " ", Sidecar])),
    ?assertEqual(connection_closed, nodedown(A, B, 1000)),
    Next = next_sidecar(A, Sidecar, 2000),
    ?assertMatch(#{listen := Listen, os_pid := Next}, quic_dist_node:info(A)),
    gone(Sidecar, 2000),
    %% Whatever the peer still thinks of the old connection.
    call(B, erlang, disconnect_node, [maps:get(node, A)]),
    connect(B, A),
    ?assertMatch([_], wait_log(A, Words, 2000)),
    ?assertMatch([_], wait_log(A, "^error", 5000), log(A)),
    quic_dist_node:stop(A).

%% The man in the middle is a process between the VM and quicdistd, which no socket lets in.
start_behind_proxy(Config, Env) ->
    start(Config, #{
        quic_dist => [{executable, fixture(Config, "fakesidecar")}, {data_plane, stdio}],
        env => [{"QUIC_DIST_FAKE_REAL", fixture(Config, "quicdistd")} | Env] ++ fake_env("proxy")
    }).

%% What a sidecar is asked that is dead already, though its VM does not know yet, the next one does.
asked_before_its_end_is_known(Config) ->
    A = start_behind_proxy(Config, []),
    B = start(Config, #{}),
    #{os_pid := Sidecar} = quic_dist_node:info(A),
    signal(Sidecar, hup),
    Stdin = lists:concat(["/proc/", Sidecar, "/fd/0"]),
    wait_until(deaf, fun() -> file:read_link(Stdin) =:= {error, enoent} end, 1000),
    ?assertEqual(pong, ping(A, B)),
    ?assertMatch([_], wait_log(A, "ended \\(epipe\\)", 5000), log(A)),
    _ = next_sidecar(A, Sidecar, 2000).

%% Dialling what is no node of ours

%% Asserts that a ping fails in time with one line in the log that has all these words, and that the
%% next good one works.
dial_fails(Config, Name, Within, Words) ->
    {A, B} = {?config(a, Config), ?config(b, Config)},
    Text = atom_to_list(Name),
    pang(A, Name, Within),
    Line = "cannot connect to " ++ Text ++ ": ",
    Found = logged(A, Line),
    ?assertMatch([_], Found, log(A)),
    Missing = [Word || Word <- Words, string:find(hd(Found), Word) =:= nomatch],
    ?assertEqual([], Missing, hd(Found)),
    ?assertMatch("warning " ++ _, hd(Found)),
    call(A, erlang, disconnect_node, [maps:get(node, B)]),
    connect(A, B).

%% The log lines that hold this text, once there is one.
logged(Node, Text) ->
    wait_until(
        {logged, Text},
        fun() ->
            Lines = string:lexemes(log(Node), "\n"),
            case [Line || Line <- Lines, string:find(Line, Text) =/= nomatch] of
                [] -> log(Node);
                Found -> {ok, Found}
            end
        end,
        2000
    ).

name(UdpPort) ->
    list_to_atom(integer_to_list(UdpPort) ++ "@127.0.0.1").

%% A host that does not exist.
unknown_host(Config) ->
    dial_fails(Config, '20000@no-such-host.invalid', ?PANG + 500, ["no-such-host.invalid", "DNS"]).

%% A UDP port on which nothing listens, as the kernel says at once.
nobody_listens(Config) ->
    dial_fails(Config, name(quic_dist_node:free_port()), 1000, [
        "127.0.0.1", "nothing listens on this UDP port"
    ]).

%% A UDP port where somebody listens and never answers.
silent_peer(Config) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}, {active, false}]),
    {ok, UdpPort} = inet:port(Socket),
    dial_fails(Config, name(UdpPort), ?PANG + 500, ["no QUIC answer within"]),
    ok = gen_udp:close(Socket).

%% A UDP port where somebody answers who does not speak QUIC.
talking_peer(Config) ->
    answering(fun(_) -> <<"who are you?">> end, fun(UdpPort) ->
        dial_fails(Config, name(UdpPort), ?PANG + 500, ["not QUIC", "another program"])
    end).

%% A UDP port that sends everything back: the node does not take itself for its peer.
echoing_peer(Config) ->
    answering(fun(Data) -> Data end, fun(UdpPort) ->
        dial_fails(Config, name(UdpPort), ?PANG + 500, [])
    end),
    ?assertEqual([], log_lines(?config(a, Config), "^error")).

answering(Answer, Test) ->
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}, {active, false}, binary]),
    {ok, UdpPort} = inet:port(Socket),
    Server = spawn_link(fun() -> answer(Socket, Answer) end),
    Test(UdpPort),
    unlink(Server),
    ok = gen_udp:close(Socket).

answer(Socket, Answer) ->
    case gen_udp:recv(Socket, 0) of
        {ok, {Ip, UdpPort, Data}} ->
            _ = gen_udp:send(Socket, Ip, UdpPort, Answer(Data)),
            answer(Socket, Answer);
        {error, _} ->
            ok
    end.

%% A QUIC server of another protocol.
peer_of_another_protocol(Config) ->
    fake_peer(Config, ["h3", "1"], ["speaks QUIC but not erldist/1"]).

%% A node whose sidecar speaks another version of the wire.
peer_of_another_wire_version(Config) ->
    fake_peer(Config, ["erldist/1", "2"], ["wire version 2", "1"]).

fake_peer(Config, Args, Words) ->
    Options = #{exec => fixture(Config, "fakepeer"), env => case_env(Config)},
    Command = quic_dist_node:open(Args, Options),
    [UdpPort] = quic_dist_node:expect(Command, "^(\\d+)\n", 5000),
    dial_fails(Config, name(list_to_integer(UdpPort)), 1000, Words),
    {_, Port, OsPid, _} = Command,
    signal(OsPid, kill),
    gone(OsPid, 1000),
    _ = catch_close(Port),
    ok.

catch_close(Port) ->
    try
        port_close(Port)
    catch
        error:badarg -> true
    end.

%% Names that say no UDP port, no host, or one of the wrong form.
names_that_do_not_fit(Config) ->
    NoPort = ["no UDP port is known", "port@host", "option nodes"],
    [
        dial_fails(Config, Name, 1000, Words)
     || {Name, Words} <- [
            {'someone@127.0.0.1', NoPort},
            {'0@127.0.0.1', NoPort},
            {'65536@127.0.0.1', NoPort},
            {'-1@127.0.0.1', NoPort},
            {'20000x@127.0.0.1', NoPort},
            {'20000@nodots', ["long names", "no dot"]}
        ]
    ],
    %% These are no names at all, and net_kernel itself asks nobody.
    {A, B} = {?config(a, Config), ?config(b, Config)},
    NoNames = ['nohost', '@', 'a@', '@127.0.0.1', 'a@b@c', '20000@127.0.0.1@x'],
    [pang(A, Name, 1000) || Name <- NoNames],
    connect(A, B).

%% Certificates

%% Nodes with keys of every kind, a chain with an intermediate, both in one file, and an encrypted
%% key, which trust one authority, connect to each other.
keys_of_every_kind(Config) ->
    Nodes = [trusting(Config, Options) || Options <- identities(Config)],
    [connect(A, B) || A <- Nodes, B <- Nodes, A =/= B],
    [?assertEqual([], log_lines(Node, "^(warning|error)")) || Node <- Nodes],
    [
        ?assertNot(is_map_key(password, maps:get(options, quic_dist_node:info(Node))))
     || Node <- Nodes
    ].

trusting(Config, Options) ->
    start(Config, #{
        quic_dist => [{cacertfile, fixture(Config, "ca.pem")} | Options],
        kernel => [{net_setuptime, ?SETUP_TIME}]
    }).

identities(Config) ->
    File = fun(Name) -> fixture(Config, Name) end,
    [
        [{certfile, File("ec-chain.pem")}, {keyfile, File("ec.key")}],
        [{certfile, File("rsa-both.pem")}],
        [{certfile, File("ed25519.pem")}, {keyfile, File("ed25519.key")}],
        [{certfile, File("encrypted.pem")}, {keyfile, File("encrypted.key")}, {password, "secret"}]
    ].

%% A node with a certificate of another authority, with none, or with one that has expired cannot
%% connect to a node that has an authority, nor that one to it, and both logs say why.
strangers(Config) ->
    File = fun(Name) -> fixture(Config, Name) end,
    [Identity | _] = identities(Config),
    Good = trusting(Config, Identity),
    Own = start(Config, #{
        quic_dist => [
            {certfile, File("stranger.pem")},
            {keyfile, File("stranger.key")},
            {cacertfile, File("stranger-ca.pem")}
        ],
        kernel => [{net_setuptime, ?SETUP_TIME}]
    }),
    None = start(Config, #{kernel => [{net_setuptime, ?SETUP_TIME}]}),
    Expired = trusting(Config, [{certfile, File("expired.pem")}, {keyfile, File("expired.key")}]),
    RefusesIt = "this node refuses the peer's certificate",
    [
        begin
            refused(Stranger, Good, Dialling),
            refused(Good, Stranger, RefusesIt)
        end
     || {Stranger, Dialling} <- [
            %% It looks first, and does not like what it sees.
            {Own, RefusesIt},
            {None, "the peer refuses this node's certificate"},
            {Expired, "the peer refuses this node's certificate"}
        ]
    ],
    connect(trusting(Config, lists:last(identities(Config))), Good).

%% Asserts that `From' cannot connect to `To', and that both say why.
refused(From, To = #{node := Name}, Words) ->
    Turned = fun() -> length(log_lines(To, "inbound connection turned away")) end,
    Before = Turned(),
    pang(From, Name, ?PANG + 500),
    Found = logged(From, "cannot connect to " ++ atom_to_list(Name) ++ ": "),
    ?assertNotEqual(nomatch, string:find(lists:last(Found), Words), Found),
    wait_until({turned_away, To}, fun() -> Turned() > Before end, 2000).

%% Fixtures

fixture(Config, Name) ->
    filename:join(?config(fixtures, Config), Name).

fixtures() ->
    Dir = quic_dist_fixtures:dir(),
    quic_dist_fixtures:build([" -o ", Dir, "/"], "./test/fakes/..."),
    quic_dist_fixtures:quicdistd("quicdistd", #{}),
    quic_dist_fixtures:quicdistd("quicdistd-9.9.9", #{vsn => "9.9.9"}),
    case {os:find_executable("openssl"), filelib:is_regular(filename:join(Dir, "certificates"))} of
        {false, _} -> ct:pal("no openssl here: using what is in ~ts", [Dir]);
        {_, false} -> make_certificates(Dir);
        {_, true} -> ok
    end,
    shell(Dir, "chmod 600 *.key rsa-both.pem"),
    Dir.

make_certificates(Dir) ->
    Write = fun(Name, Text) -> ok = file:write_file(filename:join(Dir, Name), Text) end,
    Write(
        "leaf.ext",
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    ),
    Write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"),
    Ec = "ec -pkeyopt ec_paramgen_curve:P-256",
    Valid = "-days 36500",
    %% A certificate of the kind that `Extensions' names for a new key, signed by `By'.
    Certificate = fun(Name, Key, By, Extensions, Days) ->
        shell(Dir, [
            ["openssl req -nodes -newkey ", Key, " -subj /CN=", Name],
            [" -keyout ", Name, ".key -out ", Name, ".csr"]
        ]),
        Signer =
            case By of
                itself -> [" -signkey ", Name, ".key"];
                _ -> [" -CA ", By, ".pem -CAkey ", By, ".key -CAcreateserial"]
            end,
        shell(Dir, [
            ["openssl x509 -req -in ", Name, ".csr -out ", Name, ".pem", Signer],
            [" -extfile ", Extensions, ".ext ", Days]
        ])
    end,
    Certificate("ca", Ec, itself, "ca", Valid),
    Certificate("stranger-ca", Ec, itself, "ca", Valid),
    Certificate("intermediate", Ec, "ca", "ca", Valid),
    Certificate("ec", Ec, "intermediate", "leaf", Valid),
    shell(Dir, "cat ec.pem intermediate.pem >ec-chain.pem"),
    Certificate("rsa", "rsa:2048", "ca", "leaf", Valid),
    shell(Dir, "cat rsa.pem rsa.key >rsa-both.pem"),
    Certificate("ed25519", "ed25519", "ca", "leaf", Valid),
    Certificate("encrypted", Ec, "ca", "leaf", Valid),
    shell(Dir, [
        "mv encrypted.key plain.key && openssl pkcs8 -topk8 -v2 aes-256-cbc",
        " -passout pass:secret -in plain.key -out encrypted.key"
    ]),
    Certificate("stranger", Ec, "stranger-ca", "leaf", Valid),
    %% openssl x509 takes no date in the past, but a negative number of days.
    Certificate("expired", Ec, "ca", "leaf", "-days -1"),
    Write("certificates", "These are made once. Remove this file to have them made again.\n").
