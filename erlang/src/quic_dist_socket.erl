%% @doc The `socket' data plane: a channel's data travels through a Unix-domain socket of its own.
%% The emulator's tcp_inet port is the distribution controller, so no Erlang process touches the
%% data. Back-pressure, nodedown reasons and what a halting node still delivers are as over TCP.
-module(quic_dist_socket).
-behaviour(quic_dist_plane).

-export([open/1, hand_over/2, hs_data/1]).
%% For webdist_link and quic_dist_local, whose data may travel in the same way.
-export([connect/2, connect/4, set_buffers/1, halves/1, name/1]).

-include_lib("kernel/include/dist_util.hrl").

%% Milliseconds. The other end is on this host.
-define(CONNECT_TIMEOUT, 5000).
-define(TRY_AGAIN, 10).

%% Bytes. The buffers of the kernel, and the driver's buffer for reading.
-define(SOCKET_BUFFER, 16#40000).
-define(READ_BUFFER, 16#20000).

%% @private
-spec open(quic_dist_channel:channel()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(#{socket := Address, token := Token} = Channel) ->
    case connect(Address, Token) of
        {ok, Socket} ->
            %% From here on the channel ends when the socket ends.
            ok = quic_dist_channel:release(Channel),
            {ok, Socket};
        {error, _} = Error ->
            Error
    end.

%% @private A passive socket, in the framing of a channel that is up. The other end has proved that
%% it is this VM's sidecar. An error has the socket's name, and `closed' if the token has expired.
-spec connect(binary(), binary()) ->
    {ok, gen_tcp:socket()} | {error, {Name :: binary(), closed | stranger | inet:posix()}}.
connect(Address, Token) ->
    connect(Address, Token, ?CONNECT_TIMEOUT, fun(_) -> true end).

%% @private The same within a time, if a check of the socket passes.
-spec connect(binary(), binary(), timeout(), Check :: fun((gen_tcp:socket()) -> boolean())) ->
    {ok, gen_tcp:socket()} | {error, {Name :: binary(), closed | stranger | inet:posix()}}.
connect(Address, Token, Timeout, Check) ->
    Deadline = erlang:monotonic_time(millisecond) + Timeout,
    case connect_by(Deadline, Address) of
        {ok, Socket} ->
            case Check(Socket) andalso exchange(Socket, Token, left(Deadline)) of
                ok ->
                    {ok, Socket};
                Other ->
                    ok = gen_tcp:close(Socket),
                    {error, {name(Address), reason(Other)}}
            end;
        {error, Reason} ->
            {error, {name(Address), Reason}}
    end.

reason(false) -> stranger;
reason({error, Reason}) -> Reason.

left(Deadline) ->
    max(0, Deadline - erlang:monotonic_time(millisecond)).

%% @private The halves of a token: the VM shows the first, and the sidecar answers with the second.
-spec halves(binary()) -> {Shown :: binary(), Wanted :: binary()}.
halves(Token) ->
    Size = byte_size(Token) div 2,
    <<Shown:Size/binary, Wanted:Size/binary>> = Token,
    {Shown, Wanted}.

%% @private The name of a socket as people write it: an abstract name, which is no file, begins with
%% a zero byte, and is written with an @.
-spec name(binary()) -> binary().
name(<<0, Name/binary>>) -> <<"@", Name/binary>>;
name(Path) -> Path.

%% Other users of the host may connect too, so the listener's queue may be full for a moment.
connect_by(Deadline, Address) ->
    Answer = try_connect(Address, left(Deadline)),
    case {Answer, erlang:monotonic_time(millisecond) < Deadline} of
        {{error, eagain}, true} ->
            receive
            after ?TRY_AGAIN -> connect_by(Deadline, Address)
            end;
        _ ->
            Answer
    end.

try_connect(Address, Timeout) ->
    %% Kernel's parameter inet_backend must not decide, because only inet's sockets are ports.
    Options = [
        {inet_backend, inet},
        local,
        {active, false},
        {packet, 4}
        | buffers()
    ],
    gen_tcp:connect({local, Address}, 0, Options, Timeout).

buffers() ->
    [
        {sndbuf, ?SOCKET_BUFFER},
        {recbuf, ?SOCKET_BUFFER},
        {buffer, ?READ_BUFFER},
        %% Many small messages leave in one system call, and wake the other end once.
        {delay_send, true}
    ].

%% @private Gives a socket that was not made here the options of those that were.
-spec set_buffers(gen_tcp:socket()) -> ok | {error, inet:posix()}.
set_buffers(Socket) ->
    inet:setopts(Socket, buffers()).

exchange(Socket, Token, Timeout) ->
    {Shown, Wanted} = halves(Token),
    case gen_tcp:send(Socket, Shown) of
        ok ->
            case gen_tcp:recv(Socket, 0, Timeout) of
                {ok, Answer} ->
                    case list_to_binary(Answer) of
                        Wanted -> ok;
                        _ -> {error, stranger}
                    end;
                {error, _} = Error ->
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @private
-spec hand_over(gen_tcp:socket(), pid()) -> ok | {error, term()}.
hand_over(Socket, Supervisor) ->
    quic_dist_inet:hand_over(Socket, Supervisor).

%% @private
-spec hs_data(gen_tcp:socket()) -> #hs_data{}.
hs_data(Socket) ->
    quic_dist_inet:hs_data(Socket, []).
