-module(quic_dist_info_tests).
-include_lib("eunit/include/eunit.hrl").

%% A link over QUIC has the outages that the sidecar tells.
outages_test() ->
    Channel =
        {7, <<"b@h">>, <<>>, <<"10.0.0.1">>, 7001, dialled, socket, bulk, 5000, 0,
            [{tcp, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}], {3, 800, 2500, 1048576, 1}, [{0, 0, 12}]},
    {'b@h', Peer} = quic_dist_info:peer(Channel, #{7 => 'b@h'}, #{}),
    ?assertMatch(
        #{state := up, lanes := [#{sent := 12}], connections := [#{transport := tcp}]}, Peer
    ),
    ?assertEqual(
        #{count => 3, last => 800, total => 2500, resent => 1048576, down => 1},
        maps:get(outages, Peer)
    ).
