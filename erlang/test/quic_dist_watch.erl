%% @doc The nodes that a node loses, as messages to the calling process.
-module(quic_dist_watch).

-export([watch/1, nodedown/2, nodedown/3]).

-import(quic_dist_node, [call/2, log/1, tell/2]).

%% @doc From now on the calling process gets a message for each node that `Node' loses: `{nodedown,
%% Name of Node, Name of the lost node, Reason}'.
-spec watch(quic_dist_node:t()) -> ok.
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

%% @doc nodedown/3 with ten seconds.
-spec nodedown(quic_dist_node:t(), quic_dist_node:t() | node()) -> term().
nodedown(Node, Peer) -> nodedown(Node, Peer, 10000).

%% @doc The reason for which `Node', which is watched, loses `Peer' within so many ms (before
%% scaling) from now.
-spec nodedown(quic_dist_node:t(), quic_dist_node:t() | node(), timeout()) -> term().
nodedown(Node, #{node := Peer}, Within) ->
    nodedown(Node, Peer, Within);
nodedown(#{node := Name} = Node, Peer, Within) ->
    Began = erlang:monotonic_time(millisecond),
    receive
        {nodedown, Name, Peer, Reason} ->
            Waited = erlang:monotonic_time(millisecond) - Began,
            ct:log("~s has lost ~s: ~p, after ~b of ~w ms", [Name, Peer, Reason, Waited, Within]),
            Reason
    after quic_dist_wait:scale(Within) ->
        error({no_nodedown, Name, Peer, Within, quic_dist_wait:flush(), log(Node)})
    end.
