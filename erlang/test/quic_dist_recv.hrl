%% A receive with a deadline, as an expression; new variables of the pattern are seen in Value only.
-define(recv(Pattern, Value, Time),
    (fun() ->
        receive
            Pattern -> Value
        after quic_dist_wait:scale(Time) ->
            error({timeout, ?FUNCTION_NAME, ?LINE, ??Pattern, quic_dist_wait:flush()})
        end
    end)()
).
-define(recv(Pattern, Value), ?recv(Pattern, Value, 10000)).
-define(recv(Pattern), ?recv(Pattern, ok)).
