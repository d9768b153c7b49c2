%% @doc A link to a node over HTTP: by which carriers and URLs it is tried, and with what.
%%
%% It serves `-proto_dist webdist' and, where QUIC does not get through, `-proto_dist quic'.
-module(webdist_dial).

-export([dial/4, urls/3, trusted/3]).
-export_type([link/0]).

-type link() :: #{
    socket := gen_tcp:socket(),
    address := {inet:ip_address(), inet:port_number()},
    url := binary()
}.
%% An open link, which the caller owns; where the other end of the connection is, a proxy perhaps;
%% and which URL it goes by.

%% @doc Connects to `Node', whose name has the host part `Host', by the carriers of the option
%% `carriers', or by some others and none but them. In a process that sets up connections.
-spec dial(node(), Host :: string(), any | {only, [webdist_config:carrier(), ...]}, timeout()) ->
    {ok, link()} | {error, unicode:chardata()}.
dial(Node, Host, Which, Timeout) ->
    case {webdist_config:read(), quic_dist_port:options()} of
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

request(Node, Urls, #{method := Method, insecure_proxy := Proxy} = Options, Identity, Timeout) ->
    Fields = (cookie(Node, Urls, Identity))#{
        node => atom_to_binary(Node),
        local => atom_to_binary(node()),
        urls => Urls,
        method => Method,
        take => webdist_link:take(Options),
        insecure_proxy => Proxy,
        timeout => Timeout
    },
    case quic_dist_port:request(web_dial, Fields, web_dialled, Timeout + 1000) of
        {ok, #{address := Address, port := Port, url := Url} = Dialled} ->
            case webdist_link:open(Dialled) of
                {ok, Socket} ->
                    {ok, #{socket => Socket, address => {parse(Address), Port}, url => Url}};
                {error, Reason} ->
                    {error, io_lib:format("no way to the sidecar (~0tp)", [Reason])}
            end;
        {error, {_, Text}} ->
            {error, Text}
    end.

%% @doc The URLs by which a node of this identity connects: whose peers show certificates is not to
%% have others for that they are reached in clear. An error is a line for the operator.
-spec trusted([binary()], webdist_config:options(), quic_dist_config:options()) ->
    {ok, [binary()]} | {error, string()}.
trusted(Urls, #{insecure_clear := false}, #{cacertfile := _, insecure_no_verify := false}) ->
    case [Url || Url <- Urls, not in_clear(Url)] of
        [] when Urls =/= [] ->
            {error,
                "in clear a peer shows no certificate, and this node has a cacertfile: name https, "
                "wss, h2 or h3 (options carriers and urls); insecure_clear does without"};
        Secure ->
            {ok, Secure}
    end;
trusted(Urls, _, _) ->
    {ok, Urls}.

%% Nobody is shown a proof over a connection in clear.
cookie(Node, Urls, Identity) ->
    case lists:all(fun in_clear/1, Urls) of
        true -> #{};
        false -> quic_dist_admit:cookie(Node, Identity)
    end.

in_clear(<<"http://", _/binary>>) -> true;
in_clear(<<"ws://", _/binary>>) -> true;
in_clear(_) -> false.

parse(Address) ->
    case inet:parse_address(binary_to_list(Address)) of
        {ok, Ip} -> Ip;
        {error, einval} -> {0, 0, 0, 0}
    end.

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
