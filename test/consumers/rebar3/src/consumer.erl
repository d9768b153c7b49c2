%% @doc Says when it is up.
-module(consumer).
-behaviour(application).
-behaviour(supervisor).

-export([start/2, stop/1]).
-export([init/1]).

start(_Type, []) ->
    io:format("consumer is up: ~ts~n", [node()]),
    supervisor:start_link(?MODULE, []).

stop(_State) -> ok.

init([]) -> {ok, {#{}, []}}.
