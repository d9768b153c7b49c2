%% @doc Channels to the sidecars of peers, and the listener: what the carrier asks of the sidecar.
%%
%% A process that dials, or accepts, owns the channel that it gets: when it ends, the channel is
%% closed. A channel on stdio is then attached ({@link attach/3}) to the processes that move its
%% data: frames from the sidecar are sent on to them as `{data, Payload}', `{credit, Bytes}' and
%% `closed', and what they send they write to the port themselves. A channel with a socket is
%% released ({@link release/1}) to its socket: the end of the socket closes the channel.
-module(quic_dist_channel).

-export([listen/1, close_listener/0, accept/1]).
-export([dial/1, attach/3, release/1, give_up/1, deliver/0]).
-export_type([channel/0, listener/0, streams/0]).

-type listener() :: #{
    node := binary(),
    address := binary(),
    port_min := inet:port_number(),
    port_max := inet:port_number(),
    cookie => binary(),
    bound => {inet:ip_address(), inet:port_number()}
}.
%% What to listen at: an empty address means every address, ports 0 any port. `cookie' is our own,
%% for the sidecar to know before the first peer comes; it is not kept. `bound' is where the sidecar
%% listens.

-type channel() :: #{
    id := non_neg_integer(),
    port := port(),
    address := inet:ip_address(),
    udp_port := inet:port_number(),
    streams := streams(),
    credit := non_neg_integer(),
    claim => quic_dist_peer:claim(),
    socket => binary(),
    token => binary(),
    identity => binary(),
    meeting => binary(),
    meeting_token => binary(),
    local => gen_tcp:socket()
}.
%% A channel: its number, the Erlang port of its sidecar, where the peer's sidecar is, the mode that
%% both sidecars use, who the peer claims to be if the peer opened the channel, and the path of its
%% data: the bytes that may be written to the port at first; or the name of a socket and the token
%% that opens it. `meeting' is where the two VMs are to meet for a local link, and `local' the
%% socket that they have then.

-type streams() :: single | bulk | sender.
%% What may leave the main stream of a channel: nothing, fragmented messages, or all that names its
%% sender.

%% Milliseconds.
-define(LISTEN_TIMEOUT, 10000).
%% The sidecar of a node that was restarted keeps the UDP port for up to 2 s (PROTOCOL.md, section
%% 8), and the port is tried again so often.
-define(PREDECESSOR, 3000).
-define(TRY_AGAIN, 100).

%% @doc Listens, and if this sidecar dies, so does the next one, on the same port. A port in use may
%% be that of this node's predecessor, whose sidecar still delivers: so it is tried again for a
%% while.
-spec listen(listener()) -> {ok, listener()} | {error, quic_dist_sidecar:reason()}.
listen(Listener) ->
    listen(Listener, erlang:monotonic_time(millisecond) + ?PREDECESSOR).

listen(Listener, Deadline) ->
    Answer = quic_dist_sidecar:request(listen, Listener, listening, ?LISTEN_TIMEOUT),
    case {Answer, erlang:monotonic_time(millisecond) < Deadline} of
        {{error, {address_in_use, _}}, true} ->
            receive
            after ?TRY_AGAIN -> listen(Listener, Deadline)
            end;
        _ ->
            Answer
    end.

%% @doc Stops listening. Does not wait.
-spec close_listener() -> ok.
close_listener() ->
    quic_dist_sidecar:cast(close_listener).

%% @doc Makes the caller the acceptor of what {@link listen/1} returned: each channel that a peer
%% opens comes as the message `{accepted, channel()}'. Acceptors outlive the sidecar's owner, and so
%% bring the listener to its successor.
-spec accept(listener()) -> ok.
accept(Listener) ->
    quic_dist_sidecar:cast({accept, self(), Listener}).

%% @doc Connects to a peer's sidecar. The caller owns the channel until it is attached.
-spec dial(#{
    node := binary(),
    local := binary(),
    cookie => binary(),
    local_link => boolean(),
    targets := [quic_dist_config:endpoint()],
    timeout := timeout()
}) ->
    {ok, channel()} | {error, quic_dist_sidecar:reason()}.
dial(#{timeout := Timeout} = Parameters) ->
    AnswerTime = quic_dist_sidecar:answer_time(Timeout),
    quic_dist_sidecar:request(dial, Parameters, dialled, AnswerTime).

%% @doc Names the processes of a channel. Frames go to `Input' (data, closed) and `Output'
%% (credit). When `Output' ends, the channel is closed.
-spec attach(channel(), Input :: pid(), Output :: pid()) ->
    ok | {error, closed | quic_dist_sidecar:reason()}.
attach(#{id := Id, port := Port}, Input, Output) ->
    quic_dist_sidecar:call({attach, Port, Id, Input, Output}, infinity).

%% @doc Lets the socket own a channel, in place of a process.
-spec release(channel()) -> ok | {error, quic_dist_sidecar:reason()}.
release(#{id := Id, port := Port}) ->
    quic_dist_sidecar:call({release, Port, Id}, infinity).

%% @doc Closes a channel of the caller's that is neither attached nor released. Does not wait.
-spec give_up(channel()) -> ok.
give_up(#{id := Id, port := Port}) ->
    quic_dist_sidecar:cast({give_up, Port, Id}).

%% @doc Waits a moment until the emulator has nothing left for the channels on stdio. net_kernel
%% calls it before it ends, and with it their controllers.
-spec deliver() -> ok.
deliver() ->
    case quic_dist_sidecar:stopping() of
        {ok, Outputs, Deadline} -> flushed([flush(Output) || Output <- Outputs], Deadline);
        {error, _} -> ok
    end.

%% The reply comes by an alias: late ones are dropped.
flush(Output) ->
    Ref = monitor(process, Output, [{alias, demonitor}]),
    Output ! {flush, Ref},
    Ref.

flushed([], _) ->
    ok;
flushed([Ref | Refs], Deadline) ->
    receive
        {flushed, Ref} -> ok;
        {'DOWN', Ref, process, _, _} -> ok
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        ok
    end,
    demonitor(Ref, [flush]),
    flushed(Refs, Deadline).
