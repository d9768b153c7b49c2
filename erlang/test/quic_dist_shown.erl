%% @doc What a node shows to people: the status page, the metrics, and what it prints.
-module(quic_dist_shown).

-export([get/2, get/3, printed/2]).

-import(quic_dist_node, [call/2]).
-import(quic_dist_wait, [scale/1]).

%% @doc get/3 as a browser on this host asks.
-spec get(Url :: binary(), Path :: string()) -> {Status :: 100..599, Answer :: string()}.
get(Url, Path) -> get(Url, Path, "localhost").

%% @doc The answer of a status page, with its header. `Url' is that of `quic_dist:info/0'.
-spec get(Url :: binary(), Path :: string(), Host :: string()) ->
    {Status :: 100..599, Answer :: string()}.
get(Url, Path, Host) ->
    #{port := Port} = uri_string:parse(binary_to_list(Url)),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Request = ["GET /", Path, " HTTP/1.0\r\nHost: ", Host, "\r\n\r\n"],
    ok = gen_tcp:send(Socket, Request),
    Answer = read(Socket, []),
    ok = gen_tcp:close(Socket),
    <<"HTTP/1.0 ", Status:3/binary, _/binary>> = Answer,
    {binary_to_integer(Status), binary_to_list(Answer)}.

read(Socket, Parts) ->
    case gen_tcp:recv(Socket, 0, scale(10000)) of
        {ok, Part} -> read(Socket, [Parts, Part]);
        {error, closed} -> iolist_to_binary(Parts)
    end.

%% @doc What a process of the node prints that runs this fun.
-spec printed(quic_dist_node:t(), fun(() -> term())) -> string().
printed(Node, Fun) ->
    call(Node, fun() ->
        Self = self(),
        Leader = spawn_link(fun() -> leader(Self, []) end),
        group_leader(Leader, self()),
        Fun(),
        Leader ! done,
        receive
            {printed, Text} -> Text
        end
    end).

leader(To, Parts) ->
    receive
        {io_request, From, As, {put_chars, unicode, Text}} ->
            From ! {io_reply, As, ok},
            leader(To, [Parts, Text]);
        done ->
            To ! {printed, unicode:characters_to_list(Parts)}
    end.
