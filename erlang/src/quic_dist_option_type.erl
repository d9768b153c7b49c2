%% @doc Types of options, as values: what a type accepts, in which form the library uses it, and its
%% words in an error. Pure.
-module(quic_dist_option_type).

-export([check/2, accepted/1, encode/2]).
-export_type([type/0]).

-type type() ::
    boolean
    | file
    | folder
    | string
    | ip
    | port
    | {port, udp | tcp}
    | {port_range, udp | tcp}
    | {integer, Min :: integer(), Max :: integer()}
    | {either, atom(), type()}
    | {one_of, [atom(), ...]}
    | {some_of, [atom(), ...]}
    | {in_order, [atom(), ...], Min :: non_neg_integer(), Max :: pos_integer()}
    | {list, prefix | name_pattern | node_pattern, Max :: pos_integer() | infinity}
    | nodes
    | {url, Scheme :: atom()}
    | {urls, [Scheme :: atom(), ...]}
    | dns_name
    | dns_server.
%% `port' is 1 to 65535; ports that are listened at may be 0, for any. `in_order' is a list in which
%% the first counts most. A `name_pattern' is any text with stars in it, a `node_pattern' has the
%% form name@host. Texts may be strings, binaries or atoms, and become binaries.

%% Bytes.
-define(MAX_TEXT, 4096).
-define(MAX_NAME, 1024).
-define(MAX_PATTERN, 512).
-define(MAX_HOST, 255).
%% As many as one node may have (portproto/PROTOCOL.md, `web_dial').
-define(MAX_URLS, 16).

%% @doc A value of this type, in the form that the library uses.
-spec check(type(), term()) -> {ok, term()} | error.
check(boolean, Value) when is_boolean(Value) ->
    {ok, Value};
check(Type, Value) when
    Type =:= file; Type =:= folder; Type =:= string; Type =:= dns_name; Type =:= dns_server
->
    bounded(Value, ?MAX_TEXT);
check(ip, Value) ->
    address(Value);
check(port, Port) when is_integer(Port), Port > 0, Port =< 65535 ->
    {ok, Port};
check({port, _}, Port) when is_integer(Port), Port >= 0, Port =< 65535 ->
    {ok, Port};
check({port_range, _}, Port) when is_integer(Port), Port >= 0, Port =< 65535 ->
    {ok, {Port, Port}};
check({port_range, _}, {Min, Max}) when
    is_integer(Min), is_integer(Max), Min > 0, Min =< Max, Max =< 65535
->
    {ok, {Min, Max}};
check({integer, Min, Max}, Value) when is_integer(Value), Value >= Min, Value =< Max ->
    {ok, Value};
check({either, Word, _}, Word) ->
    {ok, Word};
check({either, _, Type}, Value) ->
    check(Type, Value);
check({one_of, Words}, Value) ->
    true_or_error(lists:member(Value, Words), Value);
check({some_of, Words}, Value) when length(Value) > 0 ->
    Chosen = [Word || Word <- Words, lists:member(Word, Value)],
    true_or_error(lists:sort(Chosen) =:= lists:sort(Value), Chosen);
check({in_order, Words, Min, Max}, Value) when
    is_list(Value), length(Value) >= Min, length(Value) =< Max
->
    true_or_error(lists:all(fun(Word) -> lists:member(Word, Words) end, Value), Value);
check({list, Type, Max}, Value) when is_list(Value), length(Value) =< Max ->
    list(fun(Element) -> element_of(Type, Element) end, Value);
check(nodes, Value) ->
    case list(fun node_entry/1, Value) of
        %% The first entry of a node counts.
        {ok, Entries} -> {ok, maps:from_list(lists:reverse(Entries))};
        error -> error
    end;
check({url, Scheme}, Value) ->
    url(Value, [Scheme]);
check({urls, Schemes}, Value) ->
    list(fun(Entry) -> url_entry(Entry, Schemes) end, Value);
check(_, _) ->
    error.

true_or_error(true, Value) -> {ok, Value};
true_or_error(false, _) -> error.

%% @doc What a type accepts, in words.
-spec accepted(type()) -> string().
accepted(boolean) -> "true or false";
accepted(file) -> "a file name";
accepted(folder) -> "the name of a folder";
accepted(string) -> "a string";
accepted(ip) -> "an IP address: \"10.0.0.1\", \"::1\" or a tuple";
accepted(port) -> "a port number, 1 to 65535";
accepted({port, Protocol}) -> format("a ~ts port number, 0 to 65535 (0: any)", [upper(Protocol)]);
accepted({port_range, Protocol}) -> accepted({port, Protocol}) ++ ", or {Min, Max}";
accepted({integer, Min, Max}) -> format("~w to ~w", [Min, Max]);
accepted({either, Word, Type}) -> format("~w, or ~ts", [Word, accepted(Type)]);
accepted({one_of, Words}) -> enumeration(Words, "or");
accepted({some_of, Words}) -> "a list of one or more of " ++ enumeration(Words, "and");
accepted({in_order, Words, _, _}) ->
    format("a list of ~ts, in the order to try", [enumeration(Words, "and")]);
accepted({list, Type, Max}) ->
    case Max of
        infinity -> "a list of " ++ elements(Type);
        _ -> format("a list of at most ~w ~ts", [Max, elements(Type)])
    end;
accepted(nodes) -> "a list of {Node, Host, UdpPort}";
accepted({url, Scheme}) -> format("the URL of a web server: \"~w://127.0.0.1:8080\"", [Scheme]);
accepted({urls, _}) -> "a list of {NodePattern, URL} or {NodePattern, [URL]}";
accepted(dns_name) -> "a name in DNS, in which %n is a node's name and %h its host";
accepted(dns_server) -> "the address and port of a DNS server: \"10.0.0.1:53\"".

elements(prefix) -> "IP addresses and prefixes such as \"10.0.0.0/8\"";
elements(name_pattern) -> "node names, in which * stands for any text: [\"*@gateway\"]";
elements(node_pattern) -> "node names, or patterns such as '*@db.example.org'".

upper(udp) -> "UDP";
upper(tcp) -> "TCP".

enumeration(Words, Conjunction) ->
    {Front, [Last]} = lists:split(length(Words) - 1, [atom_to_list(Word) || Word <- Words]),
    format("~ts ~ts ~ts", [lists:join(", ", Front), Conjunction, Last]).

format(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).

%% @doc A checked value as messages to the sidecar have it. Where a word stands in place of a
%% number, messages have 0.
-spec encode(type(), term()) -> term().
encode(ip, Ip) -> list_to_binary(inet:ntoa(Ip));
encode({either, Word, {integer, _, _}}, Word) -> 0;
encode(_, Value) -> Value.

%% Values

%% Strings, binaries and, since a bare word of the command line is one, atoms.
text(Value) when is_atom(Value) ->
    {ok, atom_to_binary(Value)};
text(Value) when is_list(Value); is_binary(Value) ->
    try unicode:characters_to_binary(Value) of
        Text when is_binary(Text) -> {ok, Text};
        _ -> error
    catch
        error:badarg -> error
    end;
text(_) ->
    error.

bounded(Value, Max) ->
    case text(Value) of
        {ok, Text} when byte_size(Text) > 0, byte_size(Text) =< Max -> {ok, Text};
        _ -> error
    end.

%% The elements of a proper list, if all can be accepted.
list(Accept, [Value | Rest]) ->
    case Accept(Value) of
        {ok, Accepted} ->
            case list(Accept, Rest) of
                {ok, Others} -> {ok, [Accepted | Others]};
                error -> error
            end;
        error ->
            error
    end;
list(_, []) ->
    {ok, []};
list(_, _) ->
    error.

element_of(prefix, Value) -> bounded(Value, ?MAX_HOST);
element_of(name_pattern, Value) -> bounded(Value, ?MAX_PATTERN);
element_of(node_pattern, Value) -> node_pattern(Value).

%% `inet:parse_strict_address/1' parses and does nothing else: there is no resolver at boot.
address(Value) when is_tuple(Value) ->
    true_or_error(inet:is_ip_address(Value), Value);
address(Value) ->
    case text(Value) of
        {ok, Text} ->
            case inet:parse_strict_address(unicode:characters_to_list(Text)) of
                {ok, Address} -> {ok, Address};
                {error, einval} -> error
            end;
        error ->
            error
    end.

%% Name@Host with stars in either part, or a star alone. A pattern without `@' matches no node's
%% name, so it is a slip.
node_pattern(Value) ->
    case bounded(Value, ?MAX_NAME) of
        {ok, <<"*">>} = All -> All;
        {ok, Text} -> true_or_error(is_node_name(Text), Text);
        error -> error
    end.

is_node_name(Text) ->
    case binary:split(Text, <<"@">>, [global]) of
        [Name, Host] -> Name =/= <<>> andalso Host =/= <<>>;
        _ -> false
    end.

node_entry({Node0, Host0, Port}) when is_integer(Port), Port > 0, Port =< 65535 ->
    case {bounded(Node0, ?MAX_NAME), host(Host0)} of
        {{ok, Node}, {ok, Host}} ->
            case is_node_name(Node) of
                true -> {ok, {binary_to_atom(Node), {Host, Port}}};
                false -> error
            end;
        _ ->
            error
    end;
node_entry(_) ->
    error.

host(Value) when is_tuple(Value) ->
    case address(Value) of
        {ok, Address} -> {ok, list_to_binary(inet:ntoa(Address))};
        error -> error
    end;
host(Value) ->
    bounded(Value, ?MAX_HOST).

url_entry({Pattern0, Urls0}, Schemes) ->
    case {bounded(Pattern0, ?MAX_PATTERN), urls(Urls0, Schemes)} of
        {{ok, Pattern}, {ok, Urls}} -> {ok, {Pattern, Urls}};
        _ -> error
    end;
url_entry(_, _) ->
    error.

%% A string, or a list of them.
urls([First | _] = Urls, Schemes) when not is_integer(First) ->
    case list(fun(Url) -> url(Url, Schemes) end, Urls) of
        {ok, Accepted} when length(Accepted) =< ?MAX_URLS -> {ok, Accepted};
        _ -> error
    end;
urls(Url0, Schemes) ->
    case url(Url0, Schemes) of
        {ok, Url} -> {ok, [Url]};
        error -> error
    end.

url(Url0, Schemes) ->
    case bounded(Url0, ?MAX_PATTERN) of
        {ok, Url} ->
            case binary:split(Url, <<"://">>) of
                [Scheme, <<_, _/binary>>] ->
                    Known = [atom_to_binary(Each) || Each <- Schemes],
                    true_or_error(lists:member(Scheme, Known), Url);
                _ ->
                    error
            end;
        error ->
            error
    end.
