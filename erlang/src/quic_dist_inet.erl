%% @doc A tcp_inet port of the emulator as distribution controller: what it decides of the handshake
%% record, as OTP's inet_tcp_dist does, but for the framing.
-module(quic_dist_inet).

-export([hs_data/2, hand_over/2]).

-include_lib("kernel/include/dist_util.hrl").

%% @doc The part of the handshake record that the port decides. `Options' are set on it with those
%% that distribution needs.
-spec hs_data(gen_tcp:socket(), [gen_tcp:option()]) -> #hs_data{}.
hs_data(Socket, Options) ->
    #hs_data{
        socket = Socket,
        this_flags = 0,
        f_send = fun inet_tcp:send/2,
        f_recv = fun inet_tcp:recv/3,
        f_setopts_pre_nodeup = fun(S) ->
            inet:setopts(S, [{active, false}, {packet, 4} | Options])
        end,
        f_setopts_post_nodeup = fun(S) ->
            inet:setopts(S, [{active, true}, {deliver, port}, {packet, 4}, binary | Options])
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

%% @doc Makes a process the owner of the port, in place of the caller.
-spec hand_over(gen_tcp:socket(), pid()) -> ok | {error, term()}.
hand_over(Socket, Owner) ->
    gen_tcp:controlling_process(Socket, Owner).
