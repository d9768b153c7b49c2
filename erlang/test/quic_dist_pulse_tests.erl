%% A sidecar that hangs is found out within ten seconds, and nothing that holds up the VM too is
%% taken for that.
-module(quic_dist_pulse_tests).

-include_lib("eunit/include/eunit.hrl").

-define(BEAT, (quic_dist_pulse:interval())).

%% A sidecar that does nothing at all hangs after some beats, within ten seconds.
stopped_test() ->
    {Asked, {hangs, Overdue}, Found} = run(0, fun(_) -> ?BEAT end, fun(_) -> 7 end),
    ?assert(Found =< 10000, Found),
    ?assertEqual(Found - Asked, Overdue).

%% A sidecar whose processor time is unknown hangs after as many beats.
unknown_test() ->
    ?assertMatch({_, {hangs, _}, Found} when Found =< 10000,
        run(0, fun(_) -> ?BEAT end, fun(_) -> unknown end)).

%% A sidecar that gets some time of a busy processor may take longer, but not for ever.
busy_test() ->
    {_, {hangs, _}, Found} = run(0, fun(_) -> ?BEAT end, fun(Now) -> Now end),
    ?assert(Found > 20000 andalso Found < 60000, Found).

%% A VM that was suspended with its sidecar, however long and often, does not take it for hung.
suspended_test() ->
    Pauses = fun(N) ->
        case N rem 4 of
            0 -> 60000;
            _ -> ?BEAT
        end
    end,
    ?assertEqual(never, run(0, Pauses, fun(_) -> 7 end)).

%% A VM that is slow itself does not take its sidecar for hung.
slow_vm_test() ->
    ?assertEqual(never, run(0, fun(_) -> 3 * ?BEAT end, fun(_) -> 7 end)).

%% A sidecar that has answered is asked again, and its former delay does not count.
answered_test() ->
    Late = lists:foldl(
        fun(N, Pulse) ->
            {_, Next} = quic_dist_pulse:beat(N * ?BEAT, fun() -> 7 end, Pulse),
            Next
        end,
        quic_dist_pulse:new(0),
        [1, 2, 3]
    ),
    Again = quic_dist_pulse:answered(Late),
    ?assertMatch({ask, _}, quic_dist_pulse:beat(4 * ?BEAT, fun() -> 7 end, Again)).

%% Beats, with these times between them, for a sidecar that never answers: when it was asked, what
%% was found in the end, and when.
run(Start, Pause, CpuTime) ->
    run(1, Start, Pause, CpuTime, undefined, quic_dist_pulse:new(Start)).

run(N, _, _, _, _, _) when N > 200 ->
    never;
run(N, Before, Pause, CpuTime, Asked, Pulse0) ->
    Now = Before + Pause(N),
    case quic_dist_pulse:beat(Now, fun() -> CpuTime(Now) end, Pulse0) of
        {ask, Pulse} -> run(N + 1, Now, Pause, CpuTime, Now, Pulse);
        {wait, Pulse} -> run(N + 1, Now, Pause, CpuTime, Asked, Pulse);
        {Hangs, _} -> {Asked, Hangs, Now}
    end.
