-module(webdist_config_tests).

-include_lib("eunit/include/eunit.hrl").

defaults_test() ->
    {ok, Options} = webdist_config:check([]),
    ?assertMatch(
        #{port := 4380, mode := compat, allow := [], method := get, hand_over := true}, Options
    ),
    ?assertNot(is_map_key(web_upstream, Options)).

%% The first value of an option counts: boot flags come before the environment.
accepted_test_() ->
    [
        {lists:flatten(io_lib:format("~0tp", [Given])),
            ?_assertMatch({ok, #{Key := Want}}, webdist_config:check(Given))}
     || {Given, Key, Want} <- [
            {[{port, 0}, {port, 80}], port, 0},
            {[{mode, router}], mode, router},
            {[{method, connect}], method, connect},
            {[{hand_over, false}], hand_over, false},
            {[{listen_address, "::1"}], listen_address, {0, 0, 0, 0, 0, 0, 0, 1}},
            {[{listen_address, {10, 0, 0, 1}}], listen_address, {10, 0, 0, 1}},
            {[{allow, ["*@h", 'a@b', <<"c@d">>]}], allow, [<<"*@h">>, <<"a@b">>, <<"c@d">>]},
            {[{names_to, []}], names_to, []},
            {[{listen, [https, http]}], listen, [http, https]},
            {[{h3, true}], h3, true},
            {[{carriers, [wss, https]}], carriers, [wss, https]},
            {[{urls, [{"*@h", "wss://g/p"}]}], urls, [{<<"*@h">>, [<<"wss://g/p">>]}]},
            {[{urls, [{'*', ["https://a", <<"h2://b">>]}]}], urls,
                [{<<"*">>, [<<"https://a">>, <<"h2://b">>]}]},
            {[{insecure_proxy, true}], insecure_proxy, true},
            {[{insecure_clear, true}], insecure_clear, true},
            {[{insecure_any_host, true}], insecure_any_host, true},
            {[{web_upstream, "http://a:80"}], web_upstream, <<"http://a:80">>}
        ]
    ].

refused_test_() ->
    [
        {lists:flatten(io_lib:format("~0tp", [Option])),
            fun() ->
                {error, Text} = webdist_config:check([Option]),
                ?assertNotEqual(nomatch, string:find(Text, "webdist: bad option")),
                ?assertNotEqual(nomatch, string:find(Text, "accepted is"))
            end}
     || Option <- [
            {port, 65536},
            {port, -1},
            {port, "4380"},
            {mode, proxy},
            {method, post},
            {hand_over, 1},
            {listen_address, "localhost"},
            {allow, "*@h"},
            {allow, [""]},
            {allow, [x || _ <- lists:seq(1, 65)]},
            {names_to, all},
            {web_upstream, "https://a"},
            {web_upstream, "http://"},
            {listen, []},
            {listen, [wss]},
            {listen, [https, https]},
            {h3, yes},
            {carriers, []},
            {carriers, [ftp]},
            {carriers, https},
            {urls, "https://a"},
            {urls, [{"*", "ftp://a"}]},
            {urls, [{"*", "https://"}]},
            {urls, [{"*", []}]},
            {urls, [{"*"}]},
            {urls, [{"*", lists:duplicate(17, "https://a")}]},
            {insecure_proxy, 1},
            {insecure_clear, yes},
            {insecure_any_host, 1},
            {colour, red}
        ]
    ].
