-module(quic_dist_proto_tests).

-include_lib("eunit/include/eunit.hrl").

-define(VECTORS, "test/vectors/portproto.txt").

vectors_test_() ->
    {ok, Text} = file:read_file(filename:join(top(filename:absname("")), ?VECTORS)),
    Stanzas = stanzas(Text),
    [?_assert(length(Stanzas) > 20)
     | [{maps:get(<<"name">>, Stanza), fun() -> vector(Stanza) end} || Stanza <- Stanzas]].

vector(#{<<"from">> := From0, <<"bytes">> := Groups} = Stanza) ->
    From = binary_to_existing_atom(From0),
    <<Size:32, Bytes:Size/binary>> = bytes(Groups),
    Decoded = quic_dist_proto:decode(From, Bytes),
    case Stanza of
        #{<<"error">> := Kind} ->
            ?assertMatch({error, _, _}, Decoded),
            ?assertEqual(binary_to_existing_atom(Kind), element(2, Decoded));
        #{<<"frame">> := Text} ->
            ?assertEqual(Text, quic_dist_proto:format(Decoded)),
            maps:get(<<"canonical">>, Stanza, <<"yes">>) =:= <<"yes">> andalso
                ?assertEqual(Bytes, encode(Decoded)),
            [truncation(From, Cut, Decoded) || Cut <- beginnings(Bytes)]
    end.

%% A data frame cut inside its payload is a shorter data frame; nothing else has a
%% beginning that is a frame.
truncation(From, Cut, {data, Channel, _}) when byte_size(Cut) > 5 ->
    ?assertMatch({data, Channel, _}, quic_dist_proto:decode(From, Cut));
truncation(From, Cut, _) ->
    ?assertMatch({error, _, _}, quic_dist_proto:decode(From, Cut)).

beginnings(Bytes) ->
    [binary:part(Bytes, 0, N) || N <- lists:seq(0, byte_size(Bytes) - 1)].

encode({data, Channel, Payload}) ->
    <<(quic_dist_proto:data_header(Channel))/binary, Payload/binary>>;
encode({credit, Channel, Bytes}) ->
    quic_dist_proto:credit(Channel, Bytes);
encode({control, Tag, Fields}) ->
    iolist_to_binary(quic_dist_proto:control(Tag, Fields)).

%% Groups of hexadecimal digits; GROUP*N stands for N times the group.
bytes(Groups) ->
    iolist_to_binary([
        case binary:split(Group, <<"*">>) of
            [Hex] -> binary:decode_hex(Hex);
            [Hex, Times] -> binary:copy(binary:decode_hex(Hex), binary_to_integer(Times))
        end
     || Group <- binary:split(Groups, <<" ">>, [global])
    ]).

%% The stanzas of a vector file: `key: value' lines, blank lines between, `#' comments.
stanzas(Text) ->
    [maps:from_list([list_to_tuple(binary:split(Line, <<": ">>)) || Line <- Lines])
     || Stanza <- binary:split(Text, <<"\n\n">>, [global]),
        Lines <- [[Line || Line <- binary:split(Stanza, <<"\n">>, [global]),
                           Line =/= <<>>, binary:first(Line) =/= $#]],
        Lines =/= []].

%% The repository's top: the first folder upwards that holds the vectors.
top(Folder) ->
    case filelib:is_regular(filename:join(Folder, ?VECTORS)) of
        true -> Folder;
        false when Folder =/= "/" -> top(filename:dirname(Folder))
    end.

%% Data frames go past all checks but their size, and the payload is not copied.
data_at_its_limit_test() ->
    Body = <<2, 7:32, 0:(quic_dist_proto:max_payload())/unit:8>>,
    {data, 7, Payload} = quic_dist_proto:decode(Body),
    ?assertEqual(quic_dist_proto:max_payload(), byte_size(Payload)),
    ?assertEqual(byte_size(Body), binary:referenced_byte_size(Payload)),
    ?assertMatch({error, too_large, _}, quic_dist_proto:decode(<<Body/binary, 0>>)).

control_at_its_limit_test() ->
    Short = encode({control, log, #{level => info, what => <<>>, facts => []}}),
    Term = fun(Size) -> <<1, 131, 109, Size:32, 0:Size/unit:8>> end,
    ?assertMatch({control, log, _}, quic_dist_proto:decode(Short)),
    ?assertMatch({error, not_a_message, _}, quic_dist_proto:decode(Term(65536 - 7))),
    ?assertMatch({error, too_large, _}, quic_dist_proto:decode(Term(65536 - 6))).

text_at_its_limit_test() ->
    Log = fun(Size) -> #{level => info, what => binary:copy(<<"x">>, Size), facts => []} end,
    ?assertMatch({control, log, _}, quic_dist_proto:decode(encode({control, log, Log(4096)}))),
    ?assertMatch({error, bad_field, _}, quic_dist_proto:decode(encode({control, log, Log(4097)}))).

refused_frames_make_no_atoms_test() ->
    Count = fun() -> erlang:system_info(atom_count) end,
    Decode = fun(N) ->
        Name = iolist_to_binary(["no_such_atom_", integer_to_list(N)]),
        Atom = <<119, (byte_size(Name)), Name/binary>>,
        Body = <<1, 131, 104, 2, Atom/binary, 116, 1:32, Atom/binary, Atom/binary>>,
        ?assertMatch({error, unknown_tag, _}, quic_dist_proto:decode(Body))
    end,
    Decode(0),
    Before = Count(),
    [Decode(N) || N <- lists:seq(1, 100)],
    ?assertEqual(Before, Count()).

refusals_do_not_show_values_test() ->
    Timeouts = #{keep_alive => 1, idle_timeout => 1, hello_timeout => 1},
    Numbers = Timeouts#{id => 1, lanes => 1, connections => 0},
    Fields = Numbers#{reset_key => <<"secret">>, password => <<>>, log_level => info},
    {error, bad_field, Text} = quic_dist_proto:decode(vm, encode({control, configure, Fields})),
    ?assertEqual(nomatch, string:find(Text, "secret")).

properties_test_() ->
    [
        {atom_to_list(Name), {timeout, 120, fun() -> ?assertEqual(true, check(Name)) end}}
     || {Name, 0} <- prop_quic_dist_proto:module_info(exports),
        lists:prefix("prop_", atom_to_list(Name))
    ].

%% True, or the counterexample.
check(Name) ->
    proper:quickcheck(prop_quic_dist_proto:Name(), [quiet, long_result, {numtests, 200}]).

%% A text is an IP address or it is not; a zone is left out.
ip_test() ->
    ?assertEqual({ok, {192, 0, 2, 7}}, quic_dist_proto:ip(<<"192.0.2.7">>)),
    ?assertEqual({ok, {16#fe80, 0, 0, 0, 0, 0, 0, 1}}, quic_dist_proto:ip(<<"fe80::1%eth0">>)),
    [?assertEqual(error, quic_dist_proto:ip(Text)) || Text <- [<<>>, <<"host">>, <<"invalid IP">>]].
