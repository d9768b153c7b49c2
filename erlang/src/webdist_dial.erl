%% @doc Connects to a node over HTTP: chooses carriers and URLs, and asks the sidecar to try them.
%%
%% It serves `-proto_dist webdist' and, where QUIC does not get through, `-proto_dist quic'.
-module(webdist_dial).

-export([dial/4, connection/1, urls/3, trusted/3]).
-export_type([link/0]).

-type link() :: #{
    socket := gen_tcp:socket(),
    address := {inet:ip_address(), inet:port_number()},
    url := binary(),
    web := quic_dist_links:web()
}.
%% An open link, which the caller owns; the other end of the connection, which may be a proxy; the
%% URL that worked; and what links are shown with.

%% @doc Connects to `Node', whose name has the host part `Host', by the carriers of the option
%% `carriers', or only by the carriers given. In a process that sets up connections.
-spec dial(node(), Host :: string(), any | {only, [webdist_config:carrier(), ...]}, timeout()) ->
    {ok, link()} | {error, unicode:chardata()}.
dial(Node, Host, Which, Timeout) ->
    case {webdist_config:read(), quic_dist_sidecar:options()} of
        {{ok, Options}, {ok, Identity}} ->
            case trusted(urls(Node, Host, Which, Options), Options, Identity) of
                {ok, []} -> {error, "the option urls has no URL of these carriers for it"};
                {ok, Urls} -> request(Node, Urls, Options, Identity, Timeout);
                {error, _} = Error -> Error
            end;
        {{error, Text}, _} ->
            {error, Text};
        {_, {error, {_, Text}}} ->
            {error, Text}
    end.

request(Node, Urls, Options, Identity, Timeout) ->
    Decided = webdist_config:fields(web_dial, Options),
    Fields = (maps:merge(Decided, cookie(Node, Urls, Identity)))#{
        node => atom_to_binary(Node),
        local => atom_to_binary(node()),
        urls => Urls,
        take => webdist_link:take(Options),
        timeout => Timeout
    },
    AnswerTime = quic_dist_sidecar:answer_time(Timeout),
    case quic_dist_sidecar:request(web_dial, Fields, web_dialled, AnswerTime) of
        {ok, Dialled} ->
            case take(Dialled) of
                {ok, _} = Taken -> Taken;
                {error, Reason} -> {error, quic_dist_plane:format_error(Reason)}
            end;
        {error, {_, Text}} ->
            {error, Text}
    end.

take(#{address := Address, port := Port, url := Url} = Dialled) ->
    case quic_dist_proto:ip(Address) of
        {ok, Ip} ->
            case webdist_link:open(Dialled) of
                {ok, Socket} ->
                    At = {Ip, Port},
                    Web = (webdist_link:web(dialled, Dialled, At))#{url => Url},
                    {ok, #{socket => Socket, address => At, url => Url, web => Web}};
                {error, _} = Error ->
                    Error
            end;
        error ->
            {error, {not_an_address, Address}}
    end.

%% @doc The data plane of a link, and the other end.
-spec connection(link()) -> {quic_dist_plane:ctrl(), {inet:ip_address(), inet:port_number()}}.
connection(#{socket := Socket, address := Endpoint, web := Web}) ->
    {webdist_link:ctrl(Socket, Web), Endpoint}.

%% @doc The URLs by which a node of this identity connects. In clear a peer shows no certificate, so
%% a node whose peers must show one uses no URL in clear. An error is a line for the operator.
-spec trusted([binary()], webdist_config:options(), quic_dist_config:options()) ->
    {ok, [binary()]} | {error, string()}.
trusted(Urls, #{insecure_clear := false}, #{cacertfile := _, insecure_no_verify := false}) ->
    case [Url || Url <- Urls, not in_clear(Url)] of
        [] when Urls =/= [] ->
            {error,
                "in clear a peer shows no certificate, and this node has a cacertfile: name https, "
                "wss, h2 or h3 in the options carriers and urls, or set insecure_clear"};
        Secure ->
            {ok, Secure}
    end;
trusted(Urls, _, _) ->
    {ok, Urls}.

%% A proof of the cookie must not travel in clear.
cookie(Node, Urls, Identity) ->
    case lists:all(fun in_clear/1, Urls) of
        true -> #{};
        false -> quic_dist_admit:cookie(Node, Identity)
    end.

in_clear(<<"http://", _/binary>>) -> true;
in_clear(<<"ws://", _/binary>>) -> true;
in_clear(_) -> false.

urls(Node, Host, any, Options) ->
    urls(Node, Host, Options);
urls(Node, Host, {only, Carriers}, Options) ->
    Schemes = [<<(atom_to_binary(Carrier))/binary, "://">> || Carrier <- Carriers],
    [
        Url
     || Url <- urls(Node, Host, Options#{carriers := Carriers}),
        Scheme <- Schemes,
        string:prefix(Url, Scheme) =/= nomatch
    ].

%% @doc The URLs to try for a node: those of the first pattern of the option `urls' that its name
%% matches, or else its host's web port by each carrier.
-spec urls(node(), Host :: string(), webdist_config:options()) -> [binary(), ...].
urls(Node, Host, #{urls := Table, port := Port, carriers := Carriers}) ->
    Name = atom_to_binary(Node),
    case [Urls || {Pattern, Urls} <- Table, quic_dist_admit:matches(Name, Pattern)] of
        [Urls | _] ->
            Urls;
        [] ->
            Authority = [authority(Host), $:, integer_to_list(Port)],
            [
                unicode:characters_to_binary([atom_to_list(Carrier), "://", Authority])
             || Carrier <- Carriers
            ]
    end.

authority(Host) ->
    case lists:member($:, Host) of
        true -> [$[, Host, $]];
        false -> Host
    end.
