%% @doc A data plane: how a channel's data gets from the emulator to the sidecar.
%%
%% The sidecar chooses it when it announces a channel, as the option `data_plane' allows: a channel
%% with a socket is carried by {@link quic_dist_socket}, one without by {@link quic_dist_stdio}.
%% What is above this knows nothing of either, and neither knows how many streams the channel has
%% between the sidecars: what that means for the handshake is decided here.
-module(quic_dist_plane).

-export([open/1, hand_over/2, hs_data/1]).
-export_type([ctrl/0]).

-include_lib("kernel/include/dist_util.hrl").

-type ctrl() :: {module(), Ctrl :: term(), quic_dist_port:streams()}.
%% An open channel. `Ctrl' is the plane's own, and what dist_util knows as the socket.

%% Opens the data plane of a channel for the calling process, which is linked to it (or its owner)
%% until it is handed over.
-callback open(quic_dist_port:channel()) -> {ok, Ctrl :: term()} | {error, term()}.

%% Makes the connection supervisor the owner, in place of the caller.
-callback hand_over(Ctrl :: term(), pid()) -> ok | {error, term()}.

%% The part of the handshake record that the plane decides.
-callback hs_data(Ctrl :: term()) -> #hs_data{}.

%% @doc Opens a channel's data plane; the caller owns it until {@link hand_over/2}.
-spec open(quic_dist_port:channel()) -> {ok, ctrl()} | {error, term()}.
open(#{streams := Streams} = Channel) ->
    Plane =
        case Channel of
            #{socket := _} -> quic_dist_socket;
            #{} -> quic_dist_stdio
        end,
    case Plane:open(Channel) of
        {ok, Ctrl} -> {ok, {Plane, Ctrl, Streams}};
        {error, _} = Error -> Error
    end.

%% @doc Makes the connection supervisor the owner, in place of the caller.
-spec hand_over(ctrl(), pid()) -> ok | {error, term()}.
hand_over({Plane, Ctrl, _}, Supervisor) ->
    Plane:hand_over(Ctrl, Supervisor).

%% @doc The part of the handshake record that the channel decides: the plane's, and the flags that
%% it refuses. On several streams only a sender's own frames keep their order; the atom cache, one
%% for the whole channel, would need that of all. Both sides know the mode, and both refuse.
-spec hs_data(ctrl()) -> #hs_data{}.
hs_data({Plane, Ctrl, Streams}) ->
    (Plane:hs_data(Ctrl))#hs_data{reject_flags = reject_flags(Streams)}.

reject_flags(single) -> 0;
reject_flags(bulk) -> dist_util:strict_order_flags();
reject_flags(sender) -> dist_util:strict_order_flags().
