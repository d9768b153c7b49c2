%% @doc Which lines of the log repeat earlier ones: an unchanged failure is logged once, and then
%% once a minute with the number of times.
%%
%% Pure: its owner keeps the value. The value is bounded: when it is full, the line that was logged
%% longest ago is forgotten, and so is logged in full when it comes again.
-module(quic_dist_repeats).

-export([new/0, add/4, ended/2]).
-export_type([repeats/0]).

-record(said, {
    text :: binary(),
    %% Milliseconds of monotonic time: the last line, and the last time that it happened.
    told :: integer(),
    last :: integer(),
    %% How often it happened in all, and since the last line.
    times :: pos_integer(),
    untold :: non_neg_integer()
}).

-opaque repeats() :: #{term() => #said{}}.
%% The keys say what a line is about, such as a node that is not reached.

-define(EACH, 60000).
-define(FORGET, 600000).
-define(MOST, 256).

%% @doc Nothing was logged yet.
-spec new() -> repeats().
new() ->
    #{}.

%% @doc Something happened. `say': log it; `{again, Times}': log that it has happened so often since
%% the last line; `silent': log nothing.
-spec add(Key :: term(), unicode:chardata(), Now :: integer(), repeats()) ->
    {say | {again, pos_integer()} | silent, repeats()}.
add(Key, Text, Now, Repeats) ->
    Core = core(Text),
    case Repeats of
        #{Key := #said{text = Core, last = Last} = Said0} when Now - Last < ?FORGET ->
            #said{told = Told, times = Times, untold = Untold} = Said0,
            Said = Said0#said{last = Now, times = Times + 1},
            case Now - Told >= ?EACH of
                true -> {{again, Untold + 1}, Repeats#{Key := Said#said{told = Now, untold = 0}}};
                false -> {silent, Repeats#{Key := Said#said{untold = Untold + 1}}}
            end;
        _ ->
            Said = #said{text = Core, told = Now, last = Now, times = 1, untold = 0},
            {say, (room(Key, Repeats))#{Key => Said}}
    end.

%% @doc It does not happen any more. Returns how often it has happened with its last text.
-spec ended(Key :: term(), repeats()) -> {non_neg_integer(), repeats()}.
ended(Key, Repeats) ->
    case maps:take(Key, Repeats) of
        {#said{times = Times}, Rest} -> {Times, Rest};
        error -> {0, Repeats}
    end.

room(Key, Repeats) when map_size(Repeats) < ?MOST; is_map_key(Key, Repeats) ->
    Repeats;
room(_, Repeats) ->
    {_, Oldest} = lists:min([{Last, Key} || {Key, #said{last = Last}} <- maps:to_list(Repeats)]),
    maps:remove(Oldest, Repeats).

%% The part of a text that makes it another one: not how long an attempt took, nor the order in
%% which several addresses failed.
core(Text) ->
    Bytes = unicode:characters_to_binary(Text),
    Timeless = re:replace(Bytes, "\\b[0-9.]+(ms|s|\\x{b5}s)\\b", "", [global, {return, binary}]),
    iolist_to_binary(lists:join("; ", lists:sort(binary:split(Timeless, <<"; ">>, [global])))).
