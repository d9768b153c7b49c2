%% @doc Processes on other nodes that do what they are told. These functions run on a node.
-module(quic_dist_remote).

-export([remote/1, ask/2, echo/0, ask_echo/2, disconnect/1]).

-include("quic_dist_recv.hrl").

%% @doc A process on another node that evaluates what ask/2 tells it.
-spec remote(node()) -> pid().
remote(Node) ->
    spawn(Node, fun evaluator/0).

evaluator() ->
    receive
        {eval, From, Ref, Fun} ->
            From ! {Ref, Fun()},
            evaluator()
    end.

%% @doc The value of a fun that a process of remote/1 evaluates.
-spec ask(pid(), fun(() -> Value)) -> Value.
ask(Pid, Fun) ->
    Ref = make_ref(),
    Pid ! {eval, self(), Ref, Fun},
    ?recv({Ref, Answer}, Answer).

%% @doc A process that sends each term back, with the hash that the term had when it came.
-spec echo() -> no_return().
echo() ->
    receive
        {From, Ref, Term} ->
            From ! {Ref, erlang:md5(term_to_binary(Term)), Term},
            erlang:garbage_collect(),
            echo()
    end.

%% @doc A term as it comes back from a process that runs echo/0.
-spec ask_echo(pid(), Term) -> Term.
ask_echo(Echo, Term) ->
    Ref = make_ref(),
    Echo ! {self(), Ref, Term},
    ?recv({Ref, _, Back}, Back).

%% @doc Ends the connection to another node, and waits for its nodedown.
-spec disconnect(node()) -> ok.
disconnect(Node) ->
    true = monitor_node(Node, true),
    true = erlang:disconnect_node(Node),
    ?recv({nodedown, Node}).
