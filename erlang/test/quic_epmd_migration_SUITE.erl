%% @doc The recipe of docs/MIGRATION.md, rehearsed: three nodes of a cluster over TCP are restarted
%% one after the other until all have QUIC, and back, while every node sends to every other one. No
%% message of a pair of processes is lost as long as the link between their nodes stays up, and
%% after each restart every node is connected to every other one again, by the carrier that the
%% recipe says.
-module(quic_epmd_migration_SUITE).

-export([all/0, suite/0]).
-export([there_and_back/1, there_and_back_without_epmd/1]).
%% on the nodes
-export([sink/0, sender/2]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-import(quic_dist_node, [call/2]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/3]).

%% It takes a minute, and runs where somebody names it, as `make migration' does.
suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(120000)}, {userdata, by_name}].

all() ->
    [there_and_back, there_and_back_without_epmd].

%% The nodes have OTP's epmd, as they had before.
there_and_back(_Config) ->
    Ours = ["-epmd_module", "quic_epmd", "-quic_dist", "discovery", "epmd"],
    migrate(
        {inet_tcp, []},
        {[quic, inet_tcp], Ours},
        {quic, Ours}
    ).

%% The nodes had the registry in place of epmd before already.
there_and_back_without_epmd(_Config) ->
    Ours = [
        "-start_epmd", "false", "-epmd_module", "quic_epmd",
        "-quic_dist", "name_port", integer_to_list(quic_dist_run:free_port())
    ],
    migrate(
        {inet_tcp, Ours},
        {[quic, inet_tcp], Ours},
        {quic, Ours}
    ).

migrate(Before, Between, After) ->
    Names = [unique(N) ++ "@127.0.0.1" || N <- ["a", "b", "c"]],
    Nodes1 = maps:from_list([{Name, begin_load(start(Before, Name), Names)} || Name <- Names]),
    connected(Nodes1),
    Nodes = lists:foldl(
        fun(Stage, Acc0) ->
            lists:foldl(fun(Name, Acc) -> restart(Stage, Name, Names, Acc) end, Acc0, Names)
        end,
        Nodes1,
        [Between, After, Between, Before]
    ),
    [lossless(Node) || {_, {Node, _}} <- maps:to_list(Nodes)],
    ok.

%% A stage of the recipe, for one node.
restart(Stage, Name, Names, Nodes0) ->
    {Node, _} = maps:get(Name, Nodes0),
    lossless(Node),
    quic_dist_node:stop(Node),
    Nodes = Nodes0#{Name := begin_load(start(Stage, Name), Names)},
    connected(Nodes),
    Nodes.

start({Carrier, Args} = Stage, Name) ->
    Node = quic_dist_node:start(#{carrier => Carrier, name => {long, Name}, args => Args}),
    {Node, Stage}.

%% Each node sends to each other one from now on, and counts what comes.
begin_load({Node, _} = Started, Names) ->
    Peers = [list_to_atom(Name) || Name <- Names, list_to_atom(Name) =/= maps:get(node, Node)],
    call(Node, fun() ->
        Sink = spawn(?MODULE, sink, []),
        [spawn(?MODULE, sender, [Sink, Peer]) || Peer <- Peers],
        ok
    end),
    Started.

%% Every node hears of every other one, over the carrier that both have.
connected(Nodes) ->
    All = maps:values(Nodes),
    [
        wait_until(
            {connected, maps:get(node, Node), maps:get(node, To), Expected},
            fun() -> heard(Node, To, Expected) end,
            30000
        )
     || {Node, Stage} <- All,
        {To, Other} <- All,
        Node =/= To,
        Expected <- [expected(Stage, Other)]
    ].

expected({One, _}, {Other, _}) ->
    case lists:member(quic, carriers(One)) andalso lists:member(quic, carriers(Other)) of
        true -> quic;
        false -> tcp
    end.

carriers(Carriers) when is_list(Carriers) -> Carriers;
carriers(Carrier) -> [Carrier].

%% That a message has come since we began to ask, over the protocol that is expected.
heard(Node, #{node := From}, Expected) ->
    call(Node, fun() ->
        case net_kernel:node_info(From) of
            {ok, Info} ->
                Protocol = (proplists:get_value(address, Info))#net_address.protocol,
                Count = ask(From),
                receive after 50 -> ok end,
                Protocol =:= Expected andalso ask(From) > Count;
            {error, _} ->
                false
        end
    end).

%% Nothing was missing in what a node has got.
lossless(Node) ->
    {Counts, Gaps} = call(Node, fun() -> ask(all) end),
    ?assertEqual([], Gaps),
    ?assert(lists:all(fun(Count) -> Count > 0 end, maps:values(Counts))).

ask(What) ->
    Ref = monitor(process, sink),
    sink ! {ask, self(), Ref, What},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, _, Reason} ->
            error(Reason)
    end.

%% On the nodes

%% @private Takes numbered messages of all other nodes' senders. Between two of one sender nothing
%% may be missing, unless the link between the nodes was down in between; of a link's end it is told
%% behind all that came over that link, and before all that comes over the next (net_kernel,
%% monitor_nodes/1).
-spec sink() -> no_return().
sink() ->
    register(sink, self()),
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
    sink(#{}, #{}, []).

sink(Next, Counts, Gaps) ->
    receive
        {Sender, Number} when is_pid(Sender) ->
            From = node(Sender),
            Gap =
                case Next of
                    #{Sender := Number} -> [];
                    #{Sender := Expected} -> [{Sender, Expected, Number}];
                    _ -> []
                end,
            Count = maps:get(From, Counts, 0),
            sink(Next#{Sender => Number + 1}, Counts#{From => Count + 1}, Gap ++ Gaps);
        {nodedown, Node, _} ->
            sink(maps:filter(fun(Sender, _) -> node(Sender) =/= Node end, Next), Counts, Gaps);
        {nodeup, _, _} ->
            sink(Next, Counts, Gaps);
        {large, _} ->
            sink(Next, Counts, Gaps);
        {ask, From, Ref, all} ->
            From ! {Ref, {Counts, Gaps}},
            sink(Next, Counts, Gaps);
        {ask, From, Ref, Node} ->
            From ! {Ref, maps:get(Node, Counts, 0)},
            sink(Next, Counts, Gaps)
    end.

%% @private Sends to another node's sink for ever, some of it large; what connects the two is the
%% sending.
-spec sender(pid(), node()) -> no_return().
sender(Sink, Peer) ->
    _ = monitor(process, Sink),
    sender(Peer, 1, crypto:strong_rand_bytes(100000)).

sender(Peer, Number, Large) ->
    {sink, Peer} ! {self(), Number},
    case Number rem 50 of
        0 -> {sink, Peer} ! {large, Large};
        _ -> ok
    end,
    receive
        {'DOWN', _, process, _, _} -> exit(normal)
    after 1 -> sender(Peer, Number + 1, Large)
    end.
