%% @doc Data arrives whole and in order, of every size and type and from many senders, over QUIC
%% and, by the same cases, over TCP.
-module(quic_dist_traffic_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_group/2, end_per_group/2, end_per_testcase/2]).
-export([
    every_size/1,
    every_term/1,
    order_of_1000_processes/1,
    order_to_one_receiver/1,
    order_of_names_pids_and_aliases/1,
    order_across_fragments/1,
    order_of_spawn_replies/1,
    order_of_first_messages/1,
    long_first_messages/1,
    long_first_messages_in_every_mode/1,
    causal_order/1,
    big_messages_both_ways/1,
    mixed_traffic/1
]).

-include_lib("stdlib/include/assert.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_node, [call/2, call/3, call/4, cast/2, connect/2, name/1, tell/2]).
-import(quic_dist_pair, [pair/1, with_nodes/3]).
-import(quic_dist_remote, [ask_echo/2, disconnect/1]).
-import(quic_dist_wait, [scale/1]).

-define(MB, 1048576).

suite() ->
    [{ct_hooks, [{quic_dist_hooks, nodes_stay}]}, {timetrap, scale(90000)}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    Cases = [
        every_size,
        every_term,
        order_of_1000_processes,
        order_to_one_receiver,
        order_of_names_pids_and_aliases,
        order_across_fragments,
        order_of_spawn_replies,
        order_of_first_messages,
        long_first_messages,
        causal_order,
        big_messages_both_ways,
        mixed_traffic
    ],
    quic_dist_pair:groups(Cases, #{quic => [long_first_messages_in_every_mode]}).

init_per_group(Group, Config) ->
    quic_dist_pair:init_group(Group, Config).

end_per_group(Group, Config) ->
    quic_dist_pair:end_group(Group, Config).

end_per_testcase(Case, Config) ->
    quic_dist_pair:end_case(Case, Config).

%% Binaries of all sizes from 0 bytes to 100 MB, with those around the limits of fragments
%% (64 KB) and of our frames (256 KB), come back as they went.
every_size(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Small = [0, 1, 2, 63, 64, 65, 255, 256, 257, 1000, 1399, 1400, 4095, 4096, 16384],
    Limits = [65536, 2 * 65536, 262144],
    Around = [Limit + D || Limit <- Limits, D <- [-200, -66, -18, -1, 0, 1, 18]],
    Large = [?MB, 3 * ?MB + 1, 10 * ?MB],
    call(
        A,
        fun() ->
            Echo = spawn_link(NodeB, fun quic_dist_remote:echo/0),
            [round_trip(Echo, crypto:strong_rand_bytes(Size)) || Size <- Small ++ Around ++ Large],
            %% Pseudo-random is enough, and takes less time.
            Seed = crypto:strong_rand_bytes(?MB),
            Huge = iolist_to_binary([[<<N:64>>, Seed] || N <- lists:seq(1, 100)]),
            ?assert(byte_size(Huge) >= 100000000),
            round_trip(Echo, Huge),
            unlink(Echo),
            exit(Echo, kill)
        end,
        80000
    ).

round_trip(Echo, Term) ->
    Ref = make_ref(),
    Md5 = erlang:md5(term_to_binary(Term)),
    Echo ! {self(), Ref, Term},
    {There, Back} = ?recv({Ref, Hash, Back}, {Hash, Back}, 60000),
    ?assertEqual(Md5, There),
    ?assert(Term =:= Back),
    erlang:garbage_collect().

%% Terms of every type come back equal.
every_term(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Echo = spawn_link(NodeB, fun quic_dist_remote:echo/0),
        X = 7,
        Numbers = [0, -1, 1 bsl 28, -(1 bsl 64), 1 bsl 4096, 1.5, -0.0],
        Lists = [[], [a | b], lists:seq(1, 70000), "text", lists:duplicate(10000, {a, b})],
        Tuples = [{}, list_to_tuple(lists:seq(1, 300)), nested(5000)],
        Maps = [#{}, maps:from_list([{N, integer_to_list(N)} || N <- lists:seq(1, 1000)])],
        Bits = [<<>>, <<1:3>>, <<0:77>>],
        Handles = [self(), Echo, make_ref(), alias(), hd(erlang:ports()), fun lists:map/2],
        Atom = fun(N) -> list_to_atom("atom_" ++ integer_to_list(N)) end,
        Atoms = [a, '', 'ä€' | lists:map(Atom, lists:seq(1, 3000))],
        [
            round_trip(Echo, Term)
         || Term <- lists:append([Numbers, Lists, Tuples, Maps, Bits, Handles, Atoms])
        ],
        Fun = fun(Y) -> X + Y end,
        ?assertEqual(12, (ask_echo(Echo, Fun))(5)),
        unlink(Echo),
        exit(Echo, kill)
    end).

nested(0) -> [];
nested(N) -> {N, [nested(N - 1)]}.

%% A thousand processes send at once, small and large messages, each to a partner of its own. Each
%% partner gets all of them, whole and in order.
order_of_1000_processes(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    %% OTP 27 has been seen to fail where many processes make it load a module at once.
    {module, ?MODULE} = call(B, code, ensure_loaded, [?MODULE]),
    call(
        A,
        fun() ->
            Self = self(),
            Senders = [
                spawn_link(fun() ->
                    Receiver = spawn_link(NodeB, fun() -> receiver(40) end),
                    receive go -> ok end,
                    [Receiver ! message(N, size(N, Nr)) || N <- lists:seq(1, 40)],
                    Receiver ! {report, self()},
                    ?recv({all, 40}, ok, 60000),
                    Self ! {done, self()}
                end)
             || Nr <- lists:seq(1, 1000)
            ],
            [Sender ! go || Sender <- Senders],
            [?recv({done, Sender}, ok, 60000) || Sender <- Senders],
            ok
        end,
        80000
    ).

size(20, Nr) when Nr rem 20 =:= 0 -> 100000 + Nr;
size(N, Nr) -> (N * 7919 + Nr * 104729) rem 1500.

message(N, Size) ->
    Content = rand:bytes(Size),
    {N, erlang:crc32(Content), Content}.

%% Gets messages 1 to Count in order and unharmed, then says so.
receiver(Count) -> receiver(1, Count).

receiver(N, Count) when N =< Count ->
    receive
        {N, Crc, Content} ->
            Crc = erlang:crc32(Content),
            receiver(N + 1, Count);
        Other ->
            exit({out_of_order, N, element(1, Other)})
    end;
receiver(_, Count) ->
    receive
        {report, To} ->
            To ! {all, Count},
            unlink(To)
    end.

%% A hundred processes send to one receiver. It gets all messages, and those of each sender in
%% order.
order_to_one_receiver(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        {Receiver, Monitor} = spawn_monitor(NodeB, fun() ->
            Last = from_many(#{}, 100 * 200),
            ?assertEqual(lists:duplicate(100, 200), maps:values(Last)),
            exit(all_in_order)
        end),
        [
            spawn_link(fun() ->
                [Receiver ! {Nr, N, rand:bytes(N)} || N <- lists:seq(1, 200)],
                Self ! {sent, Nr},
                unlink(Self)
            end)
         || Nr <- lists:seq(1, 100)
        ],
        [?recv({sent, Nr}, ok, 30000) || Nr <- lists:seq(1, 100)],
        ?recv({'DOWN', Monitor, process, Receiver, all_in_order}, ok, 30000)
    end).

from_many(Last, 0) ->
    Last;
from_many(Last, Left) ->
    receive
        {Nr, N, Content} when byte_size(Content) =:= N ->
            ?assertEqual({Nr, maps:get(Nr, Last, 0) + 1}, {Nr, N}),
            from_many(Last#{Nr => N}, Left - 1)
    end.

%% One process sends to another by pid, name and alias, and sends exit signals. All of it arrives
%% in the order in which it was sent.
order_of_names_pids_and_aliases(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        {Receiver, _} = spawn_monitor(NodeB, fun() ->
            process_flag(trap_exit, true),
            register(order_of_names, self()),
            Self ! {alias, alias()},
            mixed(1, 600)
        end),
        Alias = ?recv({alias, Ref}, Ref),
        Send = fun
            (N) when N rem 6 =:= 0 -> exit(Receiver, {nr, N});
            (N) when N rem 6 =:= 1 -> Receiver ! {nr, N};
            (N) when N rem 6 =:= 2 -> {order_of_names, NodeB} ! {nr, N};
            (N) when N rem 6 =:= 3 -> Alias ! {nr, N};
            (N) when N rem 6 =:= 4 -> Receiver ! {nr, N, rand:bytes(70000)};
            (N) when N rem 6 =:= 5 -> {order_of_names, NodeB} ! {nr, N, rand:bytes(300000)}
        end,
        lists:foreach(Send, lists:seq(1, 600)),
        ?recv({'DOWN', _, process, Receiver, all_in_order}, ok, 30000)
    end).

mixed(N, Last) when N > Last -> exit(all_in_order);
mixed(N, Last) ->
    receive
        {nr, N} -> mixed(N + 1, Last);
        {nr, N, _} -> mixed(N + 1, Last);
        {'EXIT', _, {nr, N}} -> mixed(N + 1, Last);
        Other -> exit({expected, N, got, element(2, Other)})
    end.

%% Small messages that follow large, fragmented ones do not overtake them, to one receiver and to
%% several. Messages of other senders arrive meanwhile.
order_across_fragments(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Sizes = [10, 200000, 5, 1000000, 0, 70000, 3000000, 1, 65536, 131072, 7],
        Senders = [
            spawn_monitor(fun() ->
                Receivers = [spawn_link(NodeB, fun() -> receiver(11 * 3) end) || _ <- [1, 2, 3]],
                [
                    begin
                        Message = message(N, Size),
                        [Receiver ! Message || Receiver <- Receivers]
                    end
                 || {N, Size} <- lists:enumerate(Sizes ++ Sizes ++ Sizes)
                ],
                [Receiver ! {report, self()} || Receiver <- Receivers],
                [?recv({all, 33}, ok, 60000) || _ <- Receivers]
            end)
         || _ <- [1, 2, 3]
        ],
        [?recv({'DOWN', M, process, P, normal}, ok, 60000) || {P, M} <- Senders]
    end).

%% The answer to a spawn comes before anything that the new process sends, its end included.
order_of_spawn_replies(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        process_flag(trap_exit, true),
        Self = self(),
        [
            begin
                Ref = spawn_request(NodeB, fun() -> Self ! {hello, N} end, [monitor, link]),
                Pid = ?recv({_, _, _, _} = First, begin
                    {spawn_reply, Ref, ok, New} = First,
                    New
                end),
                ?recv({_, _} = Second, {hello, N} = Second),
                ?recv({'DOWN', Ref, process, Pid, normal}),
                ?recv({'EXIT', Pid, normal})
            end
         || N <- lists:seq(1, 300)
        ],
        ok
    end).

%% The first messages after the loss of a connection set it up, and all of them arrive in order,
%% big ones too.
order_of_first_messages(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        [
            begin
                Receiver = spawn(NodeB, fun() -> receiver(30) end),
                disconnect(NodeB),
                [Receiver ! message(N, first_size(N)) || N <- lists:seq(1, 30)],
                Receiver ! {report, self()},
                ?recv({all, 30})
            end
         || _ <- lists:seq(1, 20)
        ],
        ok
    end).

first_size(15) -> 500000;
first_size(N) -> 10 * N.

%% Messages of any size that are sent while the connection is being set up arrive, although the
%% emulator makes one frame of each. What a sender sends next arrives behind them.
long_first_messages(Config) ->
    long_first_messages_between(pair(Config), fun long_terms/0).

%% Long first messages arrive in every mode of streams, and over several connections.
long_first_messages_in_every_mode(Config) ->
    [
        with_nodes(Config, [#{quic_dist => Options}, #{quic_dist => Options}], fun([A, B]) ->
            connect(A, B),
            long_first_messages_between({A, B}, fun few_long_terms/0)
        end)
     || Options <- [
            [{streams, single}],
            [{streams, sender}, {lanes, 3}],
            [{streams, sender}, {connections, 2}],
            [{streams, bulk}, {connections, 3}]
        ]
    ],
    ok.

few_long_terms() ->
    [binary:copy(<<1>>, N) || N <- [12_000_000, 4 * ?MB - 200, 4 * ?MB + 200]].

long_terms() ->
    Deep = lists:foldl(fun(_, Acc) -> {Acc} end, [], lists:seq(1, 1000)),
    Captured = binary:copy(<<2>>, 5 * ?MB),
    [
        binary:copy(<<1>>, 25_000_000),
        <<(binary:copy(<<3>>, 6 * ?MB))/binary, 5:3>>,
        lists:duplicate(3_000_000, 7),
        fun() -> {Captured, Deep} end,
        {Deep, binary:copy(<<4>>, 4 * ?MB)},
        %% Around the longest frame that goes anywhere.
        binary:copy(<<5>>, 4 * ?MB - 200),
        binary:copy(<<6>>, 4 * ?MB + 200)
    ].

%% The terms are made on the node: what goes there by its standard input goes slowly.
long_first_messages_between({A, B}, MakeTerms) ->
    NodeB = name(B),
    call(A, fun() ->
        Here = self(),
        Terms = MakeTerms(),
        Receiver = spawn(NodeB, fun() -> hashes() end),
        disconnect(NodeB),
        Senders = [
            {N, spawn_link(fun() -> [Receiver ! {N, I, Here, Term} || I <- [1, 2]] end), Term}
         || {N, Term} <- lists:enumerate(Terms ++ lists:reverse(Terms))
        ],
        lists:foreach(
            fun({N, _, Term}) ->
                Hash = erlang:phash2(Term),
                [?recv({N, I, Hash}, ok, 60000) || I <- [1, 2]]
            end,
            Senders
        ),
        exit(Receiver, kill),
        ok
    end, 80000).

%% Tells of each message what it is, in the order of each sender.
hashes() ->
    receive
        {N, I, Report, Term} -> Report ! {N, I, erlang:phash2(Term)}
    end,
    erlang:garbage_collect(),
    hashes().

%% Small messages keep the order across three processes that one TCP connection happens to give:
%% what a process sends before it tells another one arrives before what that one sends.
causal_order(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    call(A, fun() ->
        Self = self(),
        Receiver = spawn_link(NodeB, fun() -> in_sequence(1, 5000, Self) end),
        Second = spawn_link(fun() -> relay(Receiver) end),
        [
            begin
                Receiver ! {nr, N},
                Second ! {nr, N + 1, Self},
                receive {told, Second} -> ok end
            end
         || N <- lists:seq(1, 5000, 2)
        ],
        ?recv({in_sequence, Receiver}),
        unlink(Second),
        exit(Second, kill)
    end).

relay(Receiver) ->
    receive
        {nr, N, From} ->
            Receiver ! {nr, N},
            From ! {told, self()},
            relay(Receiver)
    end.

in_sequence(N, Last, To) when N > Last ->
    To ! {in_sequence, self()},
    unlink(To);
in_sequence(N, Last, To) ->
    receive
        {nr, N} -> in_sequence(N + 1, Last, To);
        {nr, Other} -> exit({expected, N, got, Other})
    end.

%% Large messages in both directions at once arrive unharmed, and neither direction blocks the
%% other for ever.
big_messages_both_ways(Config) ->
    {A, B} = pair(Config),
    NodeA = name(A),
    NodeB = name(B),
    Run = fun(To) ->
        fun() ->
            Pairs = [
                spawn_monitor(fun() ->
                    Receiver = spawn_link(To, fun() -> receiver(6) end),
                    [Receiver ! message(N, 5 * ?MB + N) || N <- lists:seq(1, 6)],
                    Receiver ! {report, self()},
                    ?recv({all, 6}, ok, 60000)
                end)
             || _ <- [1, 2]
            ],
            [?recv({'DOWN', M, process, P, normal}, ok, 60000) || {P, M} <- Pairs],
            done
        end
    end,
    Self = self(),
    cast(A, fun() -> tell(Self, {a, (Run(NodeB))()}) end),
    cast(B, fun() -> tell(Self, {b, (Run(NodeA))()}) end),
    ?recv({a, done}, ok, 70000),
    ?recv({b, done}, ok, 70000).

%% Calls, spawns, monitors, links, large messages and many small ones all work at once, for three
%% seconds.
mixed_traffic(Config) ->
    {A, B} = pair(Config),
    NodeB = name(B),
    Counts = call(A, fun() ->
        Until = erlang:monotonic_time(millisecond) + 3000,
        Work = [
            fun() -> NodeB = erpc:call(NodeB, erlang, node, []) end,
            fun() ->
                {P, M} = spawn_monitor(NodeB, fun() -> exit(bye) end),
                ?recv({'DOWN', M, process, P, bye}, ok, 30000)
            end,
            fun() ->
                process_flag(trap_exit, true),
                P = spawn_link(NodeB, fun() -> receive die -> exit(died) end end),
                P ! die,
                ?recv({'EXIT', P, died}, ok, 30000)
            end,
            fun() ->
                Receiver = spawn_link(NodeB, fun() -> receiver(100) end),
                [Receiver ! message(N, 100) || N <- lists:seq(1, 100)],
                Receiver ! {report, self()},
                ?recv({all, 100}, ok, 30000)
            end,
            fun() ->
                Receiver = spawn_link(NodeB, fun() -> receiver(2) end),
                [Receiver ! message(N, 2 * ?MB) || N <- [1, 2]],
                Receiver ! {report, self()},
                ?recv({all, 2}, ok, 30000)
            end,
            fun() -> pong = net_adm:ping(NodeB) end,
            fun() ->
                Bin = rand:bytes(100000),
                {ok, Bin} = {ok, erpc:call(NodeB, erlang, iolist_to_binary, [[Bin]])}
            end
        ],
        Workers = [
            spawn_monitor(fun() -> exit({rounds, Nr, repeat(Job, Until, 0)}) end)
         || {Nr, Job} <- lists:enumerate(Work), _ <- [1, 2, 3]
        ],
        [?recv({'DOWN', M, process, P, {rounds, Nr, N}}, {Nr, N}, 60000) || {P, M} <- Workers]
    end),
    ct:log("rounds of each kind of work: ~p", [Counts]),
    [?assert(N > 0, {kind_of_work, Nr}) || {Nr, N} <- Counts],
    ok.

repeat(Job, Until, N) ->
    case erlang:monotonic_time(millisecond) < Until of
        true ->
            _ = Job(),
            repeat(Job, Until, N + 1);
        false ->
            N
    end.
