%% @doc Buckets of webdist_limit.
-module(webdist_limit_tests).

-include_lib("eunit/include/eunit.hrl").

%% A bucket permits so many at once, then as many as the time gives, and never more at once.
take_test() ->
    Full = webdist_limit:new(3, 2),
    {3, Empty} = drain(Full, 1000),
    ?assertMatch({0, _}, drain(Empty, 1499)),
    {1, Later} = drain(Empty, 1500),
    ?assertMatch({2, _}, drain(Later, 2500)),
    ?assertMatch({3, _}, drain(Later, 1000000)).

%% A clock that goes back neither gives nor takes tokens.
time_test() ->
    {3, Empty} = drain(webdist_limit:new(3, 2), 1000),
    ?assertMatch({0, _}, drain(Empty, 0)).

drain(Bucket, Now) -> drain(Bucket, Now, 0).

drain(Bucket0, Now, N) ->
    case webdist_limit:take(Bucket0, Now) of
        {true, Bucket} -> drain(Bucket, Now, N + 1);
        {false, Bucket} -> {N, Bucket}
    end.
