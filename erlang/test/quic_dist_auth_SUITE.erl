%% @doc Cookies decide on real nodes which peers get in where no certificates do: the cases assert
%% which nodes connect, how soon a refusal shows, and what both logs say.
%%
%% What must never get in is counted where it would: calls that net_kernel makes to turn a peer's
%% channel into a connection attempt.
-module(quic_dist_auth_SUITE).

-export([all/0, groups/0, suite/0]).
-export([
    wrong_cookie/1,
    wrong_cookie_is_known_soon/1,
    cookies_of_their_own/1,
    cookie_changed/1,
    no_cookie/1,
    node_without_a_name/1,
    option_allow/1,
    net_kernel_allow/1,
    net_kernel_busy/1,
    insecure/1,
    cookies_are_not_shown/1,
    connect_cost/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_fixtures, [cert/1]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, log/1, log_lines/2, name/1, ping/2, start/1, stop/1, wait_log/3
]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

%% Rounds of connect_cost, and what a connection may cost: so many times one with certificates.
-define(ROUNDS, 51).
-define(COST, 1.3).

%% Milliseconds from the attempt to the refusal, keys and all.
-define(SOON, 1000).

%% It measures times that have a limit: no other suite runs beside it.
suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}, {userdata, alone}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [
        {cookies, [], [
            wrong_cookie,
            wrong_cookie_is_known_soon,
            cookies_of_their_own,
            cookie_changed,
            no_cookie,
            node_without_a_name,
            cookies_are_not_shown,
            connect_cost
        ]},
        {lists, [], [option_allow, net_kernel_allow, net_kernel_busy, insecure]}
    ].

%% Nodes and what they say

%% A node whose attempts to connect are counted. Nothing but the cases makes connections.
node_with(Options) ->
    Args = ["-connect_all", "false" | maps:get(args, Options, [])],
    Node = start(Options#{args => Args}),
    1 = call(Node, erlang, trace_pattern, [{quic_dist, accept_connection, 5}, true, [call_count]]),
    Node.

set_cookie(Node, For, Cookie) ->
    true = call(Node, erlang, set_cookie, [For, Cookie]).

disconnect(A, B) ->
    NodeA = name(A),
    true = call(A, erlang, disconnect_node, [name(B)]),
    wait_until(disconnected, fun() ->
        not lists:member(NodeA, call(B, erlang, nodes, [connected]))
    end).

%% How often net_kernel has taken a peer's channel for an attempt to connect.
attempts(Node) ->
    call(Node, fun() ->
        %% All that net_kernel had before it has been counted.
        _ = sys:get_state(net_kernel),
        {call_count, N} = erlang:trace_info({quic_dist, accept_connection, 5}, call_count),
        N
    end).

%% Asserts that `From' cannot connect to `To': each log has one line more, with these words, and the
%% net_kernel of `To' has seen no attempt. `From' does not log its last line again.
refused(From, To, FromSays, ToSays) ->
    Lines = fun(Node) -> log_lines(Node, "^(warning|error)") end,
    Cannot = "cannot connect to " ++ atom_to_list(name(To)),
    {ToBefore, Attempts} = {Lines(To), attempts(To)},
    ?assertEqual(pang, ping(From, To)),
    wait_until({line, FromSays}, fun() ->
        lists:any(fun(Line) -> says(Line, FromSays) end, log_lines(From, Cannot))
    end),
    [ToLine] = wait_until({line, ToSays}, fun() -> more(Lines(To), ToBefore) end),
    ?assert(says(ToLine, [atom_to_list(name(From)) | ToSays]), ToLine),
    ?assertEqual(Attempts, attempts(To)),
    ok.

more(Lines, Before) ->
    case lists:nthtail(length(Before), Lines) of
        [] -> Lines;
        New -> {ok, New}
    end.

says(Line, Words) ->
    lists:all(fun(Word) -> string:find(Line, Word) =/= nomatch end, Words).

-define(REFUSED, ["refused by the peer. See its log. Usual causes: a different cookie;"]).
-define(OTHER_COOKIE, ["inbound connection turned away", "its cookie is not the one"]).

%% Cases

%% Nodes with different cookies do not connect, in either direction. Each log has one line, and the
%% VM that was dialled sees no attempt. With the right cookie they connect.
wrong_cookie(_Config) ->
    [A, B] = [node_with(#{cookie => Cookie}) || Cookie <- [right_one, wrong_one]],
    refused(A, B, ?REFUSED, ?OTHER_COOKIE),
    refused(B, A, ?REFUSED, ?OTHER_COOKIE),
    [?assertEqual([], log_lines(Node, "(right|wrong)_one")) || Node <- [A, B]],
    set_cookie(B, name(B), right_one),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(1, attempts(B)).

%% That the cookie is wrong is known within a second, the first time too, when the keys of both
%% cookies are derived.
wrong_cookie_is_known_soon(_Config) ->
    [A, B] = [node_with(#{cookie => Cookie}) || Cookie <- [one, another]],
    _ = [quic_dist_node:sidecar(Node) || Node <- [A, B]],
    [
        begin
            {Microseconds, pang} = timer:tc(fun() -> ping(A, B) end),
            ct:pal("~s refusal: ~w ms", [Which, Microseconds div 1000]),
            ?assert(Microseconds div 1000 =< scale(?SOON))
        end
     || Which <- ["first", "second", "third"]
    ].

%% Nodes whose only common cookies are those that each has for the other's name (set_cookie/2)
%% connect in both directions. A third node without these does not.
cookies_of_their_own(_Config) ->
    [A, B, C] = [node_with(#{cookie => Cookie}) || Cookie <- [of_a, of_b, of_c]],
    set_cookie(A, name(B), between),
    refused(A, B, ?REFUSED, ?OTHER_COOKIE),
    set_cookie(B, name(A), between),
    ?assertEqual(pong, ping(A, B)),
    disconnect(A, B),
    ?assertEqual(pong, ping(B, A)),
    refused(C, B, ?REFUSED, ?OTHER_COOKIE),
    %% The cookie between others does not help it.
    set_cookie(C, name(B), between),
    refused(C, B, ?REFUSED, ?OTHER_COOKIE),
    %% Nor does that of another for b itself.
    set_cookie(C, name(B), of_b),
    ?assertEqual(pong, ping(C, B)).

%% A cookie that is changed while nodes run counts from then on; connections that are up stay.
cookie_changed(_Config) ->
    [A, B] = [node_with(#{}) || _ <- [a, b]],
    connect(A, B),
    set_cookie(A, name(A), changed),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual([name(B)], call(A, erlang, nodes, [])),
    disconnect(A, B),
    refused(A, B, ?REFUSED, ?OTHER_COOKIE),
    set_cookie(B, name(B), changed),
    connect(A, B).

%% Nodes without a cookie do not share one.
no_cookie(_Config) ->
    [A, B] = [node_with(#{}) || _ <- [a, b]],
    [
        begin
            set_cookie(A, name(A), Cookie),
            set_cookie(B, name(B), Cookie),
            ?assertEqual(pang, ping(A, B)),
            wait_until({lines, N}, fun() ->
                length(log_lines(A, "this node has no cookie for it")) =:= N
            end),
            set_cookie(A, name(B), some),
            Nobody = ["this node has no cookie for it"],
            refused(A, B, ?REFUSED, Nobody),
            set_cookie(A, name(B), Cookie)
        end
     || {N, Cookie} <- [{1, ''}, {2, nocookie}]
    ].

%% A node that asks for a name (-name undefined) proves the cookie like all others. A node with the
%% option allow sees it as `undefined@Host'.
node_without_a_name(_Config) ->
    Nameless = #{name => none, args => ["-no_epmd", "-name", "undefined@127.0.0.1"]},
    B = node_with(#{quic_dist => [{allow, ["undefined@*"]}]}),
    ok = call(B, net_kernel, allow, [['127.0.0.1']]),
    Wrong = start(Nameless#{cookie => wrong}),
    ?assertEqual(false, call(Wrong, net_kernel, connect_node, [name(B)])),
    ?assertMatch([_], wait_log(B, "undefined@127.* its cookie is not the one", 2000)),
    ?assertEqual(0, attempts(B)),
    Right = start(Nameless),
    connect(Right, B),
    ?assertEqual([call(Right, erlang, node, [])], call(B, erlang, nodes, [hidden])),
    C = node_with(#{}),
    %% In the handshake such a node has no more than its host's name, and so it is asked about.
    ok = call(C, net_kernel, allow, [['undefined@127.0.0.1']]),
    Other = start(Nameless),
    ?assertEqual(false, call(Other, net_kernel, connect_node, [name(C)])),
    ?assertMatch([_], wait_log(C, "undefined@127.* net_kernel:allow/1 does not", 2000)),
    ?assertEqual(0, attempts(C)).

%% The option allow lists the possible peers, by names and patterns. Other nodes are neither let in
%% nor dialled.
option_allow(_Config) ->
    [A, C] = [node_with(#{}) || _ <- [a, c]],
    {UdpPort, Host} = lists:splitwith(fun(Char) -> Char =/= $@ end, atom_to_list(name(A))),
    [
        begin
            B = node_with(#{quic_dist => [{allow, Allow}]}),
            ?assertEqual(pong, ping(A, B)),
            disconnect(A, B),
            ?assertEqual(pong, ping(B, A)),
            refused(C, B, ?REFUSED, ["the option allow does not name it"]),
            ?assertEqual(pang, ping(B, C)),
            ?assertMatch([_], wait_log(B, "cannot connect to .*: the option allow does not", 2000)),
            ?assertEqual(0, attempts(C)),
            stop(B)
        end
     || Allow <- [[name(A)], ["nobody@nowhere", UdpPort ++ "@*"], ["*" ++ UdpPort ++ Host]]
    ],
    Open = node_with(#{quic_dist => [{allow, ["*@127.0.0.1"]}]}),
    [?assertEqual(pong, ping(Node, Open)) || Node <- [A, C]].

%% Whom net_kernel:allow/1 does not name is turned away by the sidecar, and net_kernel sees
%% nothing of it.
net_kernel_allow(_Config) ->
    [A, B, C] = [node_with(#{}) || _ <- [a, b, c]],
    ok = call(B, net_kernel, allow, [[name(A)]]),
    refused(C, B, ?REFUSED, ["net_kernel:allow/1 does not name it"]),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual([name(A)], call(B, erlang, nodes, [connected])).

%% While net_kernel does not answer no peer gets in, and the owner of the sidecar does not block.
net_kernel_busy(_Config) ->
    A = node_with(#{}),
    B = node_with(#{kernel => [{net_setuptime, 2}]}),
    ok = call(B, sys, suspend, [net_kernel]),
    {Pinging, Monitor} = spawn_monitor(fun() -> exit(ping(A, B)) end),
    ?assert(longest_info(B, Monitor, 0) < scale(1000)),
    receive
        {ended, Monitor, Pinging, Answer} -> ?assertEqual(pang, Answer)
    end,
    ?assertMatch([_], wait_log(B, "turned away.*in time", 3000)),
    ok = call(B, sys, resume, [net_kernel]),
    ?assertEqual(0, attempts(B)),
    ?assertEqual(pong, ping(A, B)).

%% How long, in milliseconds, quic_dist:info/0 takes at most until a monitored process has ended.
longest_info(Node, Monitor, Longest) ->
    receive
        {'DOWN', Monitor, process, Pid, Reason} ->
            self() ! {ended, Monitor, Pid, Reason},
            Longest
    after 0 ->
        {Microseconds, #{state := up}} = timer:tc(fun() -> quic_dist_node:info(Node) end),
        longest_info(Node, Monitor, max(Longest, Microseconds div 1000))
    end.

%% A node that verifies no peer says so when it starts. Its peers still demand its proof, and only
%% the distribution handshake checks the cookie of a peer.
insecure(_Config) ->
    Insecure = #{quic_dist => [{insecure_no_verify, true}]},
    [A, B, Wrong] = [node_with(O) || O <- [Insecure, Insecure, Insecure#{cookie => wrong}]],
    Strict = node_with(#{}),
    [?assertMatch([_], wait_log(Node, "insecure_no_verify is set", 5000)) || Node <- [A, B, Wrong]],
    ?assertEqual([], log_lines(Strict, "insecure")),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(pong, ping(Strict, B)),
    ?assertEqual(pong, ping(A, Strict)),
    ?assertEqual(pang, ping(Wrong, B)),
    ?assertEqual(3, attempts(B)),
    refused(Wrong, Strict, ?REFUSED, ?OTHER_COOKIE).

%% No cookie shows in the state of the sidecar's owner, in a log of every frame, or in what the
%% operating system knows of the sidecar.
cookies_are_not_shown(_Config) ->
    Cookie = list_to_atom(quic_dist_run:unique("cookie_that_nobody_sees")),
    Options = #{cookie => Cookie, log_level => debug, quic_dist => [{log_level, debug}]},
    [A, B] = [node_with(Options) || _ <- [a, b]],
    connect(A, B),
    ?assertMatch([_ | _], wait_log(A, "dial .*cookie=\\*\\*\\*", 5000)),
    ?assertMatch([_ | _], wait_log(B, "verdict .*cookie=\\*\\*\\*", 5000)),
    [
        begin
            OsPid = integer_to_list(quic_dist_node:sidecar(Node)),
            Status = call(Node, fun() -> sys:get_status(quic_dist_sidecar) end),
            State = call(Node, fun() -> sys:get_state(quic_dist_sidecar) end),
            {ok, CommandLine} = file:read_file("/proc/" ++ OsPid ++ "/cmdline"),
            {ok, Environment} = file:read_file("/proc/" ++ OsPid ++ "/environ"),
            Terms = io_lib:format("~p~p", [Status, State]),
            Shown = unicode:characters_to_list([log(Node), Terms, CommandLine, Environment]),
            ?assertEqual(nomatch, string:find(Shown, atom_to_list(Cookie)))
        end
     || Node <- [A, B]
    ].

%% Once a cookie has been used, to connect by it takes no more than 1.3 times as long as with
%% certificates: medians, of rounds that take turns.
connect_cost(_Config) ->
    Pairs = [by_cookie(), by_certificate()],
    _ = [connect_once(Pair) || Pair <- Pairs],
    Rounds = [[connect_once(Pair) || Pair <- Pairs] || _ <- lists:seq(1, ?ROUNDS)],
    [Cookie, Certificate] = [median([lists:nth(N, Round) || Round <- Rounds]) || N <- [1, 2]],
    ct:pal("microseconds to connect: ~w by cookie, ~w by certificate", [Cookie, Certificate]),
    ?assert(Cookie =< ?COST * Certificate).

by_cookie() ->
    {explicit(#{}), explicit(#{})}.

by_certificate() ->
    Dir = filename:join(quic_dist_run:dir(), "certificates"),
    cert(["ca", "-out", Dir]),
    list_to_tuple([certified(Dir) || _ <- [a, b]]).

certified(Dir) ->
    Name = integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1",
    File = fun(Extension) -> filename:join(Dir, Name ++ Extension) end,
    Ca = filename:join(Dir, "ca.pem"),
    cert(["node", Name, "-ca", Ca, "-out", Dir]),
    Files = [{cacertfile, Ca}, {certfile, File(".pem")}, {keyfile, File(".key")}],
    explicit(#{name => {long, Name}, args => ["-no_epmd"], quic_dist => Files}).

%% A late message of `global' does not connect again what was disconnected.
explicit(Options) ->
    node_with(Options#{kernel => [{dist_auto_connect, never}]}).

connect_once({A, B}) ->
    NodeB = name(B),
    {Microseconds, true} = call(A, fun() ->
        timer:tc(fun() -> net_kernel:connect_node(NodeB) end)
    end),
    disconnect(A, B),
    Microseconds.

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).
