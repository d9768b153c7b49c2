%% A VM connects to its sidecar, and to no other program that knows the socket's name.
-module(quic_dist_socket_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SHOWN, "half of the VM's").
-define(WANTED, "half of its own.").

%% Only Linux has names of sockets that are no files.
socket_test_() ->
    case os:type() of
        {unix, linux} ->
            [
                {"sidecar", fun sidecar/0},
                {"stranger", fun stranger/0},
                {"not awaited", fun not_awaited/0},
                {"nobody", fun nobody/0}
            ];
        _ ->
            []
    end.

%% A program that shows the second half of the token is the sidecar.
sidecar() ->
    Address = listen(fun(Socket) ->
        {ok, ?SHOWN} = gen_tcp:recv(Socket, 0),
        ok = gen_tcp:send(Socket, ?WANTED),
        ok = gen_tcp:send(Socket, "the stream")
    end),
    {ok, Socket} = quic_dist_socket:connect(Address, token()),
    ?assertEqual({ok, "the stream"}, gen_tcp:recv(Socket, 0)),
    ok = gen_tcp:close(Socket).

%% A program that shows anything else is not the sidecar.
stranger() ->
    Address = listen(fun(Socket) -> ok = gen_tcp:send(Socket, ?SHOWN) end),
    Error = {error, Reason} = quic_dist_socket:connect(Address, token()),
    ?assertMatch({error, {<<"@quic_dist-test-", _/binary>>, stranger}}, Error),
    ?assertMatch(
        {match, _},
        re:run(quic_dist_plane:format_error(Reason), "another program listens at @quic_dist-test-")
    ).

%% A sidecar that does not wait for this token closes the connection.
not_awaited() ->
    Address = listen(fun(Socket) -> {ok, ?SHOWN} = gen_tcp:recv(Socket, 0) end),
    ?assertMatch({error, {_, closed}}, quic_dist_socket:connect(Address, token())).

%% Where no program listens the reason is the system's, and has the socket's name.
nobody() ->
    {error, Reason} = quic_dist_socket:connect(<<0, "quic_dist-test-nobody">>, token()),
    ?assertEqual({<<"@quic_dist-test-nobody">>, econnrefused}, Reason).

token() ->
    <<?SHOWN, ?WANTED>>.

%% Serves one connection at a name of its own.
listen(Serve) ->
    Number = integer_to_binary(erlang:unique_integer([positive])),
    Address = <<0, "quic_dist-test-", (list_to_binary(os:getpid()))/binary, $-, Number/binary>>,
    Options = [local, {ifaddr, {local, Address}}, {active, false}, {packet, 4}],
    {ok, Listener} = gen_tcp:listen(0, Options),
    spawn_link(fun() ->
        {ok, Socket} = gen_tcp:accept(Listener),
        Serve(Socket),
        _ = gen_tcp:recv(Socket, 0, 100)
    end),
    Address.
