%% @doc Where options are given: boot flags, option files, and the environment of applications. All
%% of it can be read at boot, when there is no file server and nothing of ours has been started.
-module(quic_dist_source).

-export([boot_flags/1, flags/2, option_files/1, environment/2]).
-export_type([pairs/0, error/0]).

-type pairs() :: [{Key :: term(), Value :: term()}].

-type error() :: {bad_source, Source :: string(), Found :: string(), Accepted :: string()}.
%% Thrown by all functions here. The texts are for people.

%% @doc The options behind each boot flag `-Flag'; empty if there is no such flag.
-spec boot_flags(atom()) -> [pairs()].
boot_flags(Flag) ->
    case init:get_argument(Flag) of
        {ok, Occurrences} -> [flags(Flag, Words) || Words <- Occurrences];
        error -> []
    end.

%% @doc The words behind one `-Flag' as options. `Key Value' may be repeated.
-spec flags(atom(), [string()]) -> pairs().
flags(Flag, [Key, Value | Rest]) ->
    [{list_to_atom(Key), term(Value)} | flags(Flag, Rest)];
flags(_, []) ->
    [];
flags(Flag, [Key]) ->
    Name = "-" ++ atom_to_list(Flag),
    throw({bad_source, "boot flag " ++ Name ++ " " ++ Key, "has no value", Name ++ " Key Value"}).

%% A word that does not parse as a term is a string: `-quic_dist certfile /etc/ssl/node.pem'. It may
%% still have the quotes that were meant for a shell or vm.args: relx's remote_console keeps them.
term([$', $" | _] = Word) ->
    case lists:suffix("\"'", Word) of
        true -> term(lists:droplast(tl(Word)));
        false -> parsed(Word)
    end;
term(Word) ->
    parsed(Word).

parsed(Word) ->
    case erl_scan:string(Word ++ " .") of
        {ok, Tokens, _} ->
            case erl_parse:parse_term(Tokens) of
                {ok, Term} -> Term;
                {error, _} -> Word
            end;
        {error, _, _} ->
            Word
    end.

%% @doc The options of each file that a boot flag `-Flag File' names: `{Key, Value}.' terms, or one
%% list of them.
-spec option_files(atom()) -> [{Source :: string(), pairs()}].
option_files(Flag) ->
    case init:get_argument(Flag) of
        {ok, Occurrences} -> [option_file(Flag, Words) || Words <- Occurrences];
        error -> []
    end.

option_file(_, [File]) ->
    Source = "option file " ++ File,
    case erl_prim_loader:get_file(File) of
        {ok, Bytes, _} -> {Source, options(Source, terms(Source, Bytes))};
        error -> throw({bad_source, Source, "cannot be read", "the name of a readable file"})
    end;
option_file(Flag, _) ->
    throw({bad_source, "boot flag -" ++ atom_to_list(Flag), "needs one value", "one file name"}).

terms(Source, Bytes) ->
    Accepted = "{Key, Value}. terms in UTF-8",
    case unicode:characters_to_list(Bytes) of
        Chars when is_list(Chars) ->
            case erl_scan:string(Chars) of
                {ok, Tokens, _} -> parse(Source, Accepted, split(Tokens, []));
                {error, Info, _} -> throw({bad_source, Source, syntax_error(Info), Accepted})
            end;
        _ ->
            throw({bad_source, Source, "is not UTF-8", Accepted})
    end.

split([{dot, _} = Dot | Rest], Acc) -> [lists:reverse(Acc, [Dot]) | split(Rest, [])];
split([Token | Rest], Acc) -> split(Rest, [Token | Acc]);
split([], []) -> [];
split([], Acc) -> [lists:reverse(Acc)].

parse(Source, Accepted, [Tokens | Rest]) ->
    case erl_parse:parse_term(Tokens) of
        {ok, Term} -> [Term | parse(Source, Accepted, Rest)];
        {error, Info} -> throw({bad_source, Source, syntax_error(Info), Accepted})
    end;
parse(_, _, []) ->
    [].

syntax_error({Line, Module, Info}) ->
    lists:flatten(io_lib:format("line ~tw: ~ts", [Line, Module:format_error(Info)])).

options(Source, [Options]) when is_list(Options) ->
    options(Source, Options);
options(Source, Options) ->
    case lists:all(fun is_pair/1, Options) of
        true ->
            Options;
        false ->
            throw({bad_source, Source, "holds a term that is not {Key, Value}", "{Key, Value}."})
    end.

is_pair({_, _}) -> true;
is_pair(_) -> false.

%% @doc The environment of an application. `Load' loads it, which starts nothing.
%%
%% A release's boot script has loaded the application. On plain `erl -config' nothing has, and the
%% file's environment shows only after that. Without `-config' there is nothing to load for, and
%% loading would complain of boot flags whose value is not a term.
-spec environment(atom(), Load :: atom() | tuple()) -> pairs().
environment(Application, Load) ->
    _ =
        case init:get_argument(config) of
            {ok, _} -> application:load(Load);
            error -> ok
        end,
    lists:keydelete(included_applications, 1, application:get_all_env(Application)).
