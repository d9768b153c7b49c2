%% @doc Configuration: boot flags, option file and application environment become one typed map.
%%
%% Sources in the order of their rank; the first that names an option decides it:
%% <ol>
%% <li>boot flags, `-quic_dist Key Value'; a value is an Erlang term, or else taken as a
%%     string;</li>
%% <li>the file named by `-quic_dist_optfile File': `{Key, Value}.' terms, or one list of them;</li>
%% <li>the environment of the application `quic_dist': sys.config of a release or of `-config', or
%%     `application:set_env/3' before `net_kernel:start/2'.</li>
%% </ol>
%% It is read each time distribution starts. {@link read/0} runs at boot, where there is no file
%% server and nothing of ours has been started.
-module(quic_dist_config).

-export([read/0, check/1, flags/1, format_error/1, blame/2]).
-export_type([options/0, source/0, error/0, endpoint/0]).

-type endpoint() :: {Host :: binary(), UdpPort :: inet:port_number()}.
%% A host name or the text of an IP address, and a UDP port number.

-type options() :: #{
    certfile => binary(),
    keyfile => binary(),
    password => binary(),
    cacertfile => binary(),
    allow => [binary()],
    listen_address => inet:ip_address(),
    listen_port => {inet:port_number(), inet:port_number()},
    nodes := #{node() => endpoint()},
    executable => binary(),
    data_plane := auto | socket | stdio,
    streams := single | bulk | sender,
    lanes := 1..64,
    connections := auto | 1..16,
    certificate_names := any | node | host,
    close_untrusted := boolean(),
    fallback := [webdist_config:carrier()],
    insecure_no_verify := boolean(),
    log_level := error | warning | notice | info | debug,
    log_domains := boolean(),
    status_port => inet:port_number(),
    qlog_dir => binary(),
    insecure_key_log => binary(),
    discovery := registry | epmd | dns | fixed | none,
    nodes_file => binary(),
    peer_port => inet:port_number(),
    name_port => inet:port_number(),
    name_address => inet:ip_address(),
    names_to := [binary()],
    dns_service := binary(),
    dns_service_tcp := binary(),
    dns_server => binary(),
    sources := #{atom() => source()}
}.
%% The options that were given, checked, and the defaults of those that have one; and where those
%% that were given stood.

-type source() :: string().
%% Words for people: where a value came from.

-type error() ::
    {bad_option, Key :: term(), Value :: term(), source(), Accepted :: string()}
    | {bad_source, source(), Found :: string(), Accepted :: string()}.

-define(DEFAULTS, #{
    nodes => #{},
    data_plane => auto,
    streams => bulk,
    lanes => 8,
    connections => auto,
    certificate_names => any,
    close_untrusted => false,
    fallback => [],
    insecure_no_verify => false,
    log_level => notice,
    log_domains => false,
    discovery => registry,
    names_to => [<<"127.0.0.0/8">>, <<"::1">>],
    dns_service => <<"_erldist._udp.%h">>,
    dns_service_tcp => <<"_erldist._tcp.%h">>
}).

%% @doc All options from all sources.
-spec read() -> {ok, options()} | {error, error()}.
read() ->
    try
        check(boot_flags() ++ option_files() ++ environment())
    catch
        throw:{bad_source, _, _, _} = Reason -> {error, Reason}
    end.

%% @doc Checks options from sources given in the order of their rank. Pure.
-spec check([{source(), [{term(), term()}]}]) -> {ok, options()} | {error, error()}.
check(Sources) ->
    check([{K, V, Source} || {Source, Pairs} <- Sources, {K, V} <- Pairs], #{}, #{}).

check([{Key0, Value0, Source} | Rest], Given, From) ->
    Key = canonical(Key0),
    case accept(Key, Value0) of
        {ok, _} when is_map_key(Key, Given) ->
            check(Rest, Given, From);
        {ok, Value} ->
            check(Rest, Given#{Key => Value}, From#{Key => {Value0, Source}});
        {error, Accepted} ->
            {error, {bad_option, Key0, shown(Key, Value0), Source, Accepted}}
    end;
check([], Given, From) ->
    Needs = [{keyfile, certfile}, {password, certfile}] ++
        [{discovery, peer_port} || #{discovery := fixed} <- [Given]],
    case
        [Need || {Key, Other} = Need <- Needs, is_map_key(Key, Given), not is_map_key(Other, Given)]
    of
        [{Key, Other} | _] ->
            #{Key := {Value, Source}} = From,
            Accepted = "this together with " ++ atom_to_list(Other),
            {error, {bad_option, Key, shown(Key, Value), Source, Accepted}};
        [] ->
            Sources = maps:map(fun(_, {_, Source}) -> Source end, From),
            {ok, maps:merge(?DEFAULTS, Given#{sources => Sources})}
    end.

%% A password is never shown, whatever it was mistaken for.
shown(password, _) -> '***';
shown(_, Value) -> Value.

%% The two names that the first quic_dist used.
canonical(cert) -> certfile;
canonical(key) -> keyfile;
canonical(Key) -> Key.

-spec accept(term(), term()) -> {ok, term()} | {error, Accepted :: string()}.
accept(Key, Value) when
    Key =:= certfile;
    Key =:= keyfile;
    Key =:= cacertfile;
    Key =:= executable;
    Key =:= insecure_key_log;
    Key =:= nodes_file
->
    nonempty_text(Value, "a file name");
accept(qlog_dir, Value) ->
    nonempty_text(Value, "the name of a folder");
accept(password, Value) ->
    nonempty_text(Value, "a string");
accept(allow, Value) ->
    case patterns(Value, []) of
        {ok, Patterns} -> {ok, Patterns};
        error -> {error, "a list of node names, or patterns such as '*@db.example.org'"}
    end;
accept(Key, Value) when Key =:= listen_address; Key =:= name_address ->
    case address(Value) of
        {ok, Address} -> {ok, Address};
        error -> {error, "an IP address: \"10.0.0.1\", \"::1\" or a tuple"}
    end;
accept(listen_port, Port) when is_integer(Port), Port >= 0, Port =< 65535 ->
    {ok, {Port, Port}};
accept(listen_port, {Min, Max}) when
    is_integer(Min), is_integer(Max), Min > 0, Min =< Max, Max =< 65535
->
    {ok, {Min, Max}};
accept(listen_port, _) ->
    {error, "a UDP port number, 0 to 65535 (0: any), or {Min, Max}"};
accept(nodes, Value) ->
    case nodes_table(Value, #{}) of
        {ok, Table} -> {ok, Table};
        error -> {error, "a list of {Node, Host, UdpPort}"}
    end;
accept(data_plane, Value) ->
    case lists:member(Value, [auto, socket, stdio]) of
        true -> {ok, Value};
        false -> {error, "auto, socket or stdio"}
    end;
accept(streams, Value) ->
    case lists:member(Value, [single, bulk, sender]) of
        true -> {ok, Value};
        false -> {error, "single, bulk or sender"}
    end;
accept(lanes, Value) when is_integer(Value), Value >= 1, Value =< 64 ->
    {ok, Value};
accept(lanes, _) ->
    {error, "1 to 64"};
accept(connections, Value) when
    Value =:= auto; is_integer(Value), Value >= 1, Value =< 16
->
    {ok, Value};
accept(connections, _) ->
    {error, "auto, or 1 to 16"};
accept(certificate_names, Value) ->
    case lists:member(Value, [any, node, host]) of
        true -> {ok, Value};
        false -> {error, "any, node or host"}
    end;
accept(status_port, Port) when is_integer(Port), Port >= 0, Port =< 65535 ->
    {ok, Port};
accept(status_port, _) ->
    {error, "a TCP port number, 0 to 65535 (0: any)"};
accept(Key, Value) when
    Key =:= close_untrusted; Key =:= insecure_no_verify; Key =:= log_domains
->
    case is_boolean(Value) of
        true -> {ok, Value};
        false -> {error, "true or false"}
    end;
accept(fallback, Value) ->
    case quic_dist_fallback:carriers(Value) of
        {ok, _} = Ok -> Ok;
        error -> {error, "a list of https, wss, h2 and h3, in the order to try"}
    end;
accept(log_level, Value) ->
    case lists:member(Value, [error, warning, notice, info, debug]) of
        true -> {ok, Value};
        false -> {error, "error, warning, notice, info or debug"}
    end;
accept(discovery, Value) ->
    case lists:member(Value, [registry, epmd, dns, fixed, none]) of
        true -> {ok, Value};
        false -> {error, "registry, epmd, dns, fixed or none"}
    end;
accept(Key, Port) when
    Key =:= peer_port orelse Key =:= name_port, is_integer(Port), Port > 0, Port =< 65535
->
    {ok, Port};
accept(Key, _) when Key =:= peer_port; Key =:= name_port ->
    {error, "a port number, 1 to 65535"};
accept(names_to, Value) ->
    case texts(Value, []) of
        {ok, Texts} when length(Texts) =< 64 -> {ok, Texts};
        _ -> {error, "a list of at most 64 IP addresses and prefixes such as \"10.0.0.0/8\""}
    end;
accept(Key, Value) when Key =:= dns_service; Key =:= dns_service_tcp ->
    nonempty_text(Value, "a name in DNS, in which %n is a node's name and %h its host");
accept(dns_server, Value) ->
    nonempty_text(Value, "the address and port of a DNS server: \"10.0.0.1:53\"");
accept(_, _) ->
    {error,
        "one of certfile, keyfile, password, cacertfile, allow, listen_address, listen_port, "
        "nodes, executable, data_plane, streams, lanes, connections, certificate_names, "
        "close_untrusted, fallback, insecure_no_verify, log_level, log_domains, status_port, "
        "qlog_dir, insecure_key_log, discovery, nodes_file, peer_port, name_port, name_address, "
        "names_to, dns_service, dns_service_tcp, dns_server"}.

nonempty_text(Value, Accepted) ->
    case text(Value) of
        {ok, Text} when byte_size(Text) > 0, byte_size(Text) =< 4096 -> {ok, Text};
        _ -> {error, Accepted}
    end.

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

texts([Value | Rest], Acc) ->
    case text(Value) of
        {ok, Text} when byte_size(Text) > 0, byte_size(Text) =< 255 -> texts(Rest, [Text | Acc]);
        _ -> error
    end;
texts([], Acc) ->
    {ok, lists:reverse(Acc)};
texts(_, _) ->
    error.

%% `inet:parse_strict_address/1' parses and does nothing else: there is no resolver at boot.
address(Value) when is_tuple(Value) ->
    case inet:is_ip_address(Value) of
        true -> {ok, Value};
        false -> error
    end;
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

%% Name@Host with stars in either part, or a star alone: what has no `@' is a slip, and would let
%% nobody in.
patterns([Value | Rest], Acc) ->
    case text(Value) of
        {ok, Text} when byte_size(Text) > 0, byte_size(Text) =< 1024 ->
            case binary:split(Text, <<"@">>, [global]) of
                [Name, Host] when Name =/= <<>>, Host =/= <<>> -> patterns(Rest, [Text | Acc]);
                [<<"*">>] -> patterns(Rest, [Text | Acc]);
                _ -> error
            end;
        _ ->
            error
    end;
patterns([], Acc) ->
    {ok, lists:reverse(Acc)};
patterns(_, _) ->
    error.

nodes_table([{Node0, Host0, Port} | Rest], Table) when is_integer(Port), Port > 0, Port =< 65535 ->
    case {node_name(Node0), host(Host0)} of
        {{ok, Node}, {ok, Host}} -> nodes_table(Rest, maps:merge(#{Node => {Host, Port}}, Table));
        _ -> error
    end;
nodes_table([], Table) ->
    {ok, Table};
nodes_table(_, _) ->
    error.

node_name(Value) ->
    case text(Value) of
        {ok, Text} when byte_size(Text) =< 1024 ->
            case binary:split(Text, <<"@">>, [global]) of
                [Name, Host] when Name =/= <<>>, Host =/= <<>> -> {ok, binary_to_atom(Text)};
                _ -> error
            end;
        _ ->
            error
    end.

host(Value) when is_tuple(Value) ->
    case address(Value) of
        {ok, Address} -> {ok, list_to_binary(inet:ntoa(Address))};
        error -> error
    end;
host(Value) ->
    case text(Value) of
        {ok, <<_, _/binary>> = Text} when byte_size(Text) =< 255 -> {ok, Text};
        _ -> error
    end.

%% @doc One line for the operator: what was wrong, where it stood, what is accepted.
-spec format_error(error()) -> string().
format_error({bad_option, Key, Value, Source, Accepted}) ->
    lists:flatten(
        io_lib:format("quic_dist: bad option ~tw = ~0tp from ~ts; accepted is ~ts", [
            Key, Value, Source, Accepted
        ])
    );
format_error({bad_source, Source, Found, Accepted}) ->
    lists:flatten(
        io_lib:format("quic_dist: ~ts: ~ts; accepted is ~ts", [Source, Found, Accepted])
    ).

%% @doc What to put before the sidecar's words about a file, which begin with its name: the options
%% that named it, and where they stood. Nothing for words about something else.
-spec blame(Words :: binary(), options()) -> string().
blame(Words, #{sources := Sources} = Options) ->
    Named = [
        io_lib:format("~ts from ~ts", [Key, maps:get(Key, Sources)])
     || Key <- [certfile, keyfile, cacertfile, qlog_dir, insecure_key_log, nodes_file],
        is_map_key(Key, Options),
        string:prefix(Words, map_get(Key, Options)) =/= nomatch
    ],
    case Named of
        [] -> "";
        _ -> lists:flatten(["quic_dist: bad option ", lists:join(", ", Named), ": "])
    end.

%% Sources

boot_flags() ->
    Source = "boot flag -quic_dist",
    case init:get_argument(quic_dist) of
        {ok, Occurrences} -> [{Source, flags(Words)} || Words <- Occurrences];
        error -> []
    end.

%% @doc The words behind one `-quic_dist' as options. `Key Value' may be repeated; throws
%% `{bad_source, ...}' if a value is missing.
-spec flags([string()]) -> [{term(), term()}].
flags([Key, Value | Rest]) ->
    [{list_to_atom(Key), term(Value)} | flags(Rest)];
flags([]) ->
    [];
flags([Key]) ->
    throw({bad_source, "boot flag -quic_dist " ++ Key, "has no value", "-quic_dist Key Value"}).

%% What does not parse as a term is a string: `-quic_dist certfile /etc/ssl/node.pem'.
term(Word) ->
    case erl_scan:string(Word ++ " .") of
        {ok, Tokens, _} ->
            case erl_parse:parse_term(Tokens) of
                {ok, Term} -> Term;
                {error, _} -> Word
            end;
        {error, _, _} ->
            Word
    end.

option_files() ->
    case init:get_argument(quic_dist_optfile) of
        {ok, Occurrences} -> [option_file(Words) || Words <- Occurrences];
        error -> []
    end.

option_file([File]) ->
    Source = "option file " ++ File,
    case erl_prim_loader:get_file(File) of
        {ok, Bytes, _} -> {Source, options_of(Source, terms(Source, Bytes))};
        error -> throw({bad_source, Source, "cannot be read", "the name of a readable file"})
    end;
option_file(_) ->
    throw({bad_source, "boot flag -quic_dist_optfile", "needs one value", "one file name"}).

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

options_of(Source, [Options]) when is_list(Options) ->
    options_of(Source, Options);
options_of(Source, Options) ->
    case lists:all(fun is_pair/1, Options) of
        true ->
            Options;
        false ->
            throw({bad_source, Source, "holds a term that is not {Key, Value}", "{Key, Value}."})
    end.

is_pair({_, _}) -> true;
is_pair(_) -> false.

%% A release's boot script has loaded the application. On plain `erl -config' nobody has, and the
%% file's environment shows only then; loading starts nothing. Without `-config' there is nothing to
%% load for, and it would complain of boot flags whose value is not a term.
environment() ->
    _ =
        case init:get_argument(config) of
            {ok, _} -> application:load(quic_dist);
            error -> ok
        end,
    Env = application:get_all_env(quic_dist),
    [{"the environment of application quic_dist", lists:keydelete(included_applications, 1, Env)}].
