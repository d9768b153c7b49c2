%% @doc A distribution connection that began with an HTTP upgrade, seen from the VM: takes it over
%% from the sidecar, and is its data plane.
%%
%% The sidecar names a Unix-domain socket and a token. It answers the token with the descriptor of
%% the connection's own TCP socket (`descriptor'), which then no longer depends on the sidecar; or
%% it copies the bytes of the connection to and from the Unix-domain socket (`copy').
%%
%% With a descriptor, the sidecar tells the peer that its link is up when this VM has made a socket
%% of it. The sidecar counts the link as one in the handshake as long as the Unix-domain socket is
%% open. For a link that the peer opened, that is as long as the caller of open/1 lives.
%%
%% A tcp_inet port that was made from a descriptor does not close the descriptor when the port is
%% closed. So a process, the keeper, keeps each descriptor, and closes it when the port is gone:
%% after that nothing can use the number.
-module(webdist_link).

-export([take/1, open/1, web/3]).
%% What quic_dist_plane expects of a data plane, but for open/1.
-export([ctrl/2, hand_over/2, hs_data/1]).
%% The keeper hibernates, and continues here.
-export([keep/1]).
-export_type([handover/0]).

-include_lib("kernel/include/dist_util.hrl").

-type handover() :: #{take := copy | descriptor, socket := binary(), token := binary(), _ => _}.
%% How the sidecar hands a connection over: the fields of `web_dialled', which has a `url', or of
%% `web_accepted'.

%% Milliseconds.
-define(TIMEOUT, 5000).
%% Bytes that are read at a time with a descriptor.
-define(READ_BUFFER, 16#20000).
%% Bytes of the head of a descriptor's message: the family, and how many bytes follow that the
%% sidecar has read already.
-define(HEAD, 5).
%% This VM sends it when it has made a socket of the descriptor; the sidecar answers with the same
%% when the socket may be used.
-define(READY, 1).

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
-spec open(handover()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(#{take := copy, socket := Path, token := Token}) ->
    case quic_dist_socket:connect(Path, Token) of
        {ok, Socket} ->
            case inet:setopts(Socket, [{packet, 2}]) of
                ok -> {ok, Socket};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end;
open(#{take := descriptor} = Handover) ->
    Owner = self(),
    {Keeper, Monitor} = spawn_monitor(fun() -> keeper(Owner, Handover) end),
    receive
        {Keeper, Socket} ->
            demonitor(Monitor, [flush]),
            {ok, Socket};
        {'DOWN', Monitor, process, _, Reason} ->
            {error, Reason}
    end.

%% @doc What links are shown with.
-spec web(dialled | accepted, handover(), {inet:ip_address(), inet:port_number()}) ->
    quic_dist_links:web().
web(Direction, Fields, Address) ->
    #{
        carrier => carrier(Fields),
        direction => Direction,
        address => Address,
        identity =>
            case Fields of
                #{identity := Identity} -> Identity;
                #{proven := true} -> cookie;
                #{} -> handshake
            end
    }.

%% The process that holds the port may be of an earlier build. It does not say which carrier a peer
%% uses whose TLS ends there.
carrier(#{carrier := Carrier}) ->
    Carrier;
carrier(#{url := Url}) ->
    [Scheme, _] = binary:split(Url, <<":">>),
    binary_to_existing_atom(Scheme);
carrier(_) ->
    https.

%% The keeper of a descriptor

%% The port is linked to the keeper until the owner has it. The keeper traps exits, so that nothing
%% ends it before it has closed the descriptor.
keeper(Owner, #{socket := Path, token := Token} = Handover) ->
    process_flag(trap_exit, true),
    Monitor = monitor(process, Owner),
    case socket:open(local, stream, default) of
        {ok, Control} ->
            case receive_descriptor(Control, Path, Token) of
                {ok, Descriptor, Driver, Ahead} ->
                    State = #{control => Control, owner => Owner, monitor => Monitor},
                    adopt(Descriptor, Driver, Ahead, State, is_map_key(url, Handover));
                {error, Reason} ->
                    exit({shutdown, Reason})
            end;
        {error, Reason} ->
            exit({shutdown, Reason})
    end.

%% Makes a port of the descriptor, and gives it to the owner. `Ahead' are the bytes that the sidecar
%% has read already.
adopt(Descriptor, Driver, Ahead, #{control := Control, owner := Owner} = State, Dialled) ->
    Options = [{active, false}, {packet, 2}, {nodelay, true}],
    case Driver:fdopen(Descriptor, Options) of
        {ok, Socket} ->
            Port = erlang:monitor(port, Socket),
            Given = give(Socket, Driver, Ahead, State),
            case Given of
                ok -> Owner ! {self(), Socket};
                {error, _} -> Driver:close(Socket)
            end,
            Kept = State#{descriptor => Descriptor, port => Port},
            case Dialled orelse Given =/= ok of
                true -> hibernate(close_control(Kept));
                false -> hibernate(Kept)
            end;
        {error, Reason} ->
            _ = socket:close(Control),
            ok = close(Descriptor),
            exit({shutdown, {fdopen, Reason}})
    end.

%% The sidecar tells the peer before the owner begins the handshake.
give(Socket, Driver, Ahead, #{control := Control, owner := Owner}) ->
    case await_ready(Control) of
        ok ->
            case unrecv(Socket, Driver, Ahead) of
                ok -> Driver:controlling_process(Socket, Owner);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

await_ready(Control) ->
    case socket:send(Control, <<?READY>>, ?TIMEOUT) of
        ok ->
            case socket:recv(Control, 1, ?TIMEOUT) of
                {ok, <<?READY>>} -> ok;
                {ok, _} -> {error, closed};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% Tells the sidecar that the link is no longer in the handshake.
close_control(#{control := Control, monitor := Monitor} = Kept) ->
    _ = socket:close(Control),
    demonitor(Monitor, [flush]),
    maps:without([control, monitor, owner], Kept).

hibernate(Kept) ->
    erlang:hibernate(?MODULE, keep, [Kept]).

unrecv(_, _, <<>>) -> ok;
unrecv(Socket, Driver, Ahead) -> Driver:unrecv(Socket, Ahead).

%% @private
-spec keep(#{descriptor := non_neg_integer(), port := reference(), atom() => term()}) -> ok.
keep(#{descriptor := Descriptor, port := Port} = Kept) ->
    receive
        {'DOWN', Port, port, _, _} ->
            close(Descriptor);
        {'DOWN', Monitor, process, _, _} when map_get(monitor, Kept) =:= Monitor ->
            hibernate(close_control(Kept));
        _ ->
            keep(Kept)
    end.

%% Only prim_file closes a descriptor by its number.
close(Descriptor) ->
    {ok, File} = prim_file:file_desc_to_ref(Descriptor, []),
    prim_file:close(File).

receive_descriptor(Socket, Path, Token) ->
    {Shown, Wanted} = quic_dist_socket:halves(Token),
    case socket:connect(Socket, #{family => local, path => Path}, ?TIMEOUT) of
        ok ->
            case socket:send(Socket, frame(Shown), ?TIMEOUT) of
                ok -> receive_answer(Socket, frame(Wanted), Path);
                {error, Reason} -> {error, {quic_dist_socket:name(Path), Reason}}
            end;
        {error, Reason} ->
            {error, {quic_dist_socket:name(Path), Reason}}
    end.

frame(Bytes) ->
    <<(byte_size(Bytes)):32, Bytes/binary>>.

%% The other end proves that it is this VM's sidecar.
receive_answer(Socket, Wanted, Path) ->
    case socket:recv(Socket, byte_size(Wanted), ?TIMEOUT) of
        {ok, Wanted} -> receive_message(Socket);
        {ok, _} -> {error, {quic_dist_socket:name(Path), stranger}};
        {error, Reason} -> {error, {quic_dist_socket:name(Path), Reason}}
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

%% @doc An open link as a data plane.
-spec ctrl(gen_tcp:socket(), quic_dist_links:web()) -> quic_dist_plane:ctrl().
ctrl(Socket, Web) ->
    {?MODULE, Socket, single, {web, Web}}.

%% @private
-spec hand_over(gen_tcp:socket(), pid()) -> ok | {error, term()}.
hand_over(Socket, Supervisor) ->
    quic_dist_inet:hand_over(Socket, Supervisor).

%% @doc The part of the handshake record that the socket decides: what inet_tcp_dist does.
-spec hs_data(gen_tcp:socket()) -> #hs_data{}.
hs_data(Socket) ->
    NoDelay = {nodelay, application:get_env(kernel, dist_nodelay) =/= {ok, false}},
    Hs = quic_dist_inet:hs_data(Socket, [NoDelay]),
    Hs#hs_data{mf_setopts = fun setopts/2, mf_getopts = fun inet:getopts/2}.

%% The emulator relies on these.
setopts(Socket, Options) ->
    Fixed = [active, deliver, packet],
    case [Option || {Key, _} = Option <- Options, lists:member(Key, Fixed)] of
        [] -> inet:setopts(Socket, Options);
        Bad -> {error, {badopts, Bad}}
    end.
