%% @doc Properties of the control protocol's codec, run by quic_dist_proto_tests.
-module(prop_quic_dist_proto).

-include_lib("proper/include/proper.hrl").

-export([prop_messages_survive_the_wire/0, prop_data_and_credit_survive_the_wire/0,
         prop_integers_have_bounds/0,
         prop_any_bytes_are_answered/0, prop_any_term_is_answered/0,
         prop_damaged_frames_are_answered/0]).

prop_messages_survive_the_wire() ->
    ?FORALL({From, {Tag, Fields}}, ?LET(From, side(), {From, message(From)}),
            {control, Tag, Fields} =:= quic_dist_proto:decode(From, encode(Tag, Fields))).

prop_data_and_credit_survive_the_wire() ->
    ?FORALL({Channel, Payload, Bytes},
            {channel(), ?SUCHTHAT(P, binary(), P =/= <<>>), range(1, 16#7fffffff)},
            begin
                Data = <<(quic_dist_proto:data_header(Channel))/binary, Payload/binary>>,
                Credit = quic_dist_proto:credit(Channel, Bytes),
                {data, Channel, Payload} =:= quic_dist_proto:decode(Data)
                    andalso {credit, Channel, Bytes} =:= quic_dist_proto:decode(Credit)
            end).

prop_integers_have_bounds() ->
    ?FORALL({{Tag, Fields}, {Name, {integer, Min, Max}}, N},
            {configure(), oneof([Field || {_, {integer, _, _}} = Field <- configure_fields()]),
             oneof([integer(), integer(-16#80000000, 16#1ffffffff)])},
            case quic_dist_proto:decode(vm, encode(Tag, Fields#{Name := N})) of
                {control, Tag, #{Name := N}} -> N >= Min andalso N =< Max;
                {error, bad_field, _} -> N < Min orelse N > Max
            end).

prop_any_bytes_are_answered() ->
    ?FORALL({From, Bytes}, {side(), oneof([binary(), ?LET(B, binary(), <<1, 131, B/binary>>)])},
            is_answered(From, Bytes)).

prop_any_term_is_answered() ->
    ?FORALL({From, Term}, {side(), oneof([any(), likely_term()])},
            is_answered(From, <<1, (term_to_binary(Term))/binary>>)).

prop_damaged_frames_are_answered() ->
    ?FORALL({From, {Tag, Fields}}, ?LET(From, side(), {From, message(From)}),
            ?FORALL(Bytes, damaged(encode(Tag, Fields)), is_answered(From, Bytes))).

%% Either a refusal of a known kind, or a frame that OTP reads the same way and
%% whose text form is of printable bytes.
is_answered(From, Bytes) ->
    case quic_dist_proto:decode(From, Bytes) of
        {error, Kind, Text} ->
            lists:member(Kind, [empty, too_large, truncated, unknown_type, bad_term, not_a_message,
                                unknown_tag, unknown_field, missing_field, bad_field])
                andalso is_list(unicode:characters_to_list(Text));
        {control, Tag, Fields} = Frame ->
            <<1, Term/binary>> = Bytes,
            {Tag, Fields} =:= binary_to_term(Term) andalso is_printable(Frame);
        Frame ->
            is_printable(Frame)
    end.

is_printable(Frame) ->
    [] =:= [Byte || <<Byte>> <= quic_dist_proto:format(Frame), Byte < 16#20 orelse Byte > 16#7e].

encode(Tag, Fields) ->
    iolist_to_binary(quic_dist_proto:control(Tag, Fields)).

%%% Generators

side() ->
    oneof([vm, sidecar]).

tag() ->
    oneof([Tag || From <- [vm, sidecar], {Tag, _} <- quic_dist_proto:messages(From)]).

likely_term() ->
    ?LET({Tag, Pairs}, {tag(), list({tag(), any()})}, {Tag, maps:from_list(Pairs)}).

channel() ->
    range(0, 16#ffffffff).

configure_fields() ->
    {configure, Types} = lists:keyfind(configure, 1, quic_dist_proto:messages(vm)),
    Types.

configure() ->
    message_of(configure, configure_fields()).

message(From) ->
    ?LET({Tag, Types}, oneof(quic_dist_proto:messages(From)), message_of(Tag, Types)).

message_of(Tag, Types) ->
    ?LET(Pairs, [{Name, field(Type)} || {Name, Type} <- Types],
         {Tag, maps:from_list([Pair || {_, Value} = Pair <- Pairs, Value =/= absent])}).

field({optional, Type}) -> oneof([absent, field(Type)]);
field(u16) -> integer(0, 16#ffff);
field(u64) -> oneof([integer(0, 300), integer(0, 16#ffffffffffffffff)]);
field(u32) -> oneof([integer(0, 300), integer(0, 16#ffffffff)]);
field(text) -> ?LET(L, list(oneof([range($\s, $~), range(0, 16#d7ff), range(16#e000, 16#10ffff)])),
                    unicode:characters_to_binary(L));
field({integer, Min, Max}) -> range(Min, Max);
field(bytes) -> binary();
field({bytes, Size}) -> binary(Size);
field({bytes, Min, Max}) -> ?LET(Size, range(Min, Max), binary(Size));
field({atom, Atoms}) -> oneof(Atoms);
field({tuple, Types}) -> list_to_tuple([field(Type) || Type <- Types]);
field({list, Type, Min, Max}) ->
    %% A frame has room for thousands of elements, not for as many lists.
    Most =
        case Type of
            {tuple, Types} -> [few || {list, _, _, _} <- Types];
            _ -> []
        end,
    ?LET(N, range(Min, case Most of [] -> Max; _ -> min(Max, 3) end), vector(N, field(Type))).

%% One byte changed, removed or put in, or the end cut off.
damaged(Bytes) ->
    ?LET({At, Byte}, {range(0, byte_size(Bytes) - 1), byte()},
         begin
             <<Before:At/binary, Old, After/binary>> = Bytes,
             oneof([<<Before/binary, Byte, After/binary>>,
                    <<Before/binary, After/binary>>,
                    <<Before/binary, Byte, Old, After/binary>>,
                    Before])
         end).
