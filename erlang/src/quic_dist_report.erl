%% @doc What the sidecar reports, in the words of the VM: lines of the log, certificates, and how
%% peers have proved who they are.
-module(quic_dist_report).

-export([log/2, event/1]).
-export([certificates/2, days_left/1, identity/2]).
-export_type([certificate/0, identity/0]).

-type certificate() :: #{
    option := certfile | cacertfile,
    file := binary(),
    subject := binary(),
    expires := binary(),
    system_time := integer()
}.
%% A certificate in the file that the option names. `expires' is RFC 3339's text, `system_time' the
%% same in seconds.

-type identity() :: binary() | cookie | handshake.
%% How a peer has proved who it is: what its certificate names, in words; by the cookie, on the
%% encrypted connection; or by nothing but Erlang's own handshake, as in clear and with the options
%% whose names have `insecure' in them.

%% @doc Logs what the sidecar has logged, if its level is at least `Least', the option `log_level'.
-spec log(quic_dist_proto:fields(), Least :: logger:level()) -> ok.
log(#{level := Level, what := Text, facts := Facts} = Line, Least) ->
    case logger:compare_levels(Level, Least) of
        lt -> ok;
        _ -> quic_dist_log:log(area(Line), Level, Text, Facts)
    end.

area(#{event := Kind}) when Kind =:= connection_ended; Kind =:= connection_resumed -> link;
area(#{event := _}) -> security;
area(_) -> sidecar.

%% @doc The event that a line of the sidecar's log reports, if it reports one, at any level.
-spec event(quic_dist_proto:fields()) -> {ok, map()} | none.
event(#{event := Kind, what := Text, facts := Facts}) ->
    {ok, #{event => Kind, text => Text, facts => maps:from_list(Facts)}};
event(#{}) ->
    none.

%% @doc The certificates of the sidecar's message; `error' if a time is none, or an option was not
%% given.
-spec certificates(
    [{certfile | cacertfile, Subject :: binary(), Expires :: binary()}],
    quic_dist_config:options()
) -> {ok, [certificate()]} | error.
certificates([{Option, Subject, Expires} | Rest], Options) ->
    case {Options, system_time(Expires), certificates(Rest, Options)} of
        {#{Option := File}, {ok, Time}, {ok, Certificates}} ->
            Certificate = #{
                option => Option,
                file => File,
                subject => Subject,
                expires => Expires,
                system_time => Time
            },
            {ok, [Certificate | Certificates]};
        _ ->
            error
    end;
certificates([], _) ->
    {ok, []}.

system_time(Text) ->
    try
        {ok, calendar:rfc3339_to_system_time(binary_to_list(Text))}
    catch
        error:_ -> error
    end.

%% @doc Certificates for people: with the days that each has left, negative when it has expired.
-spec days_left([certificate()]) -> [map()].
days_left(Certificates) ->
    Now = erlang:system_time(second),
    [
        (maps:remove(system_time, Certificate))#{days_left => floor((Expires - Now) / 86400)}
     || #{system_time := Expires} = Certificate <- Certificates
    ].

%% @doc How a peer over QUIC has proved who it is, given what its certificate names (empty: there
%% was none).
-spec identity(binary(), quic_dist_config:options() | map()) -> identity().
identity(<<>>, #{insecure_no_verify := true}) -> handshake;
identity(<<>>, _) -> cookie;
identity(Names, _) -> Names.
