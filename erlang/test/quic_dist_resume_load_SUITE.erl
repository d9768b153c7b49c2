%% @doc Links outlive their QUIC connections under load: in every mode, and with an application that
%% does not forgive a lost node or message. `make resume' runs it.
-module(quic_dist_resume_load_SUITE).

-export([suite/0, all/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    mode_single/1,
    mode_bulk/1,
    mode_sender/1,
    three_connections/1,
    mnesia_transactions/1
]).

-include_lib("stdlib/include/assert.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_node, [call/2, connects/2, name/1, tell/2]).
-import(quic_dist_outage, [node_at/4, nothing_is_lost/3, unrest/2]).
-import(quic_dist_run, [free_port/0]).
-import(quic_dist_wait, [flush/0, scale/1, wait_until/2]).

%% How long connections are lost at random moments, in ms.
-define(UNREST, 6000).

%% Tables of Mnesia: balances, and how many transfers each process has made.
-define(ACCOUNT, quic_dist_resume_account).
-define(COMMITS, quic_dist_resume_commits).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(60000)}, {userdata, by_name}].

all() ->
    [mode_single, mode_bulk, mode_sender, three_connections, mnesia_transactions].

init_per_testcase(Case, Config) ->
    quic_dist_case:of_case(Case, Config).

end_per_testcase(Case, Config) ->
    quic_dist_case:end_case(Case, Config).

%% Nothing is lost while connections are lost at random moments, whichever order the nodes keep.
mode_single(Config) -> nothing_is_lost(Config, [{streams, single}], ?UNREST).

mode_bulk(Config) -> nothing_is_lost(Config, [{streams, bulk}], ?UNREST).

mode_sender(Config) -> nothing_is_lost(Config, [{streams, sender}], ?UNREST).

%% Nor is it if a link has several connections.
three_connections(Config) ->
    nothing_is_lost(Config, [{streams, sender}, {connections, 3}], ?UNREST).

%% Mnesia on three nodes goes through the loss of every link's connections and a cut of three
%% seconds: no node takes another for lost, and all have the same tables afterwards.
mnesia_transactions(Config) ->
    {Nodes, Relays} = three(Config),
    Names = lists:sort([name(Node) || Node <- Nodes]),
    call(hd(Nodes), fun() -> create(Names) end),
    Test = self(),
    [call(Node, fun() -> start_bank(Test) end) || Node <- Nodes],
    unrest(Relays, ?UNREST),
    lists:foreach(fun(Relay) -> quic_dist_relay:cut(Relay, 3000) end, Relays),
    timer:sleep(3000),
    Counts = lists:append([call(Node, fun() -> stop_bank() end) || Node <- Nodes]),
    Conversations = [quic_dist_relay:conversations(Relay) || Relay <- Relays],
    ct:log("transactions: ~p, conversations: ~p", [Counts, Conversations]),
    %% Each link has lost connections.
    ?assert(lists:min(Conversations) >= 2),
    %% The last transactions reach the other nodes later than their own.
    Expected = lists:sort(Counts),
    lists:foreach(
        fun(Node) ->
            wait_until({transactions, Node, Expected}, fun() ->
                Table = call(Node, fun() -> lists:sort(ets:tab2list(?COMMITS)) end),
                Table =:= [{?COMMITS, Key, Count} || {Key, Count} <- Expected] orelse Table
            end)
        end,
        Nodes
    ),
    [Accounts | Others] = [
        call(Node, fun() -> lists:sort(ets:tab2list(?ACCOUNT)) end)
     || Node <- Nodes
    ],
    ?assertEqual([Accounts, Accounts], Others),
    ?assertEqual(0, lists:sum([Balance || {_, _, Balance} <- Accounts])),
    [?assertEqual(Names, call(Node, fun() -> running() end)) || Node <- Nodes],
    ?assertEqual([], [
        Message
     || Message <- flush(),
        element(1, Message) =:= nodedown orelse is_bad(Message)
    ]).

%% Three nodes, with a relay between each two of them.
three(Config) ->
    [PortA, PortB, PortC] = [free_port() || _ <- [a, b, c]],
    Relays = [AB, AC, BC] = [quic_dist_relay:start(Port) || Port <- [PortB, PortC, PortC]],
    C = node_at(Config, PortC, [], #{}),
    B = node_at(Config, PortB, [{C, BC}], #{}),
    A = node_at(Config, PortA, [{B, AB}, {C, AC}], #{}),
    [connects(From, To) || {From, To} <- [{A, B}, {A, C}, {B, C}]],
    lists:foreach(fun quic_dist_watch:watch/1, [A, B, C]),
    {[A, B, C], Relays}.

%% These functions run on the nodes.
create(Names) ->
    [ok = erpc:call(Name, mnesia, start, []) || Name <- Names],
    {ok, _} = mnesia:change_config(extra_db_nodes, Names -- [node()]),
    [
        {atomic, ok} = mnesia:create_table(Table, [{ram_copies, Names}])
     || Table <- [?ACCOUNT, ?COMMITS]
    ],
    [ok = erpc:call(Name, mnesia, wait_for_tables, [[?ACCOUNT, ?COMMITS], 10000]) || Name <- Names],
    {atomic, _} = mnesia:transaction(fun() ->
        [ok = mnesia:write({?ACCOUNT, N, 0}) || N <- lists:seq(1, 10)]
    end),
    ok.

running() -> lists:sort(mnesia:system_info(running_db_nodes)).

start_bank(Test) ->
    Self = self(),
    spawn(fun() ->
        {ok, _} = mnesia:subscribe(system),
        Self ! subscribed,
        forward(Test)
    end),
    ?recv(subscribed),
    [true = register(clerk(N), spawn(fun() -> transfer(N, 0) end)) || N <- [1, 2]],
    ok.

stop_bank() ->
    [
        begin
            clerk(N) ! {stop, self()},
            ?recv({{_, N}, _} = Count, Count, 20000)
        end
     || N <- [1, 2]
    ].

clerk(N) -> list_to_atom("clerk_" ++ integer_to_list(N)).

transfer(Nr, Done) ->
    receive
        {stop, From} -> From ! {{node(), Nr}, Done}
    after 2 ->
        [From, To] = [rand:uniform(10) || _ <- [from, to]],
        {atomic, ok} = mnesia:transaction(fun() ->
            add(From, -1),
            add(To, 1),
            mnesia:write({?COMMITS, {node(), Nr}, Done + 1})
        end),
        transfer(Nr, Done + 1)
    end.

add(Account, Amount) ->
    [{_, _, Balance}] = mnesia:read(?ACCOUNT, Account, write),
    ok = mnesia:write({?ACCOUNT, Account, Balance + Amount}).

is_bad({mnesia_system_event, {mnesia_overload, _}}) -> false;
is_bad({mnesia_system_event, _}) -> true;
is_bad(_) -> false.

forward(Test) ->
    receive
        Message -> tell(Test, Message)
    end,
    forward(Test).
