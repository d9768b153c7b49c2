-module(quic_dist_events_tests).
-include_lib("eunit/include/eunit.hrl").

%% Programs can subscribe to each event that the sidecar reports.
kinds_test() ->
    {log, Fields} = lists:keyfind(log, 1, quic_dist_proto:messages(sidecar)),
    {event, {optional, {atom, Reported}}} = lists:keyfind(event, 1, Fields),
    ?assertEqual([], Reported -- quic_dist_events:kinds()).

%% A line of the log about a connection of a link is an event with its facts.
connection_test() ->
    [
        ?assertEqual(
            {ok, #{event => Kind, text => <<"it">>, facts => #{<<"node">> => <<"b@h">>}}},
            quic_dist_report:event(#{
                event => Kind, level => info, what => <<"it">>, facts => [{<<"node">>, <<"b@h">>}]
            })
        )
     || Kind <- [connection_ended, connection_resumed]
    ].
