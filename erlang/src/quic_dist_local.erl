%% @doc The data plane of a local link: one Unix-domain socket between the VMs of two nodes of one
%% host and user. No sidecar touches the data, and the link outlives both sidecars.
%%
%% The sidecars authenticate the nodes to each other, over QUIC as ever, and find that they are of
%% one place. Then they give both VMs a token, the dialler connects to the acceptor's socket ({@link
%% quic_dist_meeting}), and the channel is closed: from there on the link is like one over TCP.
-module(quic_dist_local).
-behaviour(quic_dist_plane).

-export([expect/1, meet/1, open/1, hand_over/2, hs_data/1, link/1]).

-include_lib("kernel/include/dist_util.hrl").

%% Milliseconds. The other VM is on this host; if it is too busy, the link goes over QUIC.
-define(TIMEOUT, 1000).

%% @doc Meets the peer's VM for a channel that the caller has dialled, and adds the socket to it.
%% Without the peer's VM the channel is closed.
-spec meet(quic_dist_channel:channel()) ->
    {ok, quic_dist_channel:channel()} | {error, unicode:chardata()}.
meet(#{meeting := Address, meeting_token := Token} = Channel) ->
    IsOwn = fun quic_dist_meeting:is_own_user/1,
    case quic_dist_socket:connect(Address, Token, ?TIMEOUT, IsOwn) of
        {ok, Socket} ->
            {ok, Channel#{local => Socket}};
        {error, {Name, Reason}} ->
            quic_dist_channel:give_up(Channel),
            {error, [Name, ": ", why(Reason)]}
    end.

why(stranger) -> "another program listens there";
why(timeout) -> "that node has not answered within a second";
why(closed) -> "that node does not expect this one";
why(Reason) -> inet:format_error(Reason).

%% @doc The caller, an acceptor, gets this channel again, as `{accepted, Channel}', when the peer's
%% VM has come; or not at all, and the sidecar closes the channel.
-spec expect(quic_dist_channel:channel()) -> ok.
expect(#{meeting_token := Token} = Channel) ->
    quic_dist_meeting:expect(quic_dist_socket:halves(Token), maps:remove(meeting_token, Channel)).

%% @private The channel has served.
-spec open(quic_dist_channel:channel()) -> {ok, gen_tcp:socket()} | {error, inet:posix()}.
open(#{local := Socket} = Channel) ->
    quic_dist_channel:give_up(Channel),
    case quic_dist_socket:set_buffers(Socket) of
        ok ->
            {ok, Socket};
        {error, _} = Error ->
            ok = gen_tcp:close(Socket),
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

%% @doc What the link is shown with. The address is that of the peer's sidecar.
-spec link(quic_dist_channel:channel()) -> quic_dist_links:link().
link(#{address := Ip, udp_port := UdpPort} = Channel) ->
    {Direction, Identity} =
        case Channel of
            #{claim := {_, Named}} -> {accepted, Named};
            #{} -> {dialled, maps:get(identity, Channel, undefined)}
        end,
    {web, #{
        carrier => local,
        direction => Direction,
        address => {Ip, UdpPort},
        identity => identity(Identity)
    }}.

identity(undefined) ->
    identity(<<>>);
identity(Identity) ->
    case quic_dist_sidecar:options() of
        {ok, Options} -> quic_dist_report:identity(Identity, Options);
        {error, _} -> quic_dist_report:identity(Identity, #{})
    end.
