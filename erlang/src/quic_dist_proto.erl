%% @doc The control protocol's codec, twin of the Go package `portproto'. Its
%% specification is `portproto/PROTOCOL.md': the section numbers below are that
%% document's, and the golden frames of `test/vectors/' bind both codecs to it.
%%
%% Everything here is a pure function of its arguments and runs before the file
%% server does. A frame is what the port's `{packet, 4}' leaves: no length.
%%
%% Terms are read from their bytes and not by `binary_to_term/2', which takes far
%% more than section 2 allows (compression, floats, several encodings of one
%% value) and cannot tell an atom this node has never seen from a broken term.
%% Control frames are rare and small; data never gets there.
-module(quic_dist_proto).

%% reading
-export([decode/1, decode/2, format/1, ip/1]).
%% writing
-export([control/2, credit/2, data_header/1]).
%% constants
-export([protocol/0, max_payload/0, messages/1]).

-export_type([frame/0, refusal/0, kind/0, side/0, channel/0, fields/0, field_type/0]).

-define(CONTROL, 1).
-define(DATA, 2).
-define(CREDIT, 3).

-define(MAX_PAYLOAD, 262144).
-define(MAX_FRAME, (5 + ?MAX_PAYLOAD)).
-define(MAX_CONTROL, 65536).
-define(MAX_CREDIT, 16#7fffffff).
-define(MAX_TEXT, 4096).
-define(MAX_DEPTH, 8).
-define(MAX_ELEMENTS, 4096).

-type side() :: vm | sidecar.
%% Who sent the frame.

-type channel() :: 0..16#ffffffff.

-type fields() :: #{atom() => field()}.

-type field() :: non_neg_integer() | binary() | atom() | [field()] | tuple().

-type frame() ::
    {data, channel(), Payload :: binary()}
    | {credit, channel(), Bytes :: 1..?MAX_CREDIT}
    | message().

-type message() :: {control, Tag :: atom(), fields()}.

-type kind() ::
    empty | too_large | truncated | unknown_type | bad_term | not_a_message | unknown_tag
    | unknown_field | missing_field | bad_field.
%% The kinds of section 7.

-type refusal() :: {error, kind(), Text :: unicode:chardata()}.
%% Why a frame is refused, in words that never hold a field's value.

-type field_type() ::
    u16 | u32 | u64 | text | bytes
    | {integer, Min :: non_neg_integer(), Max :: pos_integer()}
    | {bytes, Size :: pos_integer()}
    | {bytes, Min :: pos_integer(), Max :: pos_integer()}
    | {atom, [atom()]}
    | {list, field_type(), Min :: non_neg_integer(), Max :: pos_integer()}
    | {tuple, [field_type()]}
    | {optional, field_type()}.

-type term_read() ::
    integer() | binary() | [term_read()]
    | {atom, Text :: binary()}
    | {tuple, [term_read()]}
    | {map, [{Key :: term_read(), Value :: term_read()}]}.
%% A term as its bytes spell it. Atoms stay text, so that none is ever made here;
%% a map's pairs are in the order of their keys.

%%% Reading

%% @doc Decodes a frame from the sidecar. A data frame's payload is part of `Body'
%% and not a copy.
-spec decode(Body :: binary()) -> frame() | refusal().
decode(<<?DATA, Channel:32, Payload/binary>>) when
    Payload =/= <<>>, byte_size(Payload) =< ?MAX_PAYLOAD
->
    {data, Channel, Payload};
decode(Body) ->
    decode(sidecar, Body).

%% @doc Decodes a frame from either side.
-spec decode(From :: side(), Body :: binary()) -> frame() | refusal().
decode(From, Body) ->
    try
        frame(From, Body)
    catch
        throw:{refused, Kind, Text} -> {error, Kind, Text}
    end.

frame(_From, <<>>) ->
    refuse(empty, "a frame of length zero");
frame(_From, Body) when byte_size(Body) > ?MAX_FRAME ->
    too_large("a frame", Body, ?MAX_FRAME);
frame(From, <<?CONTROL, Bytes/binary>> = Body) ->
    byte_size(Body) =< ?MAX_CONTROL orelse too_large("a control frame", Body, ?MAX_CONTROL),
    message(From, whole_term(Bytes));
frame(_From, <<?DATA, Channel:32, Payload/binary>>) when Payload =/= <<>> ->
    {data, Channel, Payload};
frame(_From, <<?DATA, _/binary>>) ->
    refuse(truncated, "a data frame needs a channel and at least one byte");
frame(_From, <<?CREDIT, Channel:32, Bytes:32>>) when Bytes >= 1, Bytes =< ?MAX_CREDIT ->
    {credit, Channel, Bytes};
frame(_From, <<?CREDIT, _:32, _:32>>) ->
    refuse(bad_field, "credit: bytes is not between 1 and 2^31 - 1");
frame(_From, <<?CREDIT, Short/binary>>) when byte_size(Short) < 8 ->
    refuse(truncated, "a credit frame needs a channel and a number of bytes");
frame(_From, <<?CREDIT, _/binary>> = Body) ->
    too_large("a credit frame", Body, 9);
frame(_From, <<Type, _/binary>>) ->
    refuse(unknown_type, ["frame type ", integer_to_binary(Type)]).

-spec refuse(kind(), unicode:chardata()) -> no_return().
refuse(Kind, Text) ->
    throw({refused, Kind, Text}).

-spec too_large(string(), binary(), pos_integer()) -> no_return().
too_large(What, Body, Limit) ->
    [Size, Max] = [integer_to_binary(N) || N <- [byte_size(Body), Limit]],
    refuse(too_large, [What, " of ", Size, " bytes, the limit is ", Max]).

%%% Messages: a term against the table of section 4

-spec message(side(), term_read()) -> message().
message(From, {tuple, [{atom, Name}, {map, Pairs}]}) ->
    lists:all(fun({Key, _}) -> is_tuple(Key) andalso element(1, Key) =:= atom end, Pairs) orelse
        refuse(not_a_message, "a field's name is not an atom"),
    case [Message || {Tag, _} = Message <- messages(From), is_named(Tag, Name)] of
        [{Tag, Types}] -> {control, Tag, fields(Tag, Types, Pairs)};
        [] -> refuse(unknown_tag, ["the ", atom_to_binary(From), " sends no ", quoted(Name)])
    end;
message(_From, _Term) ->
    refuse(not_a_message, "not a tuple of an atom and a map").

is_named(Atom, Text) ->
    atom_to_binary(Atom) =:= Text.

fields(Tag, Types, Pairs) ->
    case [Text || {{atom, Text}, _} <- Pairs] -- [atom_to_binary(Name) || {Name, _} <- Types] of
        [] -> maps:from_list(lists:append([field(Tag, Type, Pairs) || Type <- Types]));
        [Unknown | _] -> refuse(unknown_field, [atom_to_binary(Tag), ": ", quoted(Unknown)])
    end.

field(Tag, {Name, Type}, Pairs) ->
    case {lists:keyfind({atom, atom_to_binary(Name)}, 1, Pairs), Type} of
        {{_, Read}, _} ->
            case value(Type, Read) of
                {ok, Value} -> [{Name, Value}];
                error -> refuse(bad_field, [where(Tag, Name), " is not ", type(Type)])
            end;
        {false, {optional, _}} ->
            [];
        {false, _} ->
            refuse(missing_field, where(Tag, Name))
    end.

where(Tag, Name) ->
    [atom_to_binary(Tag), ": ", atom_to_binary(Name)].

-spec value(field_type(), term_read()) -> {ok, field()} | error.
value({optional, Type}, Read) -> value(Type, Read);
value(u16, N) when is_integer(N), N >= 0, N =< 16#ffff -> {ok, N};
value(u32, N) when is_integer(N), N >= 0, N =< 16#ffffffff -> {ok, N};
value(u64, N) when is_integer(N), N >= 0, N =< 16#ffffffffffffffff -> {ok, N};
value({integer, Min, Max}, N) when is_integer(N), N >= Min, N =< Max -> {ok, N};
value(bytes, B) when is_binary(B) -> {ok, B};
value({bytes, Size}, B) when byte_size(B) =:= Size -> {ok, B};
value({bytes, Min, Max}, B) when byte_size(B) >= Min, byte_size(B) =< Max -> {ok, B};
value(text, B) when is_binary(B), byte_size(B) =< ?MAX_TEXT ->
    case is_utf8(B) of
        true -> {ok, B};
        false -> error
    end;
value({atom, Atoms}, {atom, Text}) ->
    case [Atom || Atom <- Atoms, is_named(Atom, Text)] of
        [Atom] -> {ok, Atom};
        [] -> error
    end;
value({list, Type, Min, Max}, L) when is_list(L), length(L) >= Min, length(L) =< Max ->
    values(L, [Type || _ <- L]);
value({tuple, Types}, {tuple, L}) when length(Types) =:= length(L) ->
    case values(L, Types) of
        {ok, Values} -> {ok, list_to_tuple(Values)};
        error -> error
    end;
value(_Type, _Read) ->
    error.

values(Reads, Types) ->
    Results = lists:zipwith(fun value/2, Types, Reads),
    case lists:member(error, Results) of
        false -> {ok, [Value || {ok, Value} <- Results]};
        true -> error
    end.

type({optional, Type}) -> type(Type);
type(Type) when is_atom(Type) -> atom_to_binary(Type);
type({integer, Min, Max}) ->
    ["an integer from ", integer_to_binary(Min), " to ", integer_to_binary(Max)];
type({bytes, Size}) -> [integer_to_binary(Size), " bytes"];
type({bytes, Min, Max}) -> [integer_to_binary(Min), " to ", integer_to_binary(Max), " bytes"];
type({atom, Atoms}) -> ["one of ", lists:join(", ", [atom_to_binary(A) || A <- Atoms])];
type({tuple, Types}) -> ["{", lists:join(", ", [type(T) || T <- Types]), "}"];
type({list, Type, Min, Max}) ->
    ["a list of ", integer_to_binary(Min), " to ", integer_to_binary(Max), " ", type(Type)].

%%% Terms: section 2's part of the External Term Format

-spec whole_term(binary()) -> term_read().
whole_term(<<131, Bytes/binary>>) ->
    case term(Bytes, ?MAX_DEPTH, ?MAX_ELEMENTS) of
        {Term, <<>>, _} -> Term;
        {_, _, _} -> refuse(bad_term, "bytes follow the term")
    end;
whole_term(_) ->
    refuse(bad_term, "not a term of version 131").

%% Depth and Left are what is left of the limits: the levels from this term on, itself
%% included, and the elements of all terms that follow.
-spec term(binary(), Depth :: pos_integer(), Left :: non_neg_integer()) ->
    {term_read(), Rest :: binary(), Left :: non_neg_integer()}.
term(<<97, N, Rest/binary>>, _Depth, Left) ->
    {N, Rest, Left};
term(<<98, N:32/signed, Rest/binary>>, _Depth, Left) ->
    {N, Rest, Left};
term(<<110, Size, 0, N:Size/little-unit:8, Rest/binary>>, _Depth, Left) when Size =< 8 ->
    {N, Rest, Left};
term(<<100, Size:16, Latin1:Size/binary, Rest/binary>>, _Depth, Left) when Size =< 255 ->
    {{atom, unicode:characters_to_binary(Latin1, latin1)}, Rest, Left};
term(<<118, Size:16, Text:Size/binary, Rest/binary>>, _Depth, Left) ->
    {atom_read(Text), Rest, Left};
term(<<119, Size, Text:Size/binary, Rest/binary>>, _Depth, Left) ->
    {atom_read(Text), Rest, Left};
term(<<109, Size:32, Bytes:Size/binary, Rest/binary>>, _Depth, Left) ->
    {Bytes, Rest, Left};
term(<<106, Rest/binary>>, _Depth, Left) ->
    {[], Rest, Left};
term(<<107, Size:16, Bytes:Size/binary, Rest/binary>>, Depth, Left) ->
    {binary_to_list(Bytes), Rest, enter(Depth, Left, Size)};
term(<<108, Size:32, Bytes/binary>>, Depth, Left) ->
    case terms(Size, Bytes, Depth - 1, enter(Depth, Left, Size)) of
        {L, <<106, Rest/binary>>, Left1} -> {L, Rest, Left1};
        {_, _, _} -> refuse(bad_term, "a list that does not end in nil")
    end;
term(<<104, Size, Bytes/binary>>, Depth, Left) ->
    {L, Rest, Left1} = terms(Size, Bytes, Depth - 1, enter(Depth, Left, Size)),
    {{tuple, L}, Rest, Left1};
term(<<116, Size:32, Bytes/binary>>, Depth, Left) ->
    {L, Rest, Left1} = terms(2 * Size, Bytes, Depth - 1, enter(Depth, Left, 2 * Size)),
    Pairs = lists:ukeysort(1, pairs(L)),
    length(Pairs) =:= Size orelse refuse(bad_term, "a map with a key twice"),
    {{map, Pairs}, Rest, Left1};
term(<<Tag, _/binary>>, _Depth, _Left) ->
    refuse(bad_term, ["a term of tag ", integer_to_binary(Tag), ", cut short or not allowed"]);
term(<<>>, _Depth, _Left) ->
    refuse(bad_term, "a term is cut short").

terms(0, Rest, _Depth, Left) ->
    {[], Rest, Left};
terms(N, Bytes, Depth, Left) ->
    {Head, Rest1, Left1} = term(Bytes, Depth, Left),
    {Tail, Rest2, Left2} = terms(N - 1, Rest1, Depth, Left1),
    {[Head | Tail], Rest2, Left2}.

pairs([Key, Value | L]) -> [{Key, Value} | pairs(L)];
pairs([]) -> [].

%% Checked before the elements are read, so nothing is built that is too large.
enter(_Depth, Left, 0) -> Left;
enter(1, _Left, _Size) -> refuse(bad_term, "a term is nested too deep");
enter(_Depth, Left, Size) when Size =< Left -> Left - Size;
enter(_Depth, _Left, _Size) -> refuse(bad_term, "a term has too many elements").

atom_read(Text) ->
    case unicode:characters_to_list(Text) of
        Characters when is_list(Characters), length(Characters) =< 255 -> {atom, Text};
        _ -> refuse(bad_term, "an atom that is too long or not UTF-8")
    end.

is_utf8(Bytes) ->
    unicode:characters_to_binary(Bytes) =:= Bytes.

%%% The text form

%% @doc A frame's text form, as section 4 defines it.
-spec format(frame()) -> binary().
format({data, Channel, Payload}) ->
    format(data, [{channel, Channel}, {bytes, byte_size(Payload)}]);
format({credit, Channel, Bytes}) ->
    format(credit, [{channel, Channel}, {bytes, Bytes}]);
format({control, Tag, Fields}) ->
    format(Tag, lists:sort(maps:to_list(Fields))).

format(Tag, Fields) ->
    Texts = [[$\s, atom_to_binary(Name), $=, format_field(Name, V)] || {Name, V} <- Fields],
    iolist_to_binary([atom_to_binary(Tag), Texts]).

format_field(cookie, _Secret) -> "***";
format_field(meeting_token, _Secret) -> "***";
format_field(password, _Secret) -> "***";
format_field(reset_key, _Secret) -> "***";
format_field(token, _Secret) -> "***";
format_field(tokens, _Secret) -> "***";
format_field(_Name, Value) -> format_value(Value).

format_value(N) when is_integer(N) -> integer_to_binary(N);
format_value(A) when is_atom(A) -> atom_to_binary(A);
format_value(B) when is_binary(B) -> quoted(B);
format_value(L) when is_list(L) -> [$[, lists:join($,, [format_value(V) || V <- L]), $]];
format_value(T) when is_tuple(T) ->
    [${, lists:join($,, [format_value(V) || V <- tuple_to_list(T)]), $}].

quoted(Bytes) ->
    [$", [quoted_byte(Byte) || <<Byte>> <= Bytes], $"].

quoted_byte($") -> "\\\"";
quoted_byte($\\) -> "\\\\";
quoted_byte(Byte) when Byte >= 16#20, Byte =< 16#7e -> Byte;
quoted_byte(Byte) -> io_lib:format("\\x~2.16.0b", [Byte]).

%%% Addresses

%% @doc The IP address in a field of text. An IPv6 address may come with a zone, which an
%% ip_address() has no room for.
-spec ip(Text :: binary()) -> {ok, inet:ip_address()} | error.
ip(Text) ->
    [Address | _] = binary:split(Text, <<"%">>),
    case inet:parse_strict_address(binary_to_list(Address)) of
        {ok, Ip} -> {ok, Ip};
        {error, einval} -> error
    end.

%%% Writing

%% @doc A control frame. That the message is one of {@link messages/1} is the
%% caller's duty.
-spec control(Tag :: atom(), fields()) -> [binary(), ...].
control(Tag, Fields) ->
    [<<?CONTROL>>, term_to_binary({Tag, Fields}, [deterministic, {minor_version, 2}])].

%% @doc What precedes the payload, of 1 to {@link max_payload/0} bytes, in a data frame.
-spec data_header(channel()) -> binary().
data_header(Channel) ->
    <<?DATA, Channel:32>>.

%% @doc A credit frame.
-spec credit(channel(), Bytes :: 1..?MAX_CREDIT) -> binary().
credit(Channel, Bytes) ->
    <<?CREDIT, Channel:32, Bytes:32>>.

%%% Constants

%% @doc The protocol's version, which both hellos carry.
-spec protocol() -> pos_integer().
protocol() -> 1.

%% @doc The longest payload of a data frame, in bytes.
-spec max_payload() -> pos_integer().
max_payload() -> ?MAX_PAYLOAD.

%% @doc The messages that a side may send, and each one's fields in the order of
%% their names: section 4's tables.
-spec messages(From :: side()) -> [{Tag :: atom(), [{Name :: atom(), field_type()}]}].
messages(vm) ->
    [
        {hello, [{build, text}, {otp, text}, {protocol, u32}]},
        {configure, [
            {cacertfile, {optional, text}},
            {certfile, {optional, text}},
            {certificate_names, {optional, {atom, [any, node, host]}}},
            {close_untrusted, {optional, {atom, [true, false]}}},
            {connections, {integer, 0, 16}},
            {data_plane, {optional, {atom, [auto, socket, stdio]}}},
            {discovery, {optional, {atom, [registry, epmd, dns, fixed, none]}}},
            {dns_server, {optional, text}},
            {dns_service, {optional, text}},
            {dns_service_tcp, {optional, text}},
            {hello_timeout, u32},
            {id, u32},
            {idle_timeout, u32},
            {insecure_key_log, {optional, text}},
            {insecure_no_verify, {optional, {atom, [true, false]}}},
            {keep_alive, u32},
            {keyfile, {optional, text}},
            {lanes, {integer, 1, 64}},
            {local_links, {optional, {atom, [auto, same_user, off]}}},
            {local_socket, {optional, text}},
            {log_level, log_level()},
            {name_address, {optional, text}},
            {name_port, {optional, {integer, 1, 65535}}},
            {names_to, {optional, {list, text, 0, 64}}},
            {nodes_file, {optional, text}},
            {password, {optional, bytes}},
            {path, {optional, {atom, [quic, auto, tcp]}}},
            {peer_port, {optional, {integer, 1, 65535}}},
            {qlog_dir, {optional, text}},
            {reset_key, {bytes, 32}},
            {resume, {optional, {atom, [true, false]}}},
            {status_port, {optional, u16}},
            {streams, streams()}
        ]},
        {listen, [
            {address, text},
            {cookie, {optional, bytes}},
            {id, u32},
            {node, text},
            {port_max, u16},
            {port_min, u16}
        ]},
        {close_listener, [{id, u32}]},
        {resolve, [{host, text}, {id, u32}, {timeout, u32}]},
        {dial, [
            {cookie, {optional, bytes}},
            {id, u32},
            {local, text},
            {local_link, {optional, {atom, [true, false]}}},
            {node, text},
            {targets, {list, {tuple, [text, u16]}, 1, 64}},
            {timeout, u32}
        ]},
        {ping, [{id, u32}]},
        {reload, [{id, u32}]},
        {stats, [{'after', u32}, {id, u32}]},
        {trace, [
            {id, u32},
            {insecure_key_log, {optional, text}},
            {node, text},
            {qlog_dir, {optional, text}}
        ]},
        {links, [{links, {list, link_stats(), 0, 32}}, {more, {atom, [true, false]}}]},
        {happened, [
            {event,
                {atom, [
                    down,
                    connect_failed,
                    connection_ended,
                    refused,
                    untrusted,
                    flood,
                    certificates_failed,
                    sidecar_down
                ]}},
            {node, text},
            {text, text},
            {time, u64}
        ]},
        {part, [{tokens, {list, {bytes, 1, 64}, 1, 256}}]},
        {verdict, [
            {accept, {atom, [true, false]}},
            {attempt, u32},
            {cookie, {optional, bytes}},
            {text, {optional, text}}
        ]},
        {looked_up, [
            {addresses, {list, text, 0, 64}}, {question, u32}, {text, {optional, text}}
        ]},
        {cancel, [{id, u32}]},
        {close, [{channel, u32}]},
        {stop, []}
        | names_messages(vm) ++ web_messages(vm)
    ];
messages(sidecar) ->
    [
        {hello, [{arch, text}, {build, text}, {os, text}, {protocol, u32}]},
        {ok, [{id, u32}]},
        {error, [{code, error_code()}, {id, u32}, {text, text}]},
        {listening, [{address, text}, {id, u32}, {port, u16}]},
        {resolved, [{addresses, {list, text, 1, 64}}, {id, u32}]},
        {dialled, [
            {address, text},
            {channel, u32},
            {credit, u32},
            {id, u32},
            {identity, {optional, text}},
            {meeting, {optional, text}},
            {meeting_token, {optional, bytes}},
            {port, u16},
            {socket, {optional, text}},
            {streams, streams()},
            {token, {optional, bytes}}
        ]},
        {admit, [{address, text}, {attempt, u32}, {node, text}, {port, u16}]},
        {look_up, [{host, text}, {question, u32}, {timeout, u32}]},
        {accepted, [
            {address, text},
            {channel, u32},
            {credit, u32},
            {identity, {optional, text}},
            {meeting, {optional, text}},
            {meeting_token, {optional, bytes}},
            {node, text},
            {port, u16},
            {socket, {optional, text}},
            {streams, streams()},
            {token, {optional, bytes}}
        ]},
        {certificates, [
            {certificates,
                {list, {tuple, [{atom, [certfile, cacertfile]}, text, text]}, 0, 64}}
        ]},
        {parting, [{channel, u32}, {token, {bytes, 1, 64}}]},
        {closed, [{channel, u32}, {reason, close_reason()}, {text, text}]},
        {log, [
            {event,
                {optional,
                    {atom, [
                        refused,
                        flood,
                        certificate_expires,
                        certificates_failed,
                        untrusted,
                        key_expires,
                        connection_ended,
                        connection_resumed
                    ]}}},
            {facts, {list, {tuple, [text, text]}, 0, 32}},
            {level, log_level()},
            {what, text}
        ]},
        {stats_page, [
            {channels, {list, channel_stats(), 0, 256}},
            {counters, {list, {tuple, [counter(), u64]}, 0, 32}},
            {id, u32},
            {more, {atom, [true, false]}},
            {status, text}
        ]}
        | names_messages(sidecar) ++ web_messages(sidecar)
    ].

%% One channel's figures, in the order of section 4.
channel_stats() ->
    {tuple, [
        u32,
        text,
        text,
        text,
        u16,
        {atom, [dialled, accepted]},
        {atom, [socket, stdio]},
        streams(),
        u64,
        u64,
        {list, {tuple, [{atom, [quic, tcp]} | lists:duplicate(11, u64)]}, 1, 16},
        {tuple, [u64, u64, u64, u64, {integer, 0, 16}]},
        {list, {tuple, [{integer, 0, 64}, u64, u64]}, 0, 65}
    ]}.

%% One link that no channel carries, in the order of section 4.
link_stats() ->
    {tuple, [
        text,
        text,
        text,
        u16,
        {atom, [dialled, accepted]},
        {atom, [local | web_carriers()]},
        u64,
        u64,
        u64,
        u64
    ]}.

counter() ->
    {atom, [
        uptime,
        dialled,
        accepted,
        dials_failed,
        refused,
        dropped_datagrams,
        dropped_connections,
        pending,
        memory,
        goroutines
    ]}.

%% Where nodes are.
names_messages(vm) ->
    [
        {register, [{id, u32}, {node, text}, {quic, u16}, {tcp, u16}]},
        {find, [
            {carriers, {atom, [quic, tcp, both]}}, {id, u32}, {node, text}, {timeout, u32}
        ]},
        {written, [{carrier, carrier()}, {id, u32}, {node, text}]},
        {names, [{host, text}, {id, u32}, {timeout, u32}]}
    ];
names_messages(sidecar) ->
    [
        {registered, [
            {address, text},
            {id, u32},
            {port, u16},
            {state, web_state()},
            {text, text}
        ]},
        {registration, [{address, text}, {port, u16}, {state, web_state()}, {text, text}]},
        {found, [
            {carrier, carrier()},
            {id, u32},
            {source, text},
            {targets, {list, {tuple, [text, u16]}, 1, 64}}
        ]},
        {port, [{id, u32}, {port, u16}]},
        {named, [{id, u32}, {names, {list, {tuple, [text, u16]}, 0, 1024}}]}
    ].

carrier() ->
    {atom, [quic, tcp]}.

%% Distribution over HTTP.
web_messages(vm) ->
    [
        {web_serve, [
            {address, text},
            {allow, {list, text, 0, 64}},
            {epmd_port, u16},
            {h3, {atom, [true, false]}},
            {id, u32},
            {insecure_any_host, {atom, [true, false]}},
            {insecure_clear, {atom, [true, false]}},
            {insecure_proxy, {atom, [true, false]}},
            {mode, {atom, [compat, router]}},
            {names_to, {list, text, 0, 64}},
            {node, text},
            {node_port, u16},
            {port, u16},
            {serve, {atom, [true, false]}},
            {take, web_take()},
            {tls, {atom, [off, beside, only]}},
            {upstream, text}
        ]},
        {web_dial, [
            {cookie, {optional, bytes}},
            {id, u32},
            {insecure_proxy, {atom, [true, false]}},
            {local, text},
            {method, {atom, [get, connect]}},
            {node, text},
            {take, web_take()},
            {timeout, u32},
            {urls, {list, text, 1, 16}}
        ]},
        {web_names, [{host, text}, {id, u32}, {port, u16}, {timeout, u32}]}
    ];
web_messages(sidecar) ->
    [
        {web_serving, [
            {address, text},
            {id, u32},
            {port, u16},
            {state, web_state()},
            {text, text}
        ]},
        {web_changed, [{address, text}, {port, u16}, {state, web_state()}, {text, text}]},
        {web_dialled, [
            {address, text},
            {id, u32},
            {identity, {optional, text}},
            {port, u16},
            {proven, {optional, {atom, [true, false]}}},
            {socket, text},
            {take, web_take()},
            {token, {bytes, 32}},
            {url, text}
        ]},
        {web_accepted, [
            {address, text},
            {carrier, {optional, web_carrier()}},
            {identity, {optional, text}},
            {port, u16},
            {proven, {optional, {atom, [true, false]}}},
            {socket, text},
            {take, web_take()},
            {token, {bytes, 32}}
        ]},
        {web_named, [{id, u32}, {names, {list, {tuple, [text, u16]}, 0, 1024}}]}
    ].

web_carrier() ->
    {atom, web_carriers()}.

web_carriers() ->
    [http, https, ws, wss, h2, h3].

web_take() ->
    {atom, [copy, descriptor]}.

web_state() ->
    {atom, [holding, registered, waiting, duplicate]}.

streams() ->
    {atom, [single, bulk, sender]}.

log_level() ->
    {atom, [error, warning, notice, info, debug]}.

error_code() ->
    {atom, [
        bad_certificate,
        bad_file,
        bad_address,
        address_in_use,
        permission_denied,
        unknown_host,
        unreachable,
        refused,
        timeout,
        wire_version,
        untrusted,
        peer_refused,
        cancelled,
        not_configured,
        limit,
        internal
    ]}.

close_reason() ->
    {atom, [local, peer_closed, connection_lost, protocol_error, stopping]}.
