-module(webdist_dial_tests).

-include_lib("eunit/include/eunit.hrl").

options(Given) ->
    {ok, Options} = webdist_config:check(Given),
    Options.

%% A host's own port gives a URL for each carrier, in order, with IPv6 addresses in brackets.
urls_of_a_host_test() ->
    ?assertEqual(
        [<<"http://h.example:4380">>, <<"ws://h.example:4380">>],
        webdist_dial:urls('a@h.example', "h.example", options([]))
    ),
    ?assertEqual(
        [<<"wss://[::1]:443">>],
        webdist_dial:urls('a@::1', "::1", options([{carriers, [wss]}, {port, 443}]))
    ).

%% The first pattern that matches gives all URLs.
urls_of_a_table_test() ->
    Options = options([{urls, [{"b@*", "https://b"}, {"*", ["wss://x", "h2://y"]}]}]),
    ?assertEqual([<<"https://b">>], webdist_dial:urls('b@h', "h", Options)),
    ?assertEqual([<<"wss://x">>, <<"h2://y">>], webdist_dial:urls('a@h', "h", Options)).

%% With a cacertfile no carrier in clear is used, unless an option permits it.
clear_ways_test_() ->
    Certified = #{cacertfile => <<"ca.pem">>, insecure_no_verify => false},
    Urls = [<<"http://a">>, <<"https://a">>, <<"ws://a">>],
    [
        {lists:flatten(io_lib:format("~0tp", [{Given, Identity}])),
            ?_assertEqual(Want, webdist_dial:trusted(Urls, options(Given), Identity))}
     || {Given, Identity, Want} <- [
            {[], Certified, {ok, [<<"https://a">>]}},
            {[{insecure_clear, true}], Certified, {ok, Urls}},
            {[], Certified#{insecure_no_verify := true}, {ok, Urls}},
            {[], #{insecure_no_verify => false}, {ok, Urls}}
        ]
    ] ++
        [
            ?_assertMatch(
                {error, "in clear a peer shows no certificate" ++ _},
                webdist_dial:trusted([<<"ws://a">>], options([]), Certified)
            ),
            ?_assertEqual({ok, []}, webdist_dial:trusted([], options([]), Certified))
        ].
