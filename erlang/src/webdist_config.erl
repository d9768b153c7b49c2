%% @doc Configuration of distribution over HTTP: boot flags `-webdist Key Value', then the
%% environment of an application `webdist' (sys.config, or `application:set_env/3').
%%
%% There is no such application: these modules are part of `quic_dist'. The name is that of the
%% flags, since they are older. It is read whenever it is needed, also at boot.
-module(webdist_config).

-export([read/0, check/1, carriers/1]).
-export_type([options/0, carrier/0]).

-type carrier() :: http | ws | https | wss | h2 | h3.
%% A form of HTTP that carries a link: an upgrade, WebSocket, HTTP/2 or HTTP/3. The first two are in
%% clear, all others over TLS.

-type options() :: #{
    port := inet:port_number(),
    mode := compat | router,
    listen_address => inet:ip_address(),
    allow := [binary()],
    names_to := [binary()],
    method := get | connect,
    hand_over := boolean(),
    listen := [http | https, ...],
    h3 := boolean(),
    carriers := [carrier(), ...],
    urls := [{Pattern :: binary(), [Url :: binary(), ...]}],
    insecure_clear := boolean(),
    insecure_proxy := boolean(),
    web_upstream => binary()
}.
%% What was given, checked, and the defaults of the rest.

-define(DEFAULTS, #{
    port => 4380,
    mode => compat,
    allow => [],
    names_to => [<<"127.0.0.0/8">>, <<"::1">>],
    method => get,
    hand_over => true,
    listen => [http],
    h3 => false,
    carriers => [http, ws],
    urls => [],
    insecure_clear => false,
    insecure_proxy => false
}).

-define(CARRIERS, [http, ws, https, wss, h2, h3]).
%% Those of one node.
-define(MAX_URLS, 16).

%% @doc All options. An error is a line for the operator.
-spec read() -> {ok, options()} | {error, string()}.
read() ->
    try
        check(boot_flags() ++ environment())
    catch
        throw:{bad_source, _, _, _} -> {error, "webdist: a boot flag -webdist has no value"}
    end.

boot_flags() ->
    case init:get_argument(webdist) of
        {ok, Occurrences} -> lists:append([quic_dist_config:flags(Words) || Words <- Occurrences]);
        error -> []
    end.

%% The environment of an application that is not loaded holds what was set at run time, and not what
%% a configuration file says; only then there is something to load for, as in quic_dist_config.
environment() ->
    Keys = [{vsn, "0"}, {modules, []}, {registered, []}, {applications, [kernel, stdlib]}],
    _ =
        case init:get_argument(config) of
            {ok, _} -> application:load({application, webdist, Keys});
            error -> ok
        end,
    lists:keydelete(included_applications, 1, application:get_all_env(webdist)).

%% @doc Checks options; the first of a name counts. Pure.
-spec check([{term(), term()}]) -> {ok, options()} | {error, string()}.
check(Given) ->
    check(Given, #{}).

check([{Key, Value} | Rest], Options) ->
    case accept(Key, Value) of
        {ok, _} when is_map_key(Key, Options) -> check(Rest, Options);
        {ok, Accepted} -> check(Rest, Options#{Key => Accepted});
        {error, Accepted} -> {error, wrong(Key, Value, Accepted)}
    end;
check([], Options) ->
    {ok, maps:merge(?DEFAULTS, Options)}.

wrong(Key, Value, Accepted) ->
    lists:flatten(
        io_lib:format("webdist: bad option ~tw = ~0tp; accepted is ~ts", [Key, Value, Accepted])
    ).

-spec accept(term(), term()) -> {ok, term()} | {error, Accepted :: string()}.
accept(port, Port) when is_integer(Port), Port >= 0, Port =< 65535 -> {ok, Port};
accept(port, _) -> {error, "a TCP port number, 0 to 65535 (0: any)"};
accept(mode, Mode) when Mode =:= compat; Mode =:= router -> {ok, Mode};
accept(mode, _) -> {error, "compat or router"};
accept(method, Method) when Method =:= get; Method =:= connect -> {ok, Method};
accept(method, _) -> {error, "get or connect"};
accept(Key, Bool) when
    is_boolean(Bool) andalso
        (Key =:= hand_over orelse Key =:= h3 orelse
            Key =:= insecure_clear orelse Key =:= insecure_proxy)
->
    {ok, Bool};
accept(Key, _) when
    Key =:= hand_over; Key =:= h3; Key =:= insecure_clear; Key =:= insecure_proxy
->
    {error, "true or false"};
accept(listen, Value) ->
    case lists:member(Value, [[http], [https], [http, https], [https, http]]) of
        true -> {ok, lists:sort(Value)};
        false -> {error, "[http], [https] or [http,https]"}
    end;
accept(carriers, Value) ->
    case carriers(Value) of
        {ok, _} = Ok -> Ok;
        error -> {error, "a list of http, ws, https, wss, h2, h3, in the order to try"}
    end;
accept(urls, Value) ->
    case urls(Value, []) of
        {ok, _} = Ok -> Ok;
        error -> {error, "a list of {NodePattern, URL} or {NodePattern, [URL]}"}
    end;
accept(listen_address, Value) ->
    case address(Value) of
        {ok, _} = Ok -> Ok;
        error -> {error, "an IP address: \"10.0.0.1\", \"::1\" or a tuple"}
    end;
accept(web_upstream, Value) ->
    case text(Value) of
        {ok, <<"http://", _, _/binary>>} = Ok -> Ok;
        _ -> {error, "the URL of a web server: \"http://127.0.0.1:8080\""}
    end;
accept(allow, Patterns) ->
    texts(Patterns, "a list of node names, in which * stands for any text: [\"*@gateway\"]");
accept(names_to, Prefixes) ->
    texts(Prefixes, "a list of IP addresses or prefixes: [\"10.0.0.0/8\"]");
accept(_, _) ->
    {error,
        "one of port, mode, listen_address, allow, names_to, method, hand_over, listen, h3, "
        "carriers, urls, insecure_clear, insecure_proxy, web_upstream"}.

%% @doc A list of carriers, none of them twice.
-spec carriers(term()) -> {ok, [carrier(), ...]} | error.
carriers([_ | _] = Carriers) ->
    case lists:all(fun(Carrier) -> lists:member(Carrier, ?CARRIERS) end, Carriers) of
        true when length(Carriers) =< length(?CARRIERS) -> {ok, Carriers};
        _ -> error
    end;
carriers(_) ->
    error.

urls([{Pattern0, Urls0} | Rest], Acc) ->
    case {text(Pattern0), urls_of(Urls0)} of
        {{ok, Pattern}, {ok, Urls}} -> urls(Rest, [{Pattern, Urls} | Acc]);
        _ -> error
    end;
urls([], Acc) ->
    {ok, lists:reverse(Acc)};
urls(_, _) ->
    error.

%% A string, or a list of them.
urls_of([First | _] = Urls) when not is_integer(First) ->
    Checked = [url(Url) || Url <- Urls],
    case lists:member(error, Checked) orelse length(Checked) > ?MAX_URLS of
        true -> error;
        false -> {ok, Checked}
    end;
urls_of(Url0) ->
    case url(Url0) of
        error -> error;
        Url -> {ok, [Url]}
    end.

url(Url0) ->
    case text(Url0) of
        {ok, Url} ->
            case binary:split(Url, <<"://">>) of
                [Scheme, <<_, _/binary>>] ->
                    Known = [atom_to_binary(Carrier) || Carrier <- ?CARRIERS],
                    case lists:member(Scheme, Known) of
                        true -> Url;
                        false -> error
                    end;
                _ ->
                    error
            end;
        error ->
            error
    end.

address(Value) when is_tuple(Value) ->
    case inet:is_ip_address(Value) of
        true -> {ok, Value};
        false -> error
    end;
address(Value) ->
    case text(Value) of
        {ok, Text} ->
            case inet:parse_strict_address(binary_to_list(Text)) of
                {ok, Address} -> {ok, Address};
                {error, einval} -> error
            end;
        error ->
            error
    end.

texts(Values, Accepted) when is_list(Values), length(Values) =< 64 ->
    Texts = [text(Value) || Value <- Values],
    case lists:member(error, Texts) of
        false -> {ok, [Text || {ok, Text} <- Texts]};
        true -> {error, Accepted}
    end;
texts(_, Accepted) ->
    {error, Accepted}.

text(Value) when is_atom(Value) ->
    text(atom_to_binary(Value));
text(Value) when is_list(Value); is_binary(Value) ->
    try unicode:characters_to_binary(Value) of
        Text when is_binary(Text), Text =/= <<>>, byte_size(Text) =< 512 -> {ok, Text};
        _ -> error
    catch
        error:badarg -> error
    end;
text(_) ->
    error.
