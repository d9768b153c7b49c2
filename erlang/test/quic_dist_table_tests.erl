-module(quic_dist_table_tests).
-include_lib("eunit/include/eunit.hrl").

peer(Carrier, More) ->
    Amount = #{bytes => 1048602, packets => 822},
    Peer = #{
        carrier => Carrier,
        state => up,
        direction => dialled,
        sent => Amount,
        received => Amount#{bytes := 999},
        queued => 0,
        uptime => 5000
    },
    maps:merge(Peer, More).

lines(Peers) -> lines(Peers, #{}).

lines(Peers, More) ->
    Lines = quic_dist_table:lines(maps:merge(#{state => up, peers => Peers}, More), 1000000005),
    [unicode:characters_to_list(Line) || Line <- Lines].

%% The table has a line for each peer, in the order of their names, whatever carries it.
table_test() ->
    RoundTrip = #{smoothed => 412, variation => 1, least => 1, latest => 1},
    [Head, B, C, D] = lines(#{
        'c@host' => peer(https, #{direction => accepted, queued => 25000000}),
        'b@host' => peer(quic, #{round_trip => RoundTrip}),
        <<"d@host">> => peer(quic, #{
            state => handshake, round_trip => RoundTrip#{smoothed := 120345}
        })
    }),
    Words = fun(Line) -> string:lexemes(Line, " ") end,
    ?assertEqual(
        ["Node", "Carrier", "Link", "Round", "trip", "Sent", "Received", "Queued", "Since"],
        Words(Head)
    ),
    {{2001, 9, _}, _} = calendar:system_time_to_local_time(1000000000, second),
    ?assertMatch(
        ["b@host", "quic", "dialled", "0.41", "ms", "1.05", "MB", "999", "B", "0", "B", _, _],
        Words(B)
    ),
    ?assertMatch(
        ["c@host", "https", "accepted", "1.05", "MB", "999", "B", "25.0", "MB", "2001-09-" ++ _, _],
        Words(C)
    ),
    ?assertMatch(["d@host", "quic", "dialled", "(handshake)", "120.3", "ms" | _], Words(D)),
    %% The columns stand below each other.
    [Column | _] = [string:length(Part) || [Part, _] <- [string:split(Head, "Since")]],
    [?assertMatch("2001-" ++ _, string:slice(Line, Column)) || Line <- [B, C, D]].

%% A link has the number of its outages, and says that it waits for a connection.
outages_test() ->
    None = #{count => 0, last => 0, total => 0, resent => 0, down => 0},
    Line = fun(Outages) ->
        RoundTrip = #{smoothed => 412, variation => 1, least => 1, latest => 1},
        More = #{round_trip => RoundTrip, outages => maps:merge(None, Outages)},
        [_, Of] = lines(#{'b@host' => peer(quic, More)}),
        ?assert(string:length(Of) =< 100),
        Of
    end,
    Has = fun(Text, Of) ->
        ?assertNotEqual(nomatch, string:find(Of, "quic    dialled " ++ Text))
    end,
    Has("0.41 ms", Line(#{})),
    Has("(1 outage) 0.41 ms", Line(#{count => 1})),
    Has("(3 outages) 0.41 ms", Line(#{count => 3})),
    Has("(waiting) 0.41 ms", Line(#{down => 1})),
    Has("(waiting, 12 outages) 0.41 ms", Line(#{count => 12, down => 2})).

%% Without peers, figures or distribution the table says so.
trouble_test() ->
    ?assertEqual(["No peer is connected."], lines(#{})),
    ?assertEqual(
        ["There is no sidecar: gone", "No peer is connected."],
        lines(#{}, #{state => {down, "gone"}})
    ),
    ?assertEqual(
        ["There are no figures of links over QUIC: late", "No peer is connected."],
        lines(#{}, #{error => {timeout, "late"}})
    ),
    Down = {error, {down, "it is not running"}},
    ?assertEqual(["it is not running"], quic_dist_table:lines(Down, 0)).
