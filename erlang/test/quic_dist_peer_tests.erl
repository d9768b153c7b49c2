-module(quic_dist_peer_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/dist_util.hrl").

check(Node, Message) -> quic_dist_peer:check({Node, undefined}, Message).

%% The messages of the handshake that carry the dialler's name, as OTP writes them.
new_name(Name) ->
    binary_to_list(<<$N, 0:64, 1:32, (byte_size(Name)):16, Name/binary>>).

old_name(Name) ->
    binary_to_list(<<$n, 5:16, 0:32, Name/binary>>).

refused(Result, Words) ->
    {error, Text} = Result,
    ?assertMatch({match, _}, re:run(unicode:characters_to_binary(Text), Words, [unicode])).

%% A peer that keeps its name passes, in either form of the message, Latin-1 included.
same_name_test() ->
    [
        ?assertEqual(ok, check(Node, Form(Name)))
     || Form <- [fun new_name/1, fun old_name/1],
        {Node, Name} <- [
            {<<"a@h">>, <<"a@h">>},
            {<<"ü@h"/utf8>>, <<"ü@h">>},
            {<<"undefined@h">>, <<"undefined@h">>},
            %% A node that asks for a name.
            {<<"undefined@h">>, <<"h">>}
        ]
    ].

%% A peer that changes its name does not pass, however near the new name is.
other_name_test() ->
    [
        refused(check(Node, Form(Name)), "in the distribution handshake and .* in its hello")
     || Form <- [fun new_name/1, fun old_name/1],
        {Node, Name} <- [
            {<<"a@h">>, <<"b@h">>},
            {<<"a@h">>, <<"a@h2">>},
            {<<"a@h">>, <<"a@">>},
            {<<"a@h">>, <<>>},
            {<<"a@h">>, <<"h">>},
            {<<"a@h">>, <<"A@h">>},
            {<<"a@h">>, <<"a@h", 0>>},
            {<<"undefined@h">>, <<"g">>},
            {<<"undefined@h">>, <<"a@h">>},
            {<<"ü@h"/utf8>>, <<"ü@h"/utf8>>},
            {<<"a@h">>, binary:copy(<<255>>, 65535)}
        ]
    ].

%% No peer passes with the name of a node that is not distributed, whatever it claimed.
nobody_test() ->
    [
        refused(quic_dist_peer:check(Claim, Form(<<"nonode@nohost">>)), "the name of no node")
     || Form <- [fun new_name/1, fun old_name/1],
        Claim <- [
            {<<"nonode@nohost">>, undefined},
            {<<"a@h">>, undefined},
            {unclaimed, fun(_, _) -> ok end}
        ]
    ].

%% Bytes beyond the length of a name are not part of it.
residue_test() ->
    ?assertEqual(ok, check(<<"a@h">>, new_name(<<"a@h">>) ++ "@x")),
    refused(check(<<"a@hx">>, new_name(<<"a@h">>) ++ "x"), "a@h in the").

%% A truncated message of a name is no name or another name, never the name itself.
every_truncation_test() ->
    Whole = new_name(<<"a@h">>),
    [
        case check(<<"a@h">>, lists:sublist(Whole, N)) of
            ok -> ?assert(N < 15);
            {error, _} -> ?assert(N >= 15)
        end
     || N <- lists:seq(0, length(Whole) - 1)
    ].

%% Other messages of the handshake pass unchecked.
other_messages_test() ->
    Others = ["", "sok", "r1234", "a", "c12345678", [0, 255]],
    [?assertEqual(ok, check(<<"a@h">>, Message)) || Message <- Others].

%% The log has all three names, on one line, and not all of a long one.
words_test() ->
    {error, Text} = quic_dist_peer:check(
        {<<"a@h">>, <<"node c@h">>}, new_name(<<"b", 10, 27, "@h">>)
    ),
    ?assertEqual(
        <<"the peer calls itself b\\n\\e@h in the distribution handshake and a@h in its hello; "
            "its certificate names node c@h">>,
        unicode:characters_to_binary(Text)
    ),
    {error, Long} = check(<<"a@h">>, new_name(binary:copy(<<"x">>, 60000))),
    ?assert(string:length(Long) < 400).

%% The receiver passes everything on but a wrong name, which ends the handshake.
receiver_test() ->
    Given = fun(Result) ->
        Hs0 = #hs_data{f_recv = fun(ctrl, 0, infinity) -> Result end},
        Hs = quic_dist_peer:require_name({<<"a@h">>, undefined}, {{127, 0, 0, 1}, 1}, Hs0),
        (Hs#hs_data.f_recv)(ctrl, 0, infinity)
    end,
    Good = new_name(<<"a@h">>),
    ?assertEqual({ok, Good}, Given({ok, Good})),
    ?assertEqual({ok, "sok"}, Given({ok, "sok"})),
    ?assertEqual({error, closed}, Given({error, closed})),
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    ?assertEqual({error, refused}, Given({ok, new_name(<<"b@h">>)})),
    ok = logger:set_primary_config(level, Level).

%% A name is known if there is an atom of it, and asking makes none; a host's alone gets a new name.
is_known_test() ->
    %% The compiler would do away with an atom of a constant that nobody uses.
    Unique = fun() ->
        "is_known_test_" ++ integer_to_list(erlang:unique_integer([positive])) ++ "@host"
    end,
    Known = Unique(),
    _ = list_to_atom(Known),
    New = Unique(),
    Messages = fun(Name) ->
        Size = length(Name),
        [
            [$N | lists:duplicate(12, 0)] ++ [Size div 256, Size rem 256 | Name],
            [$n | lists:duplicate(6, 0)] ++ Name
        ]
    end,
    [?assert(quic_dist_peer:is_known(M)) || M <- Messages(Known) ++ ["sok", "", "N"]],
    [?assertNot(quic_dist_peer:is_known(M)) || M <- Messages(New) ++ Messages("localhost")],
    ?assertError(badarg, list_to_existing_atom(New)).
