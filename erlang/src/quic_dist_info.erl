%% @doc What is known of the sidecar and of the links to peers, as maps. The sidecar has the figures
%% of links over QUIC, and is asked for them page by page; `quic_dist_links' has names, certificates
%% and the links over HTTP; `quic_dist_sidecar' has the rest. The caller puts all of it together.
-module(quic_dist_info).

-export([info/0, info/1]).
-export([peer/3]).
-export_type([info/0, peer/0, quic_peer/0, web_peer/0]).
-export_type([connection/0, round_trip/0, amount/0, lane/0, outages/0]).

-type round_trip() :: #{
    smoothed := non_neg_integer(),
    variation := non_neg_integer(),
    least := non_neg_integer(),
    latest := non_neg_integer()
}.
%% Microseconds: the estimates of RFC 9002, section 5, and the last sample.

-type amount() :: #{bytes := non_neg_integer(), packets := non_neg_integer()}.
%% Of QUIC packets, what they repeat included, without UDP and IP headers.

-type connection() :: #{
    transport := quic | tcp,
    round_trip := round_trip(),
    congestion_window := non_neg_integer(),
    sent := amount(),
    received := amount(),
    lost := amount()
}.
%% One connection, by QUIC or by TLS over TCP (option `path'), where packets are segments. The
%% congestion window is in bytes; `lost' is of what was sent.

-type lane() :: #{lane := 0..64, queued := non_neg_integer(), sent := non_neg_integer()}.
%% One stream towards the peer, 0 is the main one: bytes that wait, and bytes that were written.

-type outages() :: #{
    count := non_neg_integer(),
    last := non_neg_integer(),
    total := non_neg_integer(),
    resent := non_neg_integer(),
    down := 0..16
}.
%% An outage begins when a QUIC connection of a link ends, and is over when another has taken its
%% place. The link goes on, and its data waits. `count' outages are over; `last' and `total' are
%% milliseconds, of the last one and of all; `resent' bytes were sent again; `down' connections are
%% missing now.

-type peer() :: quic_peer() | web_peer().

-type web_peer() :: #{
    carrier := local | webdist_config:carrier(),
    state := up,
    address := {inet:ip_address(), inet:port_number()},
    direction := dialled | accepted,
    url => binary(),
    identity := quic_dist_report:identity(),
    uptime := non_neg_integer(),
    sent := amount(),
    received := amount(),
    queued := non_neg_integer()
}.
%% A local link, one over HTTP, or by the option `fallback': what this VM counts at its socket. The
%% packets are those of the distribution; `queued' bytes wait in this VM. The address is the other
%% end of the connection, which may be a proxy; of a local link it is that of the peer's sidecar.

-type quic_peer() :: #{
    carrier := quic,
    state := up | handshake,
    channel := non_neg_integer(),
    address := {inet:ip_address(), inet:port_number()} | undefined,
    direction := dialled | accepted,
    plane := socket | stdio,
    streams := quic_dist_channel:streams(),
    identity := quic_dist_report:identity(),
    uptime := non_neg_integer(),
    round_trip := round_trip(),
    congestion_window := non_neg_integer(),
    sent := amount(),
    received := amount(),
    lost := amount(),
    queued := non_neg_integer(),
    backlog := non_neg_integer(),
    connections := [connection(), ...],
    outages := outages(),
    lanes := [lane()]
}.
%% A link over QUIC: is its distribution handshake over, where the peer's sidecar is now, which side
%% opened it, the data plane, and milliseconds since it came about. `round_trip' is the one of the
%% connection with the main stream; amounts and window are of all connections together. `queued'
%% bytes wait for the network, `backlog' bytes came from the peer and wait for this VM. `lanes'
%% are those that have been used.

-type info() :: #{
    state := up | starting | configuring | {down, string()},
    executable := file:filename_all(),
    os_pid := non_neg_integer() | undefined,
    listen := {inet:ip_address(), inet:port_number()} | undefined,
    options := map() | undefined,
    channels := non_neg_integer(),
    certificates := [map()],
    links := #{quic | local | webdist_config:carrier() => pos_integer()},
    peers := #{node() | binary() => peer()},
    counters := #{atom() => non_neg_integer()},
    status := binary() | undefined,
    error => quic_dist_sidecar:reason()
}.
%% `error' says why there are no `peers' and `counters' though the sidecar is up.

%% Milliseconds for all pages: who asks is not to hang on a sidecar that does.
-define(STATS_TIMEOUT, 1000).

%% @doc What is known of the sidecar: `state' (`up', or why not), `executable', `os_pid', `listen'
%% (IP address and UDP port, or `undefined'), the `options' in use, defaults included, the
%% number of `channels' over QUIC, and the `certificates' that are in use from files: of each the
%% `option' that names the `file', its `subject', when it `expires' (RFC 3339), and how many
%% `days_left' that is, negative when it has. Of the links to peers, by the node's name, `peers',
%% and by the carrier how many, `links'. A node that is in `nodes(connected)' is there by that name.
%% One whose distribution handshake is not over (`state') is there by the name that it claims, a
%% binary. `counters' are the sidecar's: `uptime' (ms), links over QUIC `dialled' and `accepted',
%% `dials_failed', inbound connections `refused', `pending' now, `dropped_datagrams' and
%% `dropped_connections' of strangers, `memory' (bytes), `goroutines'. `status' is the URL of the
%% status page.
-spec info() -> info() | {error, quic_dist_sidecar:reason()}.
info() ->
    case quic_dist_sidecar:info() of
        #{state := State} = Info ->
            #{names := Names, webs := Webs, certificates := Certificates} =
                quic_dist_links:known(),
            Known =
                case State of
                    up -> with_stats(Names, Info);
                    _ -> without_stats(Info)
                end,
            with_webs(Webs, Known#{certificates => quic_dist_report:days_left(Certificates)});
        {error, _} = Error ->
            Error
    end.

%% @doc The link to one peer.
-spec info(node()) -> peer() | {error, not_connected | quic_dist_sidecar:reason()}.
info(Node) ->
    case info() of
        #{peers := #{Node := Peer}} -> Peer;
        #{error := Reason} -> {error, Reason};
        #{} -> {error, not_connected};
        {error, _} = Error -> Error
    end.

%% A link over HTTP needs no sidecar. It is up, so a channel to the same peer is about to end.
with_webs(Webs, #{peers := Channels} = Info) ->
    Peers = maps:merge(Channels, maps:from_list(lists:append([web_peer(Web) || Web <- Webs]))),
    Count = fun(#{carrier := Carrier}, Counts) ->
        maps:update_with(Carrier, fun(N) -> N + 1 end, 1, Counts)
    end,
    Info#{peers := Peers, links => lists:foldl(Count, #{}, maps:values(Peers))}.

web_peer({Node, Port, Since, Web}) ->
    case quic_dist_links:figures(Port) of
        {ok, Sent, Received, Queued} ->
            [
                {Node, Web#{
                    state => up,
                    uptime => erlang:monotonic_time(millisecond) - Since,
                    sent => Sent,
                    received => Received,
                    queued => Queued
                }}
            ];
        error ->
            []
    end.

without_stats(Info) ->
    Info#{peers => #{}, counters => #{}, status => undefined}.

with_stats(Names, #{options := Options} = Info) ->
    Deadline = erlang:monotonic_time(millisecond) + ?STATS_TIMEOUT,
    case pages(0, Deadline, fun(C, Peers) -> add_peer(C, Names, Options, Peers) end, #{}) of
        {ok, Peers, #{counters := Counters, status := Status}} ->
            Info#{
                peers => Peers,
                counters => maps:from_list(Counters),
                status =>
                    case Status of
                        <<>> -> undefined;
                        _ -> Status
                    end
            };
        {error, Reason} ->
            (without_stats(Info))#{error => Reason}
    end.

%% While one link takes another's place there are two to a peer: the younger, which comes later,
%% counts.
pages(After, Deadline, Add, Peers0) ->
    Timeout = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case quic_dist_sidecar:request(stats, #{'after' => After}, stats_page, Timeout) of
        {ok, #{channels := Channels, more := More} = Page} ->
            Peers = lists:foldl(Add, Peers0, Channels),
            case {More, Channels} of
                {true, [_ | _]} ->
                    pages(element(1, lists:last(Channels)), Deadline, Add, Peers);
                _ ->
                    {ok, Peers, Page}
            end;
        {error, _} = Error ->
            Error
    end.

add_peer(Channel, Names, Options, Peers) ->
    {Name, Peer} = peer(Channel, Names, Options),
    Peers#{Name => Peer}.

%% @private The name and the figures of a link, from the CHANNEL of portproto/PROTOCOL.md.
-spec peer(tuple(), #{non_neg_integer() => node()}, map()) -> {node() | binary(), quic_peer()}.
peer(Channel, Names, Options) ->
    {Id, Node, Identity, Address, Port, Direction, Plane, Streams, Uptime, Backlog, Cs, Os, Ls} =
        Channel,
    {Count, Last, Total, Resent, Down} = Os,
    [#{round_trip := RoundTrip} | _] = Connections = [connection(C) || C <- Cs],
    Lanes = [#{lane => Lane, queued => Queued, sent => Sent} || {Lane, Queued, Sent} <- Ls],
    {Name, State} =
        case Names of
            #{Id := Known} -> {Known, up};
            #{} -> {Node, handshake}
        end,
    {Name, #{
        carrier => quic,
        state => State,
        channel => Id,
        address => address(Address, Port),
        direction => Direction,
        plane => Plane,
        streams => Streams,
        identity => quic_dist_report:identity(Identity, Options),
        uptime => Uptime,
        round_trip => RoundTrip,
        congestion_window => lists:sum([W || #{congestion_window := W} <- Connections]),
        sent => total(sent, Connections),
        received => total(received, Connections),
        lost => total(lost, Connections),
        queued => lists:sum([Queued || #{queued := Queued} <- Lanes]),
        backlog => Backlog,
        connections => Connections,
        outages => #{
            count => Count, last => Last, total => Total, resent => Resent, down => Down
        },
        lanes => Lanes
    }}.

connection({
    Transport,
    Smoothed,
    Variation,
    Least,
    Latest,
    Window,
    BytesSent,
    BytesReceived,
    BytesLost,
    PacketsSent,
    PacketsReceived,
    PacketsLost
}) ->
    #{
        transport => Transport,
        round_trip => #{
            smoothed => Smoothed, variation => Variation, least => Least, latest => Latest
        },
        congestion_window => Window,
        sent => #{bytes => BytesSent, packets => PacketsSent},
        received => #{bytes => BytesReceived, packets => PacketsReceived},
        lost => #{bytes => BytesLost, packets => PacketsLost}
    }.

total(Key, Connections) ->
    #{
        bytes => lists:sum([Bytes || #{Key := #{bytes := Bytes}} <- Connections]),
        packets => lists:sum([Packets || #{Key := #{packets := Packets}} <- Connections])
    }.

address(Text, Port) ->
    case quic_dist_proto:ip(Text) of
        {ok, Ip} -> {Ip, Port};
        error -> undefined
    end.
