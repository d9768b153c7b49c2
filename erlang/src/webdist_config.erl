%% @doc The options of distribution over HTTP: their table, and one typed map of what users set.
%%
%% Options come from boot flags, `-webdist Key Value', then from the environment of an application
%% `webdist' (sys.config, or `application:set_env/3'). There is no such application: these modules
%% are part of `quic_dist'. Options are read whenever they are needed, also at boot.
-module(webdist_config).

-export([table/0, read/0, check/1, fields/2, warn_if_insecure/0]).
-export_type([options/0, carrier/0]).

-type carrier() :: http | ws | https | wss | h2 | h3.
%% A form of HTTP that carries a link: an upgrade, WebSocket, HTTP/2 or HTTP/3. `http' and `ws' are
%% in clear, all others over TLS.

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
    insecure_any_host := boolean(),
    insecure_clear := boolean(),
    insecure_proxy := boolean(),
    web_upstream => binary()
}.
%% The options that were given, checked, and the defaults of those that have one.

-define(CARRIERS, [http, ws, https, wss, h2, h3]).
%% The key under which warn_if_insecure/0 keeps the options that it has warned of.
-define(WARNED, {?MODULE, warned}).

%% @doc All options of webdist. Those with `to' are fields of messages to the sidecar; the VM reads
%% the others, and some of those.
-spec table() -> quic_dist_option:table().
table() ->
    Served = #{to => [web_serve]},
    [
        {port, {port, tcp}, #{default => 4380, to => [web_serve, web_names]}},
        {mode, {one_of, [compat, router]}, Served#{default => compat}},
        {listen_address, ip, #{to => [{web_serve, address}]}},
        {allow, {list, name_pattern, 64}, Served#{default => []}},
        {names_to, {list, prefix, 64}, Served#{default => [<<"127.0.0.0/8">>, <<"::1">>]}},
        {method, {one_of, [get, connect]}, #{default => get, live => true, to => [web_dial]}},
        {hand_over, boolean, #{default => true}},
        {listen, {some_of, [http, https]}, #{default => [http]}},
        {h3, boolean, Served#{default => false}},
        {carriers, {in_order, ?CARRIERS, 1, 6}, #{default => [http, ws], live => true}},
        {urls, {urls, ?CARRIERS}, #{default => [], live => true}},
        {insecure_any_host, boolean, Served#{default => false}},
        {insecure_clear, boolean, Served#{default => false}},
        {insecure_proxy, boolean, #{default => false, to => [web_serve, web_dial]}},
        {web_upstream, {url, http}, #{to => [{web_serve, upstream}]}}
    ].

%% @doc All options. An error is a line for the operator.
-spec read() -> {ok, options()} | {error, string()}.
read() ->
    try
        Flags = lists:append(quic_dist_source:boot_flags(webdist)),
        Keys = [{vsn, "0"}, {modules, []}, {registered, []}, {applications, [kernel, stdlib]}],
        Load = {application, webdist, Keys},
        check(Flags ++ quic_dist_source:environment(webdist, Load))
    catch
        throw:{bad_source, _, _, _} -> {error, "webdist: a boot flag -webdist has no value"}
    end.

%% @doc Checks options; the first of a name counts. Pure.
-spec check(quic_dist_source:pairs()) -> {ok, options()} | {error, string()}.
check(Pairs) ->
    case quic_dist_option:check([{Key, Value, webdist} || {Key, Value} <- Pairs], table()) of
        {ok, Checked, _} ->
            {ok, maps:merge(quic_dist_option:defaults(table()), Checked)};
        {error, {Key, Value, _, Accepted}} ->
            {error,
                lists:flatten(
                    io_lib:format("webdist: bad option ~tw = ~0tp; accepted is ~ts", [
                        Key, Value, Accepted
                    ])
                )}
    end.

%% @doc The fields of a message to the sidecar that options decide.
-spec fields(web_serve | web_dial | web_names, options()) -> quic_dist_proto:fields().
fields(Message, Options) ->
    quic_dist_option:fields(Message, table(), Options).

%% @doc Warns of each option that weakens the port or the links over HTTP, whether the node listens
%% or not. Warns once in the life of the sidecar's owner, so each time distribution starts.
-spec warn_if_insecure() -> ok.
warn_if_insecure() ->
    case read() of
        {ok, Options} ->
            Set = [Key || {Key, _} <- insecure(), maps:get(Key, Options)],
            Owner = whereis(quic_dist_sidecar),
            Warned =
                case persistent_term:get(?WARNED, none) of
                    {Owner, Keys} -> Keys;
                    _ -> []
                end,
            _ = [warn(Key) || Key <- Set -- Warned],
            persistent_term:put(?WARNED, {Owner, Set});
        {error, _} ->
            ok
    end.

warn(Key) ->
    {Key, Text} = lists:keyfind(Key, 1, insecure()),
    quic_dist_log:log(security, warning, Text, []).

insecure() ->
    [
        {insecure_any_host,
            "webdist: insecure_any_host is set: anybody who reaches the web port can make it look "
            "up, and connect to, any host that a pattern of the option allow leaves open"},
        {insecure_clear,
            "webdist: insecure_clear is set: connections in clear need no certificate, in either "
            "direction; only Erlang's cookie handshake protects this node from such peers"},
        {insecure_proxy,
            "webdist: insecure_proxy is set: over https peers need not prove who they are, in "
            "either direction; only Erlang's cookie handshake protects this node from such peers"}
    ].
