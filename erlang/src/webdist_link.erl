%% @doc One distribution connection that began with an HTTP upgrade, seen from the VM: the socket on
%% which the distribution handshake is about to begin, and how it got here.
%%
%% The sidecar names a Unix-domain socket and a token. Behind the token comes either the descriptor
%% of the connection's own TCP socket (`descriptor'), which so no longer depends on the sidecar; or
%% the bytes of the connection (`copy'), which the sidecar copies.
%%
%% A tcp_inet port that was made from a descriptor does not close that when it is closed. So a
%% process keeps each descriptor (the keeper), and closes it once the port is gone, which is when
%% nobody can use the number any more.
-module(webdist_link).

-export([take/1, open/1]).
%% What quic_dist_plane expects of a data plane, but for open/1.
-export([hand_over/2, hs_data/1]).
%% The keeper sleeps in here.
-export([keep/2]).
-export_type([taken/0]).

-include_lib("kernel/include/dist_util.hrl").

-type taken() :: #{take := copy | descriptor, socket := binary(), token := binary(), _ => _}.
%% The fields of `web_dialled' and `web_accepted'.

%% Milliseconds.
-define(TIMEOUT, 5000).
%% Bytes that are read at a time with a descriptor.
-define(READ_BUFFER, 16#20000).
%% The head of what comes with a descriptor: the family, and how much the sidecar has read.
-define(HEAD, 5).

%% @doc How this VM can take connections. Descriptors need Linux, the module socket, and a way to
%% close one by its number, which OTP has (24 and later) but does not document.
-spec take(webdist_config:options()) -> copy | descriptor.
take(#{hand_over := true}) ->
    CanClose = erlang:function_exported(prim_file, file_desc_to_ref, 2),
    case os:type() of
        {unix, linux} when CanClose -> take_sockets();
        _ -> copy
    end;
take(_) ->
    copy.

%% An emulator may have been built without sockets.
take_sockets() ->
    try socket:open(local, stream, default) of
        {ok, Socket} ->
            _ = socket:close(Socket),
            descriptor;
        {error, _} ->
            copy
    catch
        error:_ -> copy
    end.

%% @doc Takes a connection. The caller owns the socket, which is passive, in list mode and in the
%% framing of the distribution handshake.
-spec open(taken()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(#{take := copy, socket := Path, token := Token}) ->
    case quic_dist_socket:connect(Path) of
        {ok, Socket} -> show_token(Socket, Token);
        {error, _} = Error -> Error
    end;
open(#{take := descriptor, socket := Path, token := Token}) ->
    Owner = self(),
    {Keeper, Monitor} = spawn_monitor(fun() -> keeper(Owner, Path, Token) end),
    receive
        {Keeper, Socket} ->
            demonitor(Monitor, [flush]),
            {ok, Socket};
        {'DOWN', Monitor, process, _, Reason} ->
            {error, Reason}
    end.

show_token(Socket, Token) ->
    case gen_tcp:send(Socket, Token) of
        ok ->
            case inet:setopts(Socket, [{packet, 2}]) of
                ok -> {ok, Socket};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% The keeper of a descriptor

%% The port is linked to it until the owner has it; and nothing else ends it.
keeper(Owner, Path, Token) ->
    process_flag(trap_exit, true),
    Monitor = monitor(process, Owner),
    case receive_descriptor(Path, Token) of
        {ok, Descriptor, Driver, Ahead} -> adopt(Descriptor, Driver, Ahead, Owner, Monitor);
        {error, Reason} -> exit({shutdown, Reason})
    end.

adopt(Descriptor, Driver, Ahead, Owner, Monitor) ->
    Options = [{active, false}, {packet, 2}, {nodelay, true}],
    case Driver:fdopen(Descriptor, Options) of
        {ok, Socket} ->
            Port = erlang:monitor(port, Socket),
            case hand_out(Socket, Driver, Ahead, Owner) of
                ok -> Owner ! {self(), Socket};
                {error, _} -> Driver:close(Socket)
            end,
            demonitor(Monitor, [flush]),
            erlang:hibernate(?MODULE, keep, [Descriptor, Port]);
        {error, Reason} ->
            ok = close(Descriptor),
            exit({shutdown, {fdopen, Reason}})
    end.

hand_out(Socket, Driver, Ahead, Owner) ->
    case unrecv(Socket, Driver, Ahead) of
        ok -> Driver:controlling_process(Socket, Owner);
        {error, _} = Error -> Error
    end.

unrecv(_, _, <<>>) -> ok;
unrecv(Socket, Driver, Ahead) -> Driver:unrecv(Socket, Ahead).

%% @private
-spec keep(non_neg_integer(), reference()) -> ok.
keep(Descriptor, Port) ->
    receive
        {'DOWN', Port, port, _, _} -> close(Descriptor);
        _ -> keep(Descriptor, Port)
    end.

%% prim_file is the only part of OTP that closes a descriptor by its number.
close(Descriptor) ->
    {ok, File} = prim_file:file_desc_to_ref(Descriptor, []),
    prim_file:close(File).

receive_descriptor(Path, Token) ->
    case socket:open(local, stream, default) of
        {ok, Socket} ->
            try
                receive_descriptor(Socket, Path, Token)
            after
                _ = socket:close(Socket)
            end;
        {error, _} = Error ->
            Error
    end.

receive_descriptor(Socket, Path, Token) ->
    Address = #{family => local, path => Path},
    Frame = <<(byte_size(Token)):32, Token/binary>>,
    case socket:connect(Socket, Address, ?TIMEOUT) of
        ok ->
            case socket:send(Socket, Frame, ?TIMEOUT) of
                ok -> receive_message(Socket);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% The control message comes with the first byte.
receive_message(Socket) ->
    case socket:recvmsg(Socket, ?READ_BUFFER, 0, [cmsg_cloexec], ?TIMEOUT) of
        {ok, #{iov := Iov, ctrl := Control}} ->
            case [Data || #{level := socket, type := rights, data := Data} <- Control] of
                [<<Descriptor:32/native>>] ->
                    receive_rest(Socket, Descriptor, iolist_to_binary(Iov));
                _ ->
                    {error, no_descriptor}
            end;
        {error, _} = Error ->
            Error
    end.

receive_rest(_, Descriptor, <<Family, Size:32, Ahead:Size/binary>>) ->
    case Family of
        4 -> {ok, Descriptor, inet_tcp, Ahead};
        6 -> {ok, Descriptor, inet6_tcp, Ahead};
        0 -> {ok, Descriptor, local_tcp, Ahead}
    end;
receive_rest(Socket, Descriptor, Bytes) ->
    Missing =
        case Bytes of
            <<_, Size:32, Ahead/binary>> when byte_size(Ahead) < Size -> Size - byte_size(Ahead);
            _ when byte_size(Bytes) < ?HEAD -> ?HEAD - byte_size(Bytes)
        end,
    case socket:recv(Socket, Missing, ?TIMEOUT) of
        {ok, More} ->
            receive_rest(Socket, Descriptor, <<Bytes/binary, More/binary>>);
        {error, _} = Error ->
            ok = close(Descriptor),
            Error
    end.

%% A data plane

%% @private
-spec hand_over(gen_tcp:socket(), pid()) -> ok | {error, term()}.
hand_over(Socket, Supervisor) ->
    gen_tcp:controlling_process(Socket, Supervisor).

%% @doc The part of the handshake record that the socket decides: what inet_tcp_dist does.
-spec hs_data(gen_tcp:socket()) -> #hs_data{}.
hs_data(Socket) ->
    #hs_data{
        socket = Socket,
        this_flags = 0,
        f_send = fun inet_tcp:send/2,
        f_recv = fun inet_tcp:recv/3,
        f_setopts_pre_nodeup = fun(S) ->
            inet:setopts(S, [{active, false}, {packet, 4}, nodelay()])
        end,
        f_setopts_post_nodeup = fun(S) ->
            inet:setopts(S, [{active, true}, {deliver, port}, {packet, 4}, binary, nodelay()])
        end,
        f_getll = fun inet:getll/1,
        mf_tick = fun tick/1,
        mf_getstat = fun getstat/1,
        mf_setopts = fun setopts/2,
        mf_getopts = fun inet:getopts/2
    }.

nodelay() ->
    {nodelay, application:get_env(kernel, dist_nodelay) =/= {ok, false}}.

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

%% What the emulator relies on is not to be changed.
setopts(Socket, Options) ->
    Fixed = [active, deliver, packet],
    case [Option || {Key, _} = Option <- Options, lists:member(Key, Fixed)] of
        [] -> inet:setopts(Socket, Options);
        Bad -> {error, {badopts, Bad}}
    end.
