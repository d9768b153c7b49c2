%% @doc Decides whether the sidecar hangs. Its owner pings it at each beat; this module says when an
%% answer is so late that the sidecar is stopped or hangs.
%%
%% A suspended machine, a SIGSTOP for a whole service, or a move of the VM to another host holds up
%% the VM too, and says nothing about the sidecar. So time is counted in beats, and only in beats
%% that came in time: at each of them this VM had the processor, and the sidecar had not answered. A
%% sidecar that uses processor time, on a busy machine, gets more beats.
-module(quic_dist_pulse).

-export([new/1, beat/3, answered/1, interval/0]).
-export_type([pulse/0, cpu_time/0]).

-record(pulse, {
    %% Milliseconds: the last beat, and the first that counts against the sidecar.
    last :: integer(),
    since :: undefined | integer(),
    %% The sidecar was pinged, and has not answered.
    asked = false :: boolean(),
    %% Beats in time since then, and the sidecar's processor time at the first of them.
    missed = 0 :: non_neg_integer(),
    cpu_time = unknown :: cpu_time()
}).

-opaque pulse() :: #pulse{}.

-type cpu_time() :: non_neg_integer() | unknown.
%% The processor time of a process, in any unit.

%% Milliseconds between two beats. A beat that comes later than after twice that was held up.
-define(INTERVAL, 1500).
%% Beats without an answer after which a sidecar hangs: one that uses no processor time, and one
%% that does.
-define(IDLE, 4).
-define(BUSY, 20).

%% @doc The pulse of a sidecar that has just come up.
-spec new(Now :: integer()) -> pulse().
new(Now) ->
    #pulse{last = Now}.

%% @doc Milliseconds from one beat to the next.
-spec interval() -> pos_integer().
interval() ->
    ?INTERVAL.

%% @doc A beat: what to do, and for `hangs' how many milliseconds the answer is overdue. `CpuTime'
%% is called only if an answer is late.
-spec beat(Now :: integer(), fun(() -> cpu_time()), pulse()) ->
    {ask | wait | {hangs, non_neg_integer()}, pulse()}.
beat(Now, _, #pulse{asked = false} = Pulse) ->
    {ask, Pulse#pulse{last = Now, asked = true, missed = 0}};
beat(Now, _, #pulse{last = Last} = Pulse) when Now - Last > 2 * ?INTERVAL ->
    {wait, Pulse#pulse{last = Now, missed = 0}};
beat(Now, CpuTime, #pulse{missed = 0} = Pulse) ->
    {wait, Pulse#pulse{last = Now, since = Now, missed = 1, cpu_time = CpuTime()}};
beat(Now, CpuTime, #pulse{since = Since, missed = Missed, cpu_time = Before} = Pulse0) ->
    Pulse = Pulse0#pulse{last = Now, missed = Missed + 1},
    Hangs = Missed + 1 >= ?BUSY orelse Missed + 1 >= ?IDLE andalso CpuTime() =:= Before,
    case Hangs of
        true -> {{hangs, ?INTERVAL + Now - Since}, Pulse};
        false -> {wait, Pulse}
    end.

%% @doc The sidecar has answered.
-spec answered(pulse()) -> pulse().
answered(Pulse) ->
    Pulse#pulse{asked = false, missed = 0}.
