%% @doc How often something may happen that strangers cause: a bucket of tokens, of which each takes
%% one, and which fills at its rate. Pure.
-module(webdist_limit).

-export([new/2, take/2]).
-export_type([bucket/0]).

-opaque bucket() ::
    {Most :: pos_integer(), PerSecond :: pos_integer(), Left :: float(), At :: none | integer()}.

%% @doc A full bucket of so many tokens.
-spec new(Most :: pos_integer(), PerSecond :: pos_integer()) -> bucket().
new(Most, PerSecond) ->
    {Most, PerSecond, float(Most), none}.

%% @doc Takes a token, at a time in milliseconds, if there is one.
-spec take(bucket(), Now :: integer()) -> {boolean(), bucket()}.
take({Most, PerSecond, Left, none}, Now) ->
    take({Most, PerSecond, Left, Now}, Now);
take({Most, PerSecond, Left0, At}, Now) ->
    Left = min(float(Most), Left0 + max(0, Now - At) * PerSecond / 1000),
    case Left >= 1 of
        true -> {true, {Most, PerSecond, Left - 1, Now}};
        false -> {false, {Most, PerSecond, Left, Now}}
    end.
