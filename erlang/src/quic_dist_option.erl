%% @doc Tables of options. An option is declared once, as `{Name, Type, Traits}': the check of what
%% users give, the defaults, the names in an error, and the fields of messages to the sidecar derive
%% from the table. Pure.
%%
%% The tables are in {@link quic_dist_config} and {@link webdist_config}. A value that cannot be is
%% refused with a text that says what its type accepts.
-module(quic_dist_option).

-export([check/2, names/1, defaults/1, fixed/1, secret/1, canonical/2]).
-export([fields/3, of_file/3]).
-export_type([option/0, table/0, given/0, refusal/0]).

-type table() :: [option()].
-type option() :: {Name :: atom(), quic_dist_option_type:type(), traits()}.

-type traits() :: #{
    default => term(),
    aliases => [atom()],
    secret => true,
    live => true,
    needs => atom() | {Value :: term(), atom()},
    to => [Message :: atom() | {Message :: atom(), Field :: atom()}]
}.
%% `aliases' are other names of the option. A `secret' value is in no error text. A change of a
%% `live' option takes effect while distribution runs; other options are read when it starts.
%% `needs' names another option that must be given with this one, or with this value of it.
%%
%% `to' lists the messages to the sidecar (portproto/PROTOCOL.md) that have the option as a field,
%% of the option's name unless it says another. Without `to' only the VM reads the option.

-type given() :: [{Name :: term(), Value :: term(), Source :: term()}].
%% What users gave. Earlier sources win.

-type refusal() :: {Name :: term(), Value :: term(), Source :: term(), Accepted :: string()}.

%% @doc Checks given options: all of them, also those that an earlier source hides. The result has
%% those that were given, without defaults, and for each its value and source as they were given.
-spec check(given(), table()) ->
    {ok, #{atom() => term()}, #{atom() => {Value :: term(), Source :: term()}}}
    | {error, refusal()}.
check(Given, Table) ->
    check(Given, Table, #{}, #{}).

check([{Key, Value0, Source} | Rest], Table, Checked, From) ->
    case option(Key, Table) of
        {Name, Type, _} = Option ->
            case quic_dist_option_type:check(Type, Value0) of
                {ok, _} when is_map_key(Name, Checked) ->
                    check(Rest, Table, Checked, From);
                {ok, Value} ->
                    From1 = From#{Name => {Value0, Source}},
                    check(Rest, Table, Checked#{Name => Value}, From1);
                error ->
                    Accepted = quic_dist_option_type:accepted(Type),
                    {error, {Key, shown(Option, Value0), Source, Accepted}}
            end;
        false ->
            {error, {Key, Value0, Source, known(Key, names(Table))}}
    end;
check([], Table, Checked, From) ->
    case [{Option, Other} || Option <- Table, Other <- lacks(Option, Checked)] of
        [{{Name, _, _} = Option, Other} | _] ->
            #{Name := {Value, Source}} = From,
            Accepted = "this together with " ++ atom_to_list(Other),
            {error, {Name, shown(Option, Value), Source, Accepted}};
        [] ->
            {ok, Checked, From}
    end.

option(Key, Table) ->
    lists:keyfind(canonical(Key, Table), 1, Table).

%% @doc An option's name in the table, for any of its names.
-spec canonical(term(), table()) -> term().
canonical(Key, Table) ->
    case [Name || {Name, _, #{aliases := Aliases}} <- Table, lists:member(Key, Aliases)] of
        [Name] -> Name;
        [] -> Key
    end.

lacks({Name, _, #{needs := Needs}}, Checked) ->
    case {Needs, Checked} of
        {{Value, Other}, #{Name := Value}} when not is_map_key(Other, Checked) -> [Other];
        {Other, #{Name := _}} when is_atom(Other), not is_map_key(Other, Checked) -> [Other];
        _ -> []
    end;
lacks(_, _) ->
    [].

%% A password is never shown, whatever it was mistaken for.
shown({_, _, #{secret := true}}, _) -> '***';
shown(_, Value) -> Value.

%% What is accepted in place of a name that no option has.
known(Key, Names) ->
    Meant =
        case is_atom(Key) andalso nearest(Key, Names) of
            {ok, Near} -> ": did you mean " ++ atom_to_list(Near) ++ "?";
            _ -> ""
        end,
    "one of " ++ lists:flatten(lists:join(", ", lists:map(fun atom_to_list/1, Names))) ++ Meant.

%% The name that a mistyped one may have been meant for: one that differs in two characters at most,
%% and in less than half of them.
nearest(Key, Names) ->
    Text = lists:sublist(atom_to_list(Key), 64),
    case lists:min([{distance(Text, atom_to_list(Name)), Name} || Name <- Names]) of
        {Distance, Near} when Distance =< 2, 2 * Distance < length(Text) -> {ok, Near};
        _ -> error
    end.

%% Levenshtein's, by the rows of its table.
distance(A, B) ->
    lists:last(lists:foldl(fun(C, Row) -> row(C, B, Row) end, lists:seq(0, length(B)), A)).

row(C, B, [Corner | Above]) ->
    row(C, B, Corner, Above, [Corner + 1]).

row(C, [D | B], Corner, [Up | Above], [Left | _] = Row) ->
    Same =
        case C of
            D -> Corner;
            _ -> Corner + 1
        end,
    row(C, B, Up, Above, [lists:min([Same, Up + 1, Left + 1]) | Row]);
row(_, [], _, [], Row) ->
    lists:reverse(Row).

%% Views of a table

%% @doc The names of all options.
-spec names(table()) -> [atom()].
names(Table) ->
    [Name || {Name, _, _} <- Table].

%% @doc The options that have a default, with it.
-spec defaults(table()) -> #{atom() => term()}.
defaults(Table) ->
    maps:from_list([{Name, Default} || {Name, _, #{default := Default}} <- Table]).

%% @doc The options that are read only when distribution starts.
-spec fixed(table()) -> [atom()].
fixed(Table) ->
    [Name || {Name, _, Traits} <- Table, not is_map_key(live, Traits)].

%% @doc The options whose values are shown to nobody.
-spec secret(table()) -> [atom()].
secret(Table) ->
    [Name || {Name, _, #{secret := true}} <- Table].

%% @doc The fields that these options are in a message to the sidecar. An option that is not set is
%% no field.
-spec fields(Message :: atom(), table(), #{atom() => term()}) -> quic_dist_proto:fields().
fields(Message, Table, Options) ->
    maps:from_list([
        {Field, quic_dist_option_type:encode(Type, map_get(Name, Options))}
     || {Name, Type, #{to := Targets}} <- Table,
        is_map_key(Name, Options),
        Target <- Targets,
        Field <- field(Message, Name, Target)
    ]).

field(Message, Name, Message) -> [Name];
field(Message, _, {Message, Field}) -> [Field];
field(_, _, _) -> [].

%% @doc The options whose file or folder, which the sidecar opens, is what a text begins with.
-spec of_file(binary(), table(), #{atom() => term()}) -> [atom()].
of_file(Text, Table, Options) ->
    [
        Name
     || {Name, Type, #{to := _}} <- Table,
        Type =:= file orelse Type =:= folder,
        is_map_key(Name, Options),
        string:prefix(Text, map_get(Name, Options)) =/= nomatch
    ].
