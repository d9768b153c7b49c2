%% The VMs of peers that have the right token meet the acceptor, and nobody else does.
-module(quic_dist_meeting_tests).

-include_lib("eunit/include/eunit.hrl").

-define(TOKEN, {<<"half of a diall.">>, <<"the answer to it">>}).

%% Only Linux tells the users of sockets.
meeting_test_() ->
    case os:type() of
        {unix, linux} ->
            {foreach, fun start/0, fun stop/1, [
                fun expected_first/0,
                fun shown_first/0,
                fun works_once/0,
                fun wrong_tokens/0,
                fun silent_strangers/0,
                fun gone_acceptor/0
            ]};
        _ ->
            []
    end.

start() ->
    {ok, Pid} = quic_dist_meeting:start_link(),
    ok = quic_dist_meeting:handle(sidecar_up, #{}, #{options => #{local_links => auto}}),
    _ = sys:get_state(Pid),
    Pid.

stop(Pid) ->
    unlink(Pid),
    exit(Pid, kill),
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% The channel comes to the acceptor with a socket, on which the peer has the answer.
expected_first() ->
    ok = quic_dist_meeting:expect(?TOKEN, #{id => 7}),
    met(connected(), ?TOKEN, 7).

%% The peer's VM may be faster than this one hears of the channel.
shown_first() ->
    Peer = connected(),
    ok = gen_tcp:send(Peer, element(1, ?TOKEN)),
    ok = quic_dist_meeting:expect(?TOKEN, #{id => 8}),
    answered(Peer, ?TOKEN, 8).

works_once() ->
    expected_first(),
    turned_away(?TOKEN).

wrong_tokens() ->
    ok = quic_dist_meeting:expect(?TOKEN, #{id => 9}),
    turned_away({<<"another one half">>, <<>>}),
    turned_away({<<"short">>, <<>>}),
    turned_away({<<"much longer than half of a token">>, <<>>}),
    met(connected(), ?TOKEN, 9).

%% Programs that say nothing are turned away, and keep nobody out: there are more than are served.
silent_strangers() ->
    Strangers = [connected() || _ <- lists:seq(1, 100)],
    ok = quic_dist_meeting:expect(?TOKEN, #{id => 10}),
    met(connected(), ?TOKEN, 10),
    [?assertEqual({error, closed}, gen_tcp:recv(Stranger, 0, 5000)) || Stranger <- Strangers].

%% The acceptor has died meanwhile: the peer's socket is closed.
gone_acceptor() ->
    {_, Monitor} = spawn_monitor(fun() -> quic_dist_meeting:expect(?TOKEN, #{id => 11}) end),
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end,
    {Shown, Wanted} = ?TOKEN,
    Peer = connected(),
    ok = gen_tcp:send(Peer, Shown),
    ?assertEqual({ok, Wanted}, gen_tcp:recv(Peer, 0, 5000)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, 5000)).

connected() ->
    {ok, Name} = quic_dist_meeting:name(),
    Options = [local, binary, {active, false}, {packet, 4}],
    {ok, Socket} = gen_tcp:connect({local, Name}, 0, Options, 5000),
    ?assert(quic_dist_meeting:is_own_user(Socket)),
    Socket.

met(Peer, {Shown, _} = Token, Id) ->
    ok = gen_tcp:send(Peer, Shown),
    answered(Peer, Token, Id).

answered(Peer, {_, Wanted}, Id) ->
    ?assertEqual({ok, Wanted}, gen_tcp:recv(Peer, 0, 5000)),
    Socket =
        receive
            {accepted, #{id := Id, local := Local}} -> Local
        after 5000 -> error(not_met)
        end,
    ?assertEqual({connected, self()}, erlang:port_info(Socket, connected)),
    %% What follows is as large as it likes.
    Large = binary:copy(<<"x">>, 100000),
    spawn_link(fun() -> ok = gen_tcp:send(Peer, Large) end),
    {ok, Received} = gen_tcp:recv(Socket, 0, 5000),
    ?assertEqual(Large, iolist_to_binary(Received)),
    ok = gen_tcp:close(Socket).

turned_away({Shown, _}) ->
    Socket = connected(),
    ok = gen_tcp:send(Socket, Shown),
    ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, 5000)).
