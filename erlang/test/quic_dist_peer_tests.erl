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

%% Who keeps his name passes, in either form, Latin-1 included.
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

%% Who does not, does not, however near the name is.
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

%% What the message carries beyond its name's length is not the name.
residue_test() ->
    ?assertEqual(ok, check(<<"a@h">>, new_name(<<"a@h">>) ++ "@x")),
    refused(check(<<"a@hx">>, new_name(<<"a@h">>) ++ "x"), "a@h in the").

%% A beginning of a name's message passes as nothing, or is another name: never as the name.
every_truncation_test() ->
    Whole = new_name(<<"a@h">>),
    [
        case check(<<"a@h">>, lists:sublist(Whole, N)) of
            ok -> ?assert(N < 15);
            {error, _} -> ?assert(N >= 15)
        end
     || N <- lists:seq(0, length(Whole) - 1)
    ].

%% Other messages of the handshake are none of its business.
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
        Hs = quic_dist_peer:held_to({<<"a@h">>, undefined}, {{127, 0, 0, 1}, 1}, Hs0),
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
