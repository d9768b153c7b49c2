%% @doc The `socket' data plane: a channel's data travels through a Unix-domain socket of its own.
%% The emulator's tcp_inet port is the distribution controller, so that no Erlang process touches
%% the data, and back-pressure, nodedown reasons and what a halting node still delivers are TCP's.
-module(quic_dist_socket).
-behaviour(quic_dist_plane).

-export([open/1, hand_over/2, hs_data/1]).
%% For others whose data travels like this.
-export([connect/1]).

-include_lib("kernel/include/dist_util.hrl").

-define(CONNECT_TIMEOUT, 5000).

%% Bytes. Buffers in the kernel, and in the driver for what it reads.
-define(SOCKET_BUFFER, 16#40000).
-define(READ_BUFFER, 16#20000).

%% @private
-spec open(quic_dist_port:channel()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(#{socket := Path, token := Token} = Channel) ->
    case connect(Path) of
        {ok, Socket} -> show_token(Socket, Token, Channel);
        {error, _} = Error -> Error
    end.

%% @private A passive socket, in the framing of a channel that is up.
-spec connect(binary()) -> {ok, gen_tcp:socket()} | {error, {binary(), inet:posix()}}.
connect(Path) ->
    %% Kernel's parameter inet_backend must not decide: only inet's sockets are ports.
    Options = [
        {inet_backend, inet},
        local,
        {active, false},
        {packet, 4},
        {sndbuf, ?SOCKET_BUFFER},
        {recbuf, ?SOCKET_BUFFER},
        {buffer, ?READ_BUFFER},
        %% Many small messages leave in one system call, and wake the sidecar once.
        {delay_send, true}
    ],
    case gen_tcp:connect({local, Path}, 0, Options, ?CONNECT_TIMEOUT) of
        {ok, _} = Connected -> Connected;
        {error, Reason} -> {error, {Path, Reason}}
    end.

show_token(Socket, Token, Channel) ->
    case gen_tcp:send(Socket, Token) of
        ok ->
            %% From here on the socket's end is the channel's.
            ok = quic_dist_port:release(Channel),
            {ok, Socket};
        {error, _} = Error ->
            Error
    end.

%% @private
-spec hand_over(gen_tcp:socket(), pid()) -> ok | {error, term()}.
hand_over(Socket, Supervisor) ->
    gen_tcp:controlling_process(Socket, Supervisor).

%% @private The options are those that inet_tcp_dist sets, but for the framing, which is the same
%% from the first byte on.
-spec hs_data(gen_tcp:socket()) -> #hs_data{}.
hs_data(Socket) ->
    #hs_data{
        socket = Socket,
        this_flags = 0,
        f_send = fun gen_tcp:send/2,
        f_recv = fun gen_tcp:recv/3,
        f_setopts_pre_nodeup = fun(S) -> inet:setopts(S, [{active, false}, {packet, 4}]) end,
        f_setopts_post_nodeup = fun(S) ->
            inet:setopts(S, [{active, true}, {deliver, port}, {packet, 4}, binary])
        end,
        f_getll = fun inet:getll/1,
        mf_tick = fun tick/1,
        mf_getstat = fun getstat/1
    }.

%% An empty frame, put into the driver's queue even when the port is busy.
tick(Socket) ->
    case inet_tcp:send(Socket, [], [force]) of
        {error, closed} = Error ->
            self() ! {tcp_closed, Socket},
            Error;
        Result ->
            Result
    end.

getstat(Socket) ->
    case inet:getstat(Socket, [recv_cnt, send_cnt, send_pend]) of
        {ok, Counts} ->
            [Received, Sent, Pending] =
                [proplists:get_value(Key, Counts) || Key <- [recv_cnt, send_cnt, send_pend]],
            {ok, Received, Sent, Pending};
        {error, _} = Error ->
            Error
    end.
