%% @doc What is known of the sidecar and of the links to peers, as maps. Figures of links are the
%% sidecar's, asked for page by page; the rest is `quic_dist_port''s. All is put together by who
%% asks.
-module(quic_dist_info).

-export([info/0, info/1]).
-export([certificate/1, certificates/2, name/1]).
-export_type([info/0, peer/0, connection/0, round_trip/0, amount/0, lane/0, certificate/0]).

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
    round_trip := round_trip(),
    congestion_window := non_neg_integer(),
    sent := amount(),
    received := amount(),
    lost := amount()
}.
%% One QUIC connection. The congestion window is in bytes; `lost' is of what was sent.

-type lane() :: #{lane := 0..64, queued := non_neg_integer(), sent := non_neg_integer()}.
%% One stream towards the peer, 0 is the main one: bytes that wait, and bytes that were written.

-type peer() :: #{
    channel := non_neg_integer(),
    address := {inet:ip_address(), inet:port_number()} | undefined,
    direction := dialled | accepted,
    plane := socket | stdio,
    streams := quic_dist_port:streams(),
    identity := binary() | undefined,
    uptime := non_neg_integer(),
    round_trip := round_trip(),
    congestion_window := non_neg_integer(),
    sent := amount(),
    received := amount(),
    lost := amount(),
    queued := non_neg_integer(),
    backlog := non_neg_integer(),
    connections := [connection(), ...],
    lanes := [lane()]
}.
%% The link to a peer: where its sidecar is now, which side opened it, the data plane, what its
%% certificate names, and milliseconds since it came about. `round_trip' is the one of the
%% connection with the main stream; amounts and window are of all connections together. `queued'
%% bytes wait for the network, `backlog' bytes came from the peer and wait for this VM. `lanes'
%% are those that have been used.

-type certificate() :: #{
    option := certfile | cacertfile,
    subject := binary(),
    expires := binary(),
    system_time := integer()
}.
%% What the sidecar tells of one in a file; when it expires twice, as text and in seconds.

-type info() :: #{
    state := up | starting | configuring | {down, string()},
    executable := file:filename_all(),
    os_pid := non_neg_integer() | undefined,
    listen := {inet:ip_address(), inet:port_number()} | undefined,
    options := map() | undefined,
    channels := non_neg_integer(),
    certificates := [map()],
    peers := #{node() | binary() => peer()},
    counters := #{atom() => non_neg_integer()},
    status := binary() | undefined,
    error => quic_dist_port:reason()
}.
%% `error' says why there are no `peers' and `counters' though the sidecar is up.

%% Milliseconds for all pages: who asks is not to hang on a sidecar that does.
-define(STATS_TIMEOUT, 1000).

%% @doc What is known of the sidecar: `state' (`up', or why not), `executable', `os_pid', `listen'
%% (IP address and UDP port, or `undefined'), the `options' in use, defaults included, the
%% number of `channels', and the `certificates' that are in use from files: of each the `option'
%% that names the `file', its `subject', when it `expires' (RFC 3339), and how many `days_left' that
%% is, negative when it has. Of the links to peers, by the node's name, `peers'. `counters' are the
%% sidecar's: `uptime' (ms), links `dialled' and `accepted', `dials_failed', inbound connections
%% `refused', `pending' now, `dropped_datagrams' and `dropped_connections' of strangers, `memory'
%% (bytes), `goroutines'. `status' is the URL of the status page.
-spec info() -> info() | {error, quic_dist_port:reason()}.
info() ->
    case quic_dist_port:info() of
        #{state := up} = Info -> with_stats(Info);
        #{} = Info -> without_stats(Info);
        {error, _} = Error -> Error
    end.

%% @doc The link to one peer.
-spec info(node()) -> peer() | {error, not_connected | quic_dist_port:reason()}.
info(Node) ->
    case info() of
        #{peers := #{Node := Peer}} -> Peer;
        #{error := Reason} -> {error, Reason};
        #{} -> {error, not_connected};
        {error, _} = Error -> Error
    end.

without_stats(Info) ->
    Info#{peers => #{}, counters => #{}, status => undefined}.

with_stats(Info) ->
    Deadline = erlang:monotonic_time(millisecond) + ?STATS_TIMEOUT,
    case pages(0, Deadline, #{}) of
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
pages(After, Deadline, Peers0) ->
    Timeout = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case quic_dist_port:request(stats, #{'after' => After}, stats_page, Timeout) of
        {ok, #{channels := Channels, more := More} = Page} ->
            Peers = lists:foldl(fun add_peer/2, Peers0, Channels),
            case {More, Channels} of
                {true, [_ | _]} -> pages(element(1, lists:last(Channels)), Deadline, Peers);
                _ -> {ok, Peers, Page}
            end;
        {error, _} = Error ->
            Error
    end.

add_peer(Channel, Peers) ->
    {Id, Node, Identity, Address, Port, Direction, Plane, Streams, Uptime, Backlog, Cs, Ls} =
        Channel,
    [#{round_trip := RoundTrip} | _] = Connections = [connection(C) || C <- Cs],
    Lanes = [#{lane => Lane, queued => Queued, sent => Sent} || {Lane, Queued, Sent} <- Ls],
    Peer = #{
        channel => Id,
        address => address(Address, Port),
        direction => Direction,
        plane => Plane,
        streams => Streams,
        identity =>
            case Identity of
                <<>> -> undefined;
                _ -> Identity
            end,
        uptime => Uptime,
        round_trip => RoundTrip,
        congestion_window => lists:sum([W || #{congestion_window := W} <- Connections]),
        sent => total(sent, Connections),
        received => total(received, Connections),
        lost => total(lost, Connections),
        queued => lists:sum([Queued || #{queued := Queued} <- Lanes]),
        backlog => Backlog,
        connections => Connections,
        lanes => Lanes
    },
    Peers#{name(Node) => Peer}.

connection({
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

%% An IPv6 address may come with a zone, which an ip_address() has no room for.
address(Text, Port) ->
    [Address | _] = binary:split(Text, <<"%">>),
    case inet:parse_strict_address(binary_to_list(Address)) of
        {ok, Ip} -> {Ip, Port};
        {error, einval} -> undefined
    end.

%% @doc A node's name as an atom; as it is if this VM has no such atom, and none is made: that can
%% be so until the distribution handshake is over.
-spec name(binary()) -> node() | binary().
name(Node) ->
    try
        binary_to_existing_atom(Node)
    catch
        error:_ -> Node
    end.

%% @doc One certificate of the sidecar's message; throws `not_a_time'.
-spec certificate({certfile | cacertfile, Subject :: binary(), Expires :: binary()}) ->
    certificate().
certificate({Option, Subject, Expires}) ->
    try calendar:rfc3339_to_system_time(binary_to_list(Expires)) of
        Time ->
            #{option => Option, subject => Subject, expires => Expires, system_time => Time}
    catch
        error:_ -> throw(not_a_time)
    end.

%% @doc Certificates for people: with the file that each is from, and the days that it has left.
-spec certificates([certificate()], quic_dist_config:options()) -> [map()].
certificates(Certificates, Options) ->
    Now = erlang:system_time(second),
    [
        (maps:remove(system_time, Certificate))#{
            file => maps:get(Option, Options),
            days_left => floor((Expires - Now) / 86400)
        }
     || #{option := Option, system_time := Expires} = Certificate <- Certificates
    ].
