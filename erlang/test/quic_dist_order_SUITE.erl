%% @doc The order of signals, through the real emulator.
%%
%% Erlang promises that signals from one process to another arrive in the order in which they were
%% sent, whatever address they were sent to. Each case takes the next message of a process, whatever
%% it is, and fails with the one that it should have been and the one that came. A connection that
%% is lost is a failure, too: that is how the emulator answers some signals that come too early.
%%
%% Each case is run for many rounds, by several processes at once. Four rounds in sequence differ
%% in which messages are large, that is, fragmented: none, every second from the second or from
%% the first, all.
%%
%% QUIC_DIST_ORDER_ROUNDS is the number of rounds; ten thousand are the long proof.
%% QUIC_DIST_ORDER_WORKERS is how many processes share them, and QUIC_DIST_ORDER_DELAY for how many
%% milliseconds a lane is held back at most.
%%
%% The nodes of groups for quic run a quicdistd with the build tag `lanedelay', which holds each of
%% its lanes back for random times of its own. Those of the groups `..._over_link' are joined by an
%% emulated link besides that loses packets and has some overtaken by others; it needs root.
-module(quic_dist_order_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_group/2, end_per_group/2]).
-export([end_per_testcase/2]).
-export([
    spawn_requests/1,
    spawned_and_monitored/1,
    spawned_and_linked/1,
    last_messages_before_down_by_pid/1,
    last_messages_before_down_by_name/1,
    group_leaders/1,
    names_pids_and_aliases/1,
    links/1,
    first_messages/1,
    two_receivers/1,
    replies_of_a_server_that_ends/1,
    group_leader_behind_others_messages/1,
    down_by_name_behind_others_messages/1
]).
-export([monitor_before_rpc/1, process_groups_before_rpc/1]).
-export([wrong_key/1]).

-import(quic_dist_node, [call/2, call/3]).
-import(quic_dist_pair, [pair/1]).
-import(quic_dist_wait, [flush/0, scale/1]).

%% See test/wan/link.
-define(LINK, "delay 0.5ms loss 0.1% reorder 0.1% late 2ms").

%% Four fragments.
-define(LARGE, 200000).

%% The next message, as an expression; new variables of the pattern are seen in Value only.
-define(next(Pattern, Value),
    (fun() ->
        receive
            Pattern -> Value;
            Came -> out_of_order({??Pattern, ?FUNCTION_NAME, ?LINE}, Came)
        after scale(30000) ->
            exit({never_came, {??Pattern, ?FUNCTION_NAME, ?LINE}})
        end
    end)()
).
-define(next(Pattern), ?next(Pattern, ok)).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(60000 + 200 * rounds())}].

all() ->
    [{group, wrong_key} | [{group, Group} || {Group, _, _, _} <- modes()]].

groups() ->
    [{wrong_key, [], [wrong_key]} | [{Group, [], Cases} || {Group, _, _, Cases} <- modes()]].

%% Groups: carrier, and over what; options of quic; cases.
modes() ->
    Bulk = [{streams, bulk}],
    Sender = [{streams, sender}],
    Four = {connections, 4},
    [
        {inet_tcp, inet_tcp, [], pairwise() ++ causal()},
        {single, quic, [{streams, single}], pairwise() ++ causal()},
        {bulk, quic, Bulk, pairwise() ++ causal()},
        {bulk_on_four, quic, [Four | Bulk], pairwise() ++ causal()},
        {bulk_over_link, quic_over_link, Bulk, pairwise() ++ causal()},
        {sender, quic, Sender, pairwise()},
        {sender_on_four, quic, [Four | Sender], pairwise()},
        {sender_on_four_over_link, quic_over_link, [Four | Sender], pairwise()}
    ].

%% What Erlang promises.
pairwise() ->
    [
        spawn_requests,
        spawned_and_monitored,
        spawned_and_linked,
        last_messages_before_down_by_pid,
        last_messages_before_down_by_name,
        group_leaders,
        names_pids_and_aliases,
        links,
        first_messages,
        two_receivers,
        replies_of_a_server_that_ends,
        group_leader_behind_others_messages,
        down_by_name_behind_others_messages
    ].

%% What it does not, but TCP gives, and OTP's own libraries and tests lean on.
causal() ->
    [monitor_before_rpc, process_groups_before_rpc].

rounds() ->
    list_to_integer(os:getenv("QUIC_DIST_ORDER_ROUNDS", "48")).

workers() ->
    list_to_integer(os:getenv("QUIC_DIST_ORDER_WORKERS", "8")).

init_per_group(wrong_key, Config) ->
    Build = #{tags => "lanedelay,wrongkey"},
    Executable = quic_dist_fixtures:quicdistd("wrongkey/quicdistd", Build),
    Node = delayed(Executable, [{streams, sender}]),
    [{nodes, [Node, Node]}, {pair, {?MODULE, wrong_key}} | Config];
init_per_group(Group, Config) ->
    {Group, Carrier, Options, _} = lists:keyfind(Group, 1, modes()),
    case nodes_of(Carrier, Options) of
        {skip, _} = Skip -> Skip;
        Nodes -> [{nodes, Nodes}, {pair, {?MODULE, Group}} | Config]
    end.

nodes_of(inet_tcp, []) ->
    [#{carrier => inet_tcp}, #{carrier => inet_tcp}];
nodes_of(quic, Options) ->
    Build = #{tags => "lanedelay"},
    Node = delayed(quic_dist_fixtures:quicdistd("lanedelay/quicdistd", Build), Options),
    [Node, Node];
nodes_of(quic_over_link, Options) ->
    case quic_dist_link:open(?LINK) of
        {ok, Ends} ->
            [maps:merge(Node, End) || {Node, End} <- lists:zip(nodes_of(quic, Options), Ends)];
        {error, Reason} ->
            {skip, Reason}
    end.

delayed(Executable, Options) ->
    #{
        quic_dist => [{executable, Executable} | Options],
        env => [{"QUIC_DIST_LANE_DELAY", os:getenv("QUIC_DIST_ORDER_DELAY", "20")}]
    }.

end_per_group(Group, Config) ->
    ok = quic_dist_pair:forget(Config),
    ok = quic_dist_link:close(),
    quic_dist_pair:end_group(Group, Config).

end_per_testcase(_Case, Config) ->
    case proplists:get_value(tc_status, Config) of
        ok ->
            ok;
        _ ->
            quic_dist_pair:show(Config),
            quic_dist_pair:forget(Config)
    end.

%% Rounds

%% Does rounds on the first node: calls Round there with the second node's name and the number of
%% the round, in several processes at once, whose mailboxes are empty but for what a round brings.
%% They trap exits, and are told if the connection is lost.
run(Config, Round) ->
    {A, #{node := NodeB}} = pair(Config),
    Rounds = rounds(),
    call(A, fun() -> work(NodeB, Rounds, Round) end, infinity).

work(NodeB, Rounds, Round) ->
    Workers = workers(),
    Started = [
        spawn_monitor(fun() ->
            process_flag(trap_exit, true),
            true = monitor_node(NodeB, true),
            [Round(NodeB, N) || N <- lists:seq(Worker, Rounds, Workers)],
            nothing_more()
        end)
     || Worker <- lists:seq(1, Workers)
    ],
    [
        receive
            {'DOWN', _, process, _, normal} -> ok;
            {'DOWN', _, process, _, Reason} -> exit(Reason)
        end
     || _ <- Started
    ].

nothing_more() ->
    receive
        Came -> out_of_order(nothing, Came)
    after 0 -> ok
    end.

-spec out_of_order(term(), term()) -> no_return().
out_of_order(Expected, Came) ->
    exit({out_of_order, [{expected, Expected}, {came, brief(Came)}, {later, brief(flush())}]}).

%% A term without the contents of large messages.
brief(Binary) when is_binary(Binary) -> {bytes, byte_size(Binary)};
brief(List) when is_list(List) -> [brief(Element) || Element <- List];
brief(Tuple) when is_tuple(Tuple) -> list_to_tuple(brief(tuple_to_list(Tuple)));
brief(Other) -> Other.

%% Is the message with this number large in this round?
is_large(Round, N) ->
    (Round bsr (N rem 2)) band 1 =:= 1.

content(Round, N) ->
    case is_large(Round, N) of
        true -> binary:copy(<<N>>, ?LARGE);
        false -> <<N>>
    end.

%% Sends messages 1 to Count of a round.
talk(To, Round, Count) ->
    [send(To, Round, N) || N <- lists:seq(1, Count)],
    ok.

send(To, Round, N) ->
    To ! {message, Round, N, content(Round, N)},
    ok.

%% They are the next ones, and come in order.
hear(Round, Count) ->
    [hear_one(Round, N) || N <- lists:seq(1, Count)],
    ok.

hear_one(Round, N) ->
    receive
        {message, Round, N, _} -> ok;
        Came -> out_of_order({message, Round, N}, Came)
    after scale(30000) ->
        exit({never_came, {message, Round, N}})
    end.

%% The next ones are as many messages of a round, of senders that have no order among themselves.
hear_any(Round, Count) ->
    [?next({message, Round, _, _}) || _ <- lists:seq(1, Count)],
    ok.

%% Has another local process do something, and waits until it has.
elsewhere(Fun) ->
    {Pid, Monitor} = spawn_monitor(Fun),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> ok
    end.

%% The end of a process that got everything in order.
in_order(Round) ->
    exit({in_order, Round}).

%% A name for a process of this round. Only one worker at a time uses it.
name(Round) ->
    list_to_atom("order_" ++ integer_to_list(Round rem workers())).

%% A process on Node that has the name of this round, and does something.
named(Node, Round, Fun) ->
    Self = self(),
    Name = name(Round),
    Pid = spawn(Node, fun() ->
        register(Name, self()),
        Self ! {ready, Round},
        Fun()
    end),
    ?next({ready, Round}),
    {Name, Pid}.

%% Spawns

%% The answer to a spawn_request comes before what the new process sends, and before its end.
spawn_requests(Config) ->
    run(Config, fun(NodeB, Round) ->
        Self = self(),
        Child = fun() ->
            talk(Self, Round, 3),
            in_order(Round)
        end,
        Ref = spawn_request(NodeB, Child, [monitor]),
        Pid = ?next({spawn_reply, Ref, ok, New}, New),
        hear(Round, 3),
        ?next({'DOWN', Ref, process, Pid, {in_order, Round}})
    end).

%% A process that ends at once was spawned before it was down, also if argument and reason are
%% large.
spawned_and_monitored(Config) ->
    run(Config, fun(NodeB, Round) ->
        Argument = content(Round, 1),
        Child = fun() -> exit({ended, Argument, content(Round, 2)}) end,
        {Pid, Monitor} = spawn_monitor(NodeB, Child),
        ?next({'DOWN', Monitor, process, Pid, {ended, Argument, _}})
    end).

%% A linked process that ends at once was spawned before its exit signal comes.
spawned_and_linked(Config) ->
    run(Config, fun(NodeB, Round) ->
        Argument = content(Round, 1),
        Child = fun() -> exit({ended, Argument, content(Round, 2)}) end,
        Pid = spawn_link(NodeB, Child),
        ?next({'EXIT', Pid, {ended, Argument, _}})
    end).

%% Ends

%% The last messages of a process come before its DOWN, if it is monitored by its pid.
last_messages_before_down_by_pid(Config) ->
    last_messages_before_down(Config, fun(_NodeB, _Name, Pid) -> Pid end).

%% The last messages of a process that is monitored by its name arrive before its DOWN, which does
%% not say who sends it.
last_messages_before_down_by_name(Config) ->
    last_messages_before_down(Config, fun(NodeB, Name, _Pid) -> {Name, NodeB} end).

last_messages_before_down(Config, Address) ->
    run(Config, fun(NodeB, Round) ->
        Self = self(),
        {Name, Pid} = named(NodeB, Round, fun() ->
            ?next({go, Round}),
            talk(Self, Round, 3),
            in_order(Round)
        end),
        Monitored = Address(NodeB, Name, Pid),
        Monitor = monitor(process, Monitored),
        Pid ! {go, Round},
        hear(Round, 3),
        ?next({'DOWN', Monitor, process, Monitored, {in_order, Round}})
    end).

%% Linked and unlinked and linked again, a process gets one exit signal, and only after the other's
%% messages. Either end may be the one that links.
%%
%% OTP 25 loses some of these exit signals: over inet_tcp one of 20,000, and one of 250 over a
%% channel of one stream between nodes that are a millisecond apart.
links(Config) ->
    {A, _} = pair(Config),
    call(A, fun() -> persistent_term:put({?MODULE, lost}, counters:new(1, [])) end),
    run(Config, fun(NodeB, Round) ->
        Remote = spawn(NodeB, fun() ->
            hear(Round, 3),
            in_order(Round)
        end),
        link(Remote),
        send(Remote, Round, 1),
        unlink(Remote),
        send(Remote, Round, 2),
        link(Remote),
        send(Remote, Round, 3),
        next_or_lost({'EXIT', Remote, {in_order, Round}}),
        {Trapping, Monitor} = spawn_monitor(NodeB, fun() ->
            process_flag(trap_exit, true),
            hear(Round, 3),
            ?next({'EXIT', _, {ended, Round}}),
            in_order(Round)
        end),
        spawn(fun() ->
            link(Trapping),
            talk(Trapping, Round, 2),
            unlink(Trapping),
            link(Trapping),
            send(Trapping, Round, 3),
            exit({ended, Round})
        end),
        case next_or_lost({'DOWN', Monitor, process, Trapping, {in_order, Round}}) of
            ok ->
                ok;
            lost ->
                exit(Trapping, kill),
                ?next({'DOWN', Monitor, process, Trapping, killed})
        end
    end),
    Lost = call(A, fun() -> counters:get(persistent_term:get({?MODULE, lost}), 1) end),
    Lost =< 3 + rounds() div 50 orelse exit({lost, Lost}),
    {comment, io_lib:format("~w exit signals lost", [Lost])}.

%% The next message is this one. It may also be missing, which is counted.
next_or_lost(Expected) ->
    receive
        Expected -> ok;
        Came -> out_of_order(Expected, Came)
    after scale(15000) ->
        counters:add(persistent_term:get({?MODULE, lost}), 1, 1),
        lost
    end.

%% The answer of a server that ends behind it comes before the server's DOWN, which a call takes for
%% a failure.
replies_of_a_server_that_ends(Config) ->
    run(Config, fun(NodeB, Round) ->
        {Name, Pid} = named(NodeB, Round, fun() ->
            From = ?next({'$gen_call', Caller, {Round, _}}, Caller),
            gen_server:reply(From, {reply, Round, content(Round, 2)})
        end),
        Server =
            case (Round bsr 2) band 1 of
                0 -> Pid;
                1 -> {Name, NodeB}
            end,
        try gen_server:call(Server, {Round, content(Round, 1)}, scale(30000)) of
            {reply, Round, _} -> ok
        catch
            exit:Reason -> out_of_order({reply, Round, Server}, Reason)
        end
    end).

%% Addresses

%% Messages of one process to another arrive in order, whether they are sent to its pid, its name or
%% its alias.
names_pids_and_aliases(Config) ->
    run(Config, fun(NodeB, Round) ->
        Self = self(),
        Name = name(Round),
        {Pid, Monitor} = spawn_monitor(NodeB, fun() ->
            register(Name, self()),
            Self ! {alias, Round, alias()},
            hear(Round, 9),
            in_order(Round)
        end),
        Alias = ?next({alias, Round, Ref}, Ref),
        [
            send(Address, Round, N)
         || {N, Address} <- lists:enumerate(
                lists:append(lists:duplicate(3, [Pid, {Name, NodeB}, Alias]))
            )
        ],
        ?next({'DOWN', Monitor, process, Pid, {in_order, Round}})
    end).

%% Fragmented messages of one process to two others, between small ones, arrive in order, and
%% whole.
two_receivers(Config) ->
    run(Config, fun(NodeB, Round) ->
        Started = [
            spawn_monitor(NodeB, fun() ->
                hear(Round, 6),
                in_order(Round)
            end)
         || _ <- [1, 2]
        ],
        [[send(Pid, Round, N) || {Pid, _} <- Started] || N <- lists:seq(1, 6)],
        %% They have no order between them.
        [?next({'DOWN', _, process, _, {in_order, Round}}) || _ <- Started]
    end).

%% The first messages of a new connection, which they set up, arrive in order: some are encoded
%% before it is there, and do not say who sends them.
%%
%% OTP refuses one of some thousand attempts to connect that follow the end of a connection at once,
%% over inet_tcp as well. Then all of them are lost.
first_messages(Config) ->
    {A, #{node := NodeB}} = pair(Config),
    Rounds = lists:seq(1, 1 + rounds() div 4),
    call(
        A,
        fun() ->
            Results = [first_messages(NodeB, Round) || Round <- Rounds],
            Refused = [Round || {Round, refused} <- lists:zip(Rounds, Results)],
            length(Refused) =< 1 + length(Rounds) div 1000 orelse exit({refused, Refused})
        end,
        infinity
    ).

first_messages(NodeB, Round) ->
    Receivers = [remote_receiver(NodeB, Round) || _ <- [1, 2, 3]],
    true = monitor_node(NodeB, true),
    true = erlang:disconnect_node(NodeB),
    ?next({nodedown, NodeB}),
    [spawn(fun() -> talk(Pid, Round, 12) end) || Pid <- Receivers],
    true = monitor_node(NodeB, true),
    Result = first_result(NodeB, Round, Receivers),
    true = monitor_node(NodeB, false),
    Result.

first_result(_NodeB, _Round, []) ->
    ok;
first_result(NodeB, Round, [_ | Others] = Receivers) ->
    receive
        {ended, Round, {in_order, Round}} ->
            first_result(NodeB, Round, Others);
        {nodedown, NodeB} when length(Receivers) =:= 3 ->
            [exit(Pid, kill) || Pid <- Receivers],
            [?next({ended, Round, killed}) || _ <- Receivers],
            refused;
        Came ->
            out_of_order({in_order, Round}, Came)
    end.

%% A process that expects twelve messages, and has its end reported. Nothing of it hangs on the
%% connection: it is monitored over there.
remote_receiver(NodeB, Round) ->
    Self = self(),
    spawn(NodeB, fun() ->
        {Receiver, Monitor} = spawn_monitor(fun() ->
            hear(Round, 12),
            in_order(Round)
        end),
        Self ! {receiver, Round, Receiver},
        receive
            {'DOWN', Monitor, process, Receiver, Reason} -> Self ! {ended, Round, Reason}
        end
    end),
    ?next({receiver, Round, Pid}, Pid).

%% Signals that do not name their sender

%% A message finds the group leader that another process has set before.
group_leaders(Config) ->
    run(Config, fun(NodeB, Round) ->
        Leaders = [spawn(fun() -> ok end) || _ <- lists:seq(1, 4)],
        {Pid, Monitor} = spawn_monitor(NodeB, fun() ->
            [
                begin
                    hear_one(Round, N),
                    is_led(lists:nthtail(N - 1, Leaders))
                end
             || N <- lists:seq(1, 4)
            ],
            in_order(Round)
        end),
        [
            begin
                elsewhere(fun() -> group_leader(Leader, Pid) end),
                send(Pid, Round, N)
            end
         || {N, Leader} <- lists:enumerate(Leaders)
        ],
        ?next({'DOWN', Monitor, process, Pid, {in_order, Round}})
    end).

%% The group leader is this one or a later one.
is_led(Leaders) ->
    lists:member(group_leader(), Leaders) orelse out_of_order({leader, Leaders}, group_leader()).

%% A change of the group leader does not overtake what other processes have sent before, and is not
%% overtaken by what the next one sends.
group_leader_behind_others_messages(Config) ->
    run(Config, fun(NodeB, Round) ->
        Leader = spawn(fun() -> ok end),
        {Pid, Monitor} = spawn_monitor(NodeB, fun() ->
            hear_any(Round, 3),
            ?next({led, Round}),
            is_led([Leader]),
            in_order(Round)
        end),
        [elsewhere(fun() -> send(Pid, Round, N) end) || N <- [1, 2, 3]],
        elsewhere(fun() -> group_leader(Leader, Pid) end),
        Pid ! {led, Round},
        ?next({'DOWN', Monitor, process, Pid, {in_order, Round}})
    end).

%% The DOWN of a process that is monitored by its name does not overtake what other processes have
%% sent before.
down_by_name_behind_others_messages(Config) ->
    run(Config, fun(NodeB, Round) ->
        Self = self(),
        {Name, Pid} = named(NodeB, Round, fun() ->
            ?next({go, Round}),
            [elsewhere(fun() -> send(Self, Round, N) end) || N <- [1, 2, 3]],
            in_order(Round)
        end),
        Monitor = monitor(process, {Name, NodeB}),
        Pid ! {go, Round},
        hear_any(Round, 3),
        ?next({'DOWN', Monitor, process, {Name, NodeB}, {in_order, Round}})
    end).

%% Causal order

%% A process monitors a remote one and tells another, which asks the remote node: it sees the
%% monitor there.
monitor_before_rpc(Config) ->
    run(Config, fun(NodeB, Round) ->
        Self = self(),
        Remote = spawn(NodeB, fun() -> ?next({stop, Round}) end),
        large_messages_elsewhere(NodeB, Round),
        {Watcher, Local} = spawn_monitor(fun() ->
            Monitor = monitor(process, Remote),
            Self ! {monitors, Round},
            ?next({'DOWN', Monitor, process, Remote, normal})
        end),
        ?next({monitors, Round}),
        {monitored_by, Watchers} = erpc:call(NodeB, erlang, process_info, [Remote, monitored_by]),
        Watchers =:= [Watcher] orelse
            out_of_order({monitor, Remote, Watcher}, {monitored_by, Watchers}),
        Remote ! {stop, Round},
        ?next({'DOWN', Local, process, Watcher, normal})
    end).

%% The local process groups know what a call on the remote node has changed in its process groups
%% when that call returns.
process_groups_before_rpc(Config) ->
    {A, B} = pair(Config),
    Scope = ?FUNCTION_NAME,
    [{ok, _} = quic_dist_node:call(Node, pg, start, [Scope]) || Node <- [A, B]],
    run(Config, fun(NodeB, Round) ->
        Remote = spawn(NodeB, fun() -> ?next({stop, Round}) end),
        Members = fun() ->
            %% The scope has handled what it had got.
            _ = sys:get_status(Scope),
            pg:get_members(Scope, Round)
        end,
        large_messages_elsewhere(NodeB, Round),
        ok = erpc:call(NodeB, pg, join, [Scope, Round, Remote]),
        Joined = Members(),
        Joined =:= [Remote] orelse out_of_order({join, Round, Remote}, {members, Joined}),
        ok = erpc:call(NodeB, pg, leave, [Scope, Round, Remote]),
        Left = Members(),
        Left =:= [] orelse out_of_order({leave, Round, Remote}, {members, Left}),
        Remote ! {stop, Round}
    end).

%% Others have large messages under way, in one direction or both. They are to a name that nobody
%% has.
large_messages_elsewhere(NodeB, Round) ->
    NodeA = node(),
    is_large(Round, 1) andalso spawn(fun() -> send({nobody, NodeB}, Round, 1) end),
    is_large(Round, 2) andalso spawn(NodeB, fun() -> send({nobody, NodeA}, Round, 2) end).

%% The test of the tests

%% A quicdistd that chooses lanes by the receiver's address is caught.
wrong_key(Config) ->
    Caught = [caught(Case, Config) || Case <- [names_pids_and_aliases, two_receivers]],
    ct:pal("~p", [Caught]).

caught(Case, Config) ->
    try ?MODULE:Case(Config) of
        Passed -> ct:fail({not_caught, Case, Passed})
    catch
        _:Reason ->
            quic_dist_pair:forget(Config),
            {Case, Reason}
    end.
