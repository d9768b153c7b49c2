%% @doc The options of quic_dist: their table, and one typed map of what users set.
%%
%% Options come from these sources; earlier sources win:
%% <ol>
%% <li>boot flags, `-quic_dist Key Value'; a value is an Erlang term, or else taken as a
%%     string;</li>
%% <li>the file named by `-quic_dist_optfile File': `{Key, Value}.' terms, or one list of them;</li>
%% <li>the environment of the application `quic_dist': sys.config of a release or of `-config', or
%%     `application:set_env/3' before `net_kernel:start/2'.</li>
%% </ol>
%% They are read each time distribution starts.
-module(quic_dist_config).

-export([table/0, read/0, check/1, warn/1, format_error/1]).
-export([configure/1, without_secrets/1, option_of_file/2]).
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
    local_links := auto | same_user | off,
    streams := single | bulk | sender,
    lanes := 1..64,
    connections := auto | 1..16,
    resume := boolean(),
    path := quic | auto | tcp,
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
%% The options that were given, checked, and the defaults of those that have one; and the source of
%% each that was given.

-type source() :: string().
%% Where a value came from, in words for people.

-type error() ::
    {bad_option, Key :: term(), Value :: term(), source(), Accepted :: string()}
    | quic_dist_source:error().

%% @doc All options of quic_dist. Those with `to' are fields of `configure', the first message to
%% each sidecar; the VM reads the others, and some of those.
-spec table() -> quic_dist_option:table().
table() ->
    Sent = #{to => [configure]},
    [
        {certfile, file, Sent#{aliases => [cert]}},
        {keyfile, file, Sent#{aliases => [key], needs => certfile}},
        {password, string, Sent#{needs => certfile, secret => true}},
        {cacertfile, file, Sent},
        {allow, {list, node_pattern, infinity}, #{}},
        {listen_address, ip, #{}},
        {listen_port, {port_range, udp}, #{}},
        {nodes, nodes, #{default => #{}}},
        {executable, file, #{}},
        {data_plane, {one_of, [auto, socket, stdio]}, Sent#{default => auto}},
        {local_links, {one_of, [auto, same_user, off]}, Sent#{default => off}},
        {streams, {one_of, [single, bulk, sender]}, Sent#{default => bulk}},
        {lanes, {integer, 1, 64}, Sent#{default => 8}},
        {connections, {either, auto, {integer, 1, 16}}, Sent#{default => auto}},
        {resume, boolean, Sent#{default => true}},
        {path, {one_of, [quic, auto, tcp]}, Sent#{default => quic}},
        {certificate_names, {one_of, [any, node, host]}, Sent#{default => any}},
        {close_untrusted, boolean, Sent#{default => false}},
        %% The carriers of webdist that authenticate peers as QUIC does: none in clear.
        {fallback, {in_order, [https, wss, h2, h3], 0, 6}, #{default => []}},
        {insecure_no_verify, boolean, Sent#{default => false}},
        {log_level, {one_of, [error, warning, notice, info, debug]}, Sent#{default => notice}},
        {log_domains, boolean, #{default => false}},
        {status_port, {port, tcp}, Sent},
        {qlog_dir, folder, Sent},
        {insecure_key_log, file, Sent},
        {discovery, {one_of, [registry, epmd, dns, fixed, none]}, Sent#{
            default => registry, needs => {fixed, peer_port}
        }},
        {nodes_file, file, Sent},
        {peer_port, port, Sent},
        {name_port, port, Sent},
        {name_address, ip, Sent},
        {names_to, {list, prefix, 64}, Sent#{default => [<<"127.0.0.0/8">>, <<"::1">>]}},
        {dns_service, dns_name, Sent#{default => <<"_erldist._udp.%h">>}},
        {dns_service_tcp, dns_name, Sent#{default => <<"_erldist._tcp.%h">>}},
        {dns_server, dns_server, Sent}
    ].

%% @doc All options from all sources.
-spec read() -> {ok, options()} | {error, error()}.
read() ->
    try
        Files = quic_dist_source:option_files(quic_dist_optfile),
        Environment = quic_dist_source:environment(quic_dist, quic_dist),
        check(boot_flags() ++ Files ++ [
            {"the environment of application quic_dist", Environment}
        ])
    catch
        throw:{bad_source, _, _, _} = Reason -> {error, Reason}
    end.

boot_flags() ->
    [{"boot flag -quic_dist", Pairs} || Pairs <- quic_dist_source:boot_flags(quic_dist)].

%% @doc Checks options from sources, of which earlier ones win. Pure.
-spec check([{source(), quic_dist_source:pairs()}]) -> {ok, options()} | {error, error()}.
check(Sources) ->
    Given = [{Key, Value, Source} || {Source, Pairs} <- Sources, {Key, Value} <- Pairs],
    case quic_dist_option:check(Given, table()) of
        {ok, Checked, From} ->
            Defaults = quic_dist_option:defaults(table()),
            Origins = maps:map(fun(_, {_, Source}) -> Source end, From),
            {ok, maps:merge(Defaults, Checked#{sources => Origins})};
        {error, {Key, Value, Source, Accepted}} ->
            {error, {bad_option, Key, Value, Source, Accepted}}
    end.

%% @doc Warns of options that weaken distribution, and of boot flags that contradict each other.
%% Called each time distribution starts.
-spec warn({ok, options()} | {error, string()}) -> ok.
warn(Config) ->
    warn_if_insecure(Config),
    lists:foreach(fun warn_of_contradiction/1, contradictions()).

warn_if_insecure({ok, #{fallback := Fallback, insecure_no_verify := NoVerify}}) ->
    Fallback =/= [] andalso webdist_config:warn_if_insecure(),
    NoVerify andalso
        quic_dist_log:log(
            security,
            warning,
            "insecure_no_verify is set: peers are not authenticated, and whoever reaches the UDP "
            "port gets as far as the distribution handshake",
            []
        );
warn_if_insecure({error, _}) ->
    false.

warn_of_contradiction(Name) ->
    quic_dist_log:log(warning, [
        "the option ", atom_to_list(Name), " is given more than once with -quic_dist, with "
        "different values: the first counts. Leave one (vm.args, ERL_FLAGS, ERL_AFLAGS and "
        "ERL_ZFLAGS are all read)"
    ]).

%% The options that boot flags give several values.
contradictions() ->
    try boot_flags() of
        Sources ->
            Given = lists:usort([
                {quic_dist_option:canonical(Key, table()), Value}
             || {_, Pairs} <- Sources, {Key, Value} <- Pairs
            ]),
            Names = [Name || {Name, _} <- Given],
            lists:usort(Names -- lists:usort(Names))
    catch
        %% That is an error of read/0.
        throw:{bad_source, _, _, _} -> []
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

%% Views of the options

%% @doc The fields of `configure' that options decide.
-spec configure(options()) -> quic_dist_proto:fields().
configure(Options) ->
    %% Port mappers listen at epmd's port, unless an option says another.
    maps:merge(
        #{name_port => quic_dist_kernel:epmd_port()},
        quic_dist_option:fields(configure, table(), Options)
    ).

%% @doc The options without those that are secret.
-spec without_secrets(options()) -> options().
without_secrets(Options) ->
    maps:without(quic_dist_option:secret(table()), Options).

%% @doc What to put before a text of the sidecar that begins with a file's name: the options that
%% name the file, and their sources. Empty for a text about something else.
-spec option_of_file(Text :: binary(), options()) -> string().
option_of_file(Text, #{sources := Sources} = Options) ->
    case quic_dist_option:of_file(Text, table(), Options) of
        [] ->
            "";
        Names ->
            Named = [io_lib:format("~ts from ~ts", [N, maps:get(N, Sources)]) || N <- Names],
            lists:flatten(["quic_dist: bad option ", lists:join(", ", Named), ": "])
    end.
