%% @doc Links that lose their QUIC connections, for suites: pairs of nodes with a relay between
%% them, faults of relays at random moments, and conversations of which nothing may be lost.
%%
%% Of a pair A dials, through the relay. B is the acceptor. B cannot dial A through the relay.
-module(quic_dist_outage).

-export([pair/1, pair/2, node_at/4, again/3, no_nodedown/0]).
-export([nothing_is_lost/3, unrest/2, talk/2]).

-include_lib("stdlib/include/assert.hrl").
-include("quic_dist_recv.hrl").

-import(quic_dist_case, [start/2]).
-import(quic_dist_node, [call/2, call/4, connects/2, name/1, tell/2]).
-import(quic_dist_run, [free_port/0, port_name/1]).
-import(quic_dist_wait, [flush/0]).
-import(quic_dist_watch, [watch/1]).

-type config() :: [{atom(), term()}].
-type pair() :: {A :: quic_dist_node:t(), B :: quic_dist_node:t(), quic_dist_relay:t()}.

%% Nodes

%% @doc pair/2 without further options.
-spec pair(config()) -> pair().
pair(Config) -> pair(Config, #{}).

%% @doc Two connected nodes with a relay between them. Their lost nodes are told to the caller.
-spec pair(config(), quic_dist_node:start_options()) -> pair().
pair(Config, Options) ->
    Port = free_port(),
    Relay = quic_dist_relay:start(Port),
    B = node_at(Config, Port, [], Options),
    A = node_at(Config, free_port(), [{B, Relay}], Options),
    connects(A, B),
    watch(A),
    watch(B),
    {A, B, Relay}.

%% @doc A node with this UDP port that finds peers through relays.
-spec node_at(Config, Port, Peers, Options) -> quic_dist_node:t() when
    Config :: config(),
    Port :: inet:port_number(),
    Peers :: [{quic_dist_node:t(), quic_dist_relay:t()}],
    Options :: quic_dist_node:start_options().
node_at(Config, Port, Peers, Options) ->
    Nodes = [{name(Peer), "127.0.0.1", quic_dist_relay:port(Relay)} || {Peer, Relay} <- Peers],
    start(Config, Options#{
        name => {long, port_name(Port)},
        args => ["-no_epmd"],
        quic_dist => [{nodes, Nodes} | maps:get(quic_dist, Options, [])]
    }).

%% @doc The node that a pair's A or B is when it is started again: its name is the same.
-spec again(config(), quic_dist_node:t(), [{quic_dist_node:t(), quic_dist_relay:t()}]) ->
    quic_dist_node:t().
again(Config, #{node := Name}, Peers) ->
    {Port, "@" ++ _} = string:to_integer(atom_to_list(Name)),
    Node = node_at(Config, Port, Peers, #{}),
    watch(Node),
    Node.

%% @doc Asserts that the caller has been told of no nodedown.
-spec no_nodedown() -> ok.
no_nodedown() ->
    ?assertEqual([], [Down || Down <- flush(), element(1, Down) =:= nodedown]).

%% @doc Asserts that messages of several senders in both directions arrive once each, and in the
%% order of each sender, while connections are lost at random moments for so many ms.
-spec nothing_is_lost(config(), QuicDist :: [{atom(), term()}], Time :: non_neg_integer()) -> ok.
nothing_is_lost(Config, Options, Time) ->
    {A, B, Relay} = pair(Config, #{quic_dist => Options}),
    Stop = talk(A, B),
    unrest([Relay], Time),
    Counts = Stop(),
    no_nodedown(),
    Conversations = quic_dist_relay:conversations(Relay),
    ct:log("messages: ~w, conversations: ~b", [Counts, Conversations]),
    ?assert(Conversations >= 2).

%% Faults

%% @doc Lets relays fail, first all of them and then at random moments for so many ms. All new flows
%% pass afterwards.
-spec unrest([quic_dist_relay:t()], Time :: non_neg_integer()) -> ok.
unrest(Relays, Time) ->
    _ = rand:seed(exsss),
    ct:log("seed: ~p", [rand:export_seed()]),
    lists:foreach(fun quic_dist_relay:forget/1, Relays),
    unrest_until(Relays, erlang:monotonic_time(millisecond) + Time).

unrest_until(Relays, Deadline) ->
    timer:sleep(50 + rand:uniform(1500)),
    case quic_dist_wait:left(Deadline) of
        0 ->
            ct:log("healed"),
            lists:foreach(fun quic_dist_relay:heal/1, Relays);
        _ ->
            Faults = [forget, forget, mute, deafen, rebind, cut, forget_and_cut],
            Fault = lists:nth(rand:uniform(length(Faults)), Faults),
            ct:log("~w", [Fault]),
            ok = fail(Fault, lists:nth(rand:uniform(length(Relays)), Relays)),
            unrest_until(Relays, Deadline)
    end.

fail(forget, Relay) ->
    quic_dist_relay:forget(Relay);
fail(mute, Relay) ->
    quic_dist_relay:mute(Relay);
fail(deafen, Relay) ->
    quic_dist_relay:deafen(Relay);
fail(rebind, Relay) ->
    quic_dist_relay:rebind(Relay);
fail(cut, Relay) ->
    quic_dist_relay:cut(Relay, rand:uniform(500));
fail(forget_and_cut, Relay) ->
    ok = quic_dist_relay:forget(Relay),
    quic_dist_relay:cut(Relay, rand:uniform(500)).

%% Conversations

%% @doc Three senders on each node send to receivers on the other, until the fun is called that this
%% returns. It waits until all messages have arrived, asserts that, and returns their numbers.
-spec talk(quic_dist_node:t(), quic_dist_node:t()) -> fun(() -> {complete, [pos_integer()]}).
talk(A, #{node := NodeB}) ->
    Test = self(),
    Conductor = call(A, fun() -> spawn(fun() -> conduct(Test, NodeB) end) end),
    ?recv({Conductor, talking}),
    fun() ->
        _ = call(A, erlang, send, [Conductor, stop]),
        ?recv({Conductor, Result}, {complete, _} = Result, 20000)
    end.

%% On node A.
conduct(Test, NodeB) ->
    ToB = receivers(NodeB, self()),
    ToA = receivers(node(), self()),
    Senders = senders(node(), ToB) ++ senders(NodeB, ToA),
    tell(Test, {self(), talking}),
    receive
        stop -> [Sender ! stop || Sender <- Senders];
        {'DOWN', _, _, _, _} = Down -> self() ! Down
    end,
    tell(Test, {self(), completed(length(ToA ++ ToB), [])}).

%% The first is for all three senders, each other for one.
receivers(Node, Conductor) ->
    [
        element(1, spawn_monitor(Node, fun() -> take(Conductor, Senders, #{}, 0) end))
     || Senders <- [3, 1, 1, 1]
    ].

senders(Node, [Shared | Own]) ->
    [
        element(1, spawn_monitor(Node, fun() -> send_on(Nr, [Pid, Shared], 1) end))
     || {Nr, Pid} <- lists:enumerate(Own)
    ].

completed(0, Counts) ->
    {complete, Counts};
completed(Left, Counts) ->
    receive
        {complete, Count} -> completed(Left - 1, [Count | Counts]);
        {'DOWN', _, _, _, normal} -> completed(Left, Counts);
        {'DOWN', _, _, Pid, Reason} -> {failed, Pid, Reason}
    end.

send_on(Nr, Pids, N) ->
    Content = rand:bytes(bytes(N)),
    Message = {Nr, N, erlang:crc32(Content), Content},
    [Pid ! Message || Pid <- Pids],
    receive
        stop -> [Pid ! {last, Nr, N} || Pid <- Pids]
    after pause(N) -> send_on(Nr, Pids, N + 1)
    end.

bytes(N) when N rem 150 =:= 0 -> 500000;
bytes(N) when N rem 40 =:= 0 -> 70000;
bytes(N) -> N * 7919 rem 1500.

pause(N) when N rem 10 =:= 0 -> 40;
pause(_) -> 0.

take(Conductor, 0, _, Count) ->
    %% Nothing comes behind the last.
    receive
        Other -> exit({unexpected, element(1, Other), element(2, Other)})
    after 100 -> Conductor ! {complete, Count}
    end;
take(Conductor, Senders, Last, Count) ->
    receive
        {last, Nr, N} ->
            {Nr, N} = {Nr, maps:get(Nr, Last)},
            take(Conductor, Senders - 1, Last, Count);
        {Nr, N, Crc, Content} ->
            {Nr, N, Crc} = {Nr, maps:get(Nr, Last, 0) + 1, erlang:crc32(Content)},
            take(Conductor, Senders, Last#{Nr => N}, Count + 1)
    end.
