-module(quic_dist_admit_tests).

-include_lib("eunit/include/eunit.hrl").

%% A star in a pattern matches any characters, or none. All other characters match themselves.
matches_test_() ->
    [
        {lists:concat([Name, " ", Pattern]),
            ?_assertEqual(
                Expected,
                quic_dist_admit:matches(list_to_binary(Name), list_to_binary(Pattern))
            )}
     || {Name, Pattern, Expected} <- [
            {"a@h", "a@h", true},
            {"a@h", "a@hh", false},
            {"aa@h", "a@h", false},
            {"a@h", "A@h", false},
            {"a@h", "*", true},
            {"a@h", "**", true},
            {"a@h", "*@*", true},
            {"a@h", "a@*", true},
            {"a@h", "*@h", true},
            {"a@h", "*@hh", false},
            {"a@h", "b@*", false},
            {"a@h", "*a*@*h*", true},
            {"a1@h", "a*@h", true},
            {"a@h.evil", "*@h", false},
            {"evil.a@h", "a*", false},
            {"web7@db.example.org", "web*@*.example.org", true},
            {"web7@db.example.org", "web*@*.example.com", false},
            {"web7@example.org", "web*@*.example.org", false},
            %% What one star takes another cannot have.
            {"ab@h", "ab*b@h", false},
            {"abb@h", "ab*b@h", true},
            {"aba@aba", "aba*aba@aba", false},
            {"x@aab", "*ab", true},
            {"x@abab", "*ab*ab", true},
            {"x@ab", "*ab*ab", false},
            {"a?@h", "a?@h", true},
            {"ab@h", "a?@h", false},
            {"a.@h", "a.@h", true},
            {"ax@h", "a.@h", false}
        ]
    ].

may_connect_test() ->
    May = fun(Node, Options) -> quic_dist_admit:may_connect(Node, Options) end,
    ?assert(May(<<"a@h">>, #{})),
    ?assertNot(May(<<"a@h">>, #{allow => []})),
    ?assert(May(<<"a@h">>, #{allow => [<<"b@*">>, <<"*@h">>]})),
    ?assertNot(May(<<"a@i">>, #{allow => [<<"b@*">>, <<"*@h">>]})).

%% The sidecar gets no cookie where certificates authenticate, and none without distribution.
cookie_test() ->
    ?assertEqual(#{}, quic_dist_admit:cookie('a@h', #{cacertfile => <<"ca.pem">>})),
    ?assertEqual(#{}, quic_dist_admit:cookie('a@h', #{})).

strangers_names_make_no_atoms_test() ->
    Ask = fun(N) ->
        Name = iolist_to_binary(["no_such_node_", integer_to_list(N), "@nowhere"]),
        ?assertEqual(#{}, quic_dist_admit:cookie(Name, #{})),
        ?assertNot(quic_dist_admit:may_connect(Name, #{allow => [<<"*@h">>]}))
    end,
    Ask(0),
    Before = erlang:system_info(atom_count),
    [Ask(N) || N <- lists:seq(1, 100)],
    Ask(binary_to_integer(binary:copy(<<"7">>, 1000))),
    ?assertEqual(Before, erlang:system_info(atom_count)).
