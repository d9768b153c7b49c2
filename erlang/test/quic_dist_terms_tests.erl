%% @doc The vectors of terms as text are what Erlang itself reads and writes. The executable reads
%% and prints terms without a VM (internal/erlang/term), and has to agree.
-module(quic_dist_terms_tests).

-include_lib("eunit/include/eunit.hrl").

-define(VECTORS, "test/vectors/terms.txt").

vectors_test_() ->
    {ok, Text} = file:read_file(filename:join(top(filename:absname("")), ?VECTORS)),
    Stanzas = stanzas(Text),
    [
        ?_assert(length(Stanzas) > 100)
        | [{maps:get(<<"name">>, Stanza), fun() -> vector(Stanza) end} || Stanza <- Stanzas]
    ].

vector(#{<<"error">> := _, <<"text">> := Text}) ->
    ?assertMatch({error, _}, parse(Text));
vector(#{<<"bytes">> := Hex} = Stanza) ->
    Bytes = binary:decode_hex(binary:replace(Hex, <<" ">>, <<>>, [global])),
    Term = binary_to_term(Bytes),
    Written = term_to_binary(Term, [deterministic, {minor_version, 2}]),
    %% How pids, ports, references and functions are written differs between releases of OTP.
    case is_map_key(<<"text">>, Stanza) of
        true -> ?assertEqual(Bytes, Written);
        false -> ?assertEqual(Term, binary_to_term(Written))
    end,
    Read = [Text || Key <- [<<"text">>, <<"print">>], #{Key := Text} <- [Stanza]],
    %% What is printed of pids, ports, references and functions cannot be read again.
    [?assertEqual({ok, Term}, parse(Text)) || is_map_key(<<"text">>, Stanza), Text <- Read].

parse(Text) ->
    case erl_scan:string(unicode:characters_to_list([Text, " ."])) of
        {ok, Tokens, _} ->
            case erl_parse:parse_term(Tokens) of
                {ok, Term} -> {ok, Term};
                {error, Reason} -> {error, Reason}
            end;
        {error, Reason, _} ->
            {error, Reason}
    end.

stanzas(Text) ->
    Blocks = [lines(Block) || Block <- binary:split(Text, <<"\n\n">>, [global])],
    [maps:from_list(Lines) || [_ | _] = Lines <- Blocks].

lines(Block) ->
    [
        list_to_tuple(binary:split(Line, <<": ">>))
     || <<C, _/binary>> = Line <- binary:split(Block, <<"\n">>, [global]), C =/= $#
    ].

%% The repository's top: the first folder upwards that holds the vectors.
top(Folder) ->
    case filelib:is_regular(filename:join(Folder, ?VECTORS)) of
        true -> Folder;
        false when Folder =/= "/" -> top(filename:dirname(Folder))
    end.
