-module(quic_dist_repeats_tests).
-include_lib("eunit/include/eunit.hrl").

%% What is said of each time, of which each is {Key, Text, Milliseconds}.
said(Times) ->
    {Said, _} = lists:mapfoldl(
        fun({Key, Text, Now}, Repeats) -> quic_dist_repeats:add(Key, Text, Now, Repeats) end,
        quic_dist_repeats:new(),
        Times
    ),
    Said.

%% An unchanged failure is logged once, and then once a minute with its count.
unchanged_test() ->
    Times = [{a, "refused", 1000 * Second} || Second <- lists:seq(0, 120, 20)],
    ?assertEqual([say, silent, silent, {again, 3}, silent, silent, {again, 3}], said(Times)).

%% Another reason, another peer, and a failure of long ago are logged at once.
changed_test() ->
    ?assertEqual([say, say, say], said([{a, "refused", 0}, {a, "timeout", 1}, {a, "refused", 2}])),
    ?assertEqual([say, say], said([{a, "refused", 0}, {b, "refused", 1}])),
    ?assertEqual([say, say], said([{a, "refused", 0}, {a, "refused", 600001}])).

%% The time of an attempt, and the order in which addresses failed, do not make another reason.
core_test() ->
    ?assertEqual(
        [say, silent],
        said([
            {a, "10.0.0.1:7001: no answer within 6.3s; [::1]:7001: refused", 0},
            {a, "[::1]:7001: refused; 10.0.0.1:7001: no answer within 980ms", 1}
        ])
    ),
    ?assertEqual(
        [say, say], said([{a, "10.0.0.1:7001: refused", 0}, {a, "10.0.0.1:7002: refused", 1}])
    ).

%% A failure that has ended is logged when it begins again, and the end has its count.
ended_test() ->
    Add = fun(Now, Repeats) -> element(2, quic_dist_repeats:add(a, "refused", Now, Repeats)) end,
    Twice = Add(1, Add(0, quic_dist_repeats:new())),
    {2, Ended} = quic_dist_repeats:ended(a, Twice),
    ?assertMatch({say, _}, quic_dist_repeats:add(a, "refused", 2, Ended)),
    ?assertMatch({0, _}, quic_dist_repeats:ended(a, Ended)).

%% The memory is bounded: the oldest of many failures is forgotten.
bounded_test() ->
    Many = [{Key, "refused", Key} || Key <- lists:seq(1, 300)],
    Again = [{1, "refused", 301}, {300, "refused", 302}],
    ?assertEqual([say, silent], lists:nthtail(300, said(Many ++ Again))).
