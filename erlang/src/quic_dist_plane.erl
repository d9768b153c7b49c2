%% @doc A data plane: how a channel's data gets from the emulator to the sidecar.
%%
%% The sidecar chooses it when it announces a channel, as the option `data_plane' allows: a channel
%% with a socket is carried by {@link quic_dist_socket}, one without by {@link quic_dist_stdio}.
%% Where the two VMs have met, a channel gives way to {@link quic_dist_local}. Callers of this
%% module need not know which. A data plane does not know how many streams the channel has between
%% the sidecars; this module decides what that means for the handshake.
-module(quic_dist_plane).

-export([open/1, hand_over/2, hs_data/1, format_error/1]).
-export_type([ctrl/0]).

-include_lib("kernel/include/dist_util.hrl").

-type ctrl() ::
    {module(), Ctrl :: term(), quic_dist_channel:streams(), quic_dist_links:link()}.
%% An open channel, a local link, or a link over HTTP. `Ctrl' belongs to the plane; dist_util calls
%% it the socket.

%% Opens the data plane of a channel for the calling process, which is linked to it (or its owner)
%% until it is handed over.
-callback open(quic_dist_channel:channel()) -> {ok, Ctrl :: term()} | {error, term()}.

%% Makes the connection supervisor the owner, in place of the caller.
-callback hand_over(Ctrl :: term(), pid()) -> ok | {error, term()}.

%% The part of the handshake record that the plane decides.
-callback hs_data(Ctrl :: term()) -> #hs_data{}.

%% @doc Opens a channel's data plane; the caller owns it until {@link hand_over/2}.
-spec open(quic_dist_channel:channel()) -> {ok, ctrl()} | {error, term()}.
open(#{local := _} = Channel) ->
    case quic_dist_local:open(Channel) of
        %% One socket keeps the order of all frames.
        {ok, Ctrl} -> {ok, {quic_dist_local, Ctrl, single, quic_dist_local:link(Channel)}};
        {error, _} = Error -> Error
    end;
open(#{id := Id, streams := Streams} = Channel) ->
    Plane =
        case Channel of
            #{socket := _} -> quic_dist_socket;
            #{} -> quic_dist_stdio
        end,
    case Plane:open(Channel) of
        {ok, Ctrl} -> {ok, {Plane, Ctrl, Streams, {channel, Id}}};
        {error, _} = Error -> Error
    end.

%% @doc Makes the connection supervisor the owner, in place of the caller.
-spec hand_over(ctrl(), pid()) -> ok | {error, term()}.
hand_over({Plane, Ctrl, _, _}, Supervisor) ->
    Plane:hand_over(Ctrl, Supervisor).

%% @doc The part of the handshake record that the channel decides: the plane's part, and the flags
%% that it rejects. On several streams only a sender's own frames keep their order, but the atom
%% cache needs the order of all frames of a channel. Both sides know the mode, and both reject it.
-spec hs_data(ctrl()) -> #hs_data{}.
hs_data({Plane, Ctrl, Streams, Link}) ->
    Hs = (Plane:hs_data(Ctrl))#hs_data{reject_flags = reject_flags(Streams)},
    quic_dist_links:watch(Link, Hs).

reject_flags(single) -> 0;
reject_flags(bulk) -> dist_util:strict_order_flags();
reject_flags(sender) -> dist_util:strict_order_flags().

%% @doc Why a channel's data plane could not be opened, in words.
-spec format_error(term()) -> unicode:chardata().
format_error({Socket, stranger}) when is_binary(Socket) ->
    ["cannot reach the sidecar: another program listens at ", Socket];
format_error({Socket, Reason}) when is_binary(Socket), is_atom(Reason) ->
    ["cannot reach the sidecar: ", Socket, ": ", inet:format_error(Reason)];
format_error(Reason) ->
    io_lib:format("cannot reach the sidecar: ~0tp", [Reason]).
