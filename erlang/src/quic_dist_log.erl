%% @doc Log reports of the carrier, in one form: a text, and named facts.
-module(quic_dist_log).

-export([configure/1, log/2, log/3, log/4, format/1]).
-export_type([facts/0, area/0]).

-type facts() :: [{Name :: atom() | binary(), Value :: term()}].

-type area() :: sidecar | link | security.
%% The sidecar's life and its log; links to peers; refused peers, certificates, and options that
%% weaken security.

%% The key under which configure/1 keeps the option.
-define(DOMAINS, {?MODULE, domains}).

%% @doc Keeps the option `log_domains' for all lines from now on.
-spec configure({ok, quic_dist_config:options()} | {error, string()}) -> ok.
configure({ok, #{log_domains := Domains}}) ->
    persistent_term:put(?DOMAINS, Domains);
configure({error, _}) ->
    ok.

%% @doc Logs a line about the sidecar without further facts.
-spec log(logger:level(), unicode:chardata()) -> ok.
log(Level, Text) ->
    log(Level, Text, []).

%% @doc Logs a line about the sidecar.
-spec log(logger:level(), unicode:chardata(), facts()) -> ok.
log(Level, Text, Facts) ->
    log(sidecar, Level, Text, Facts).

%% @doc Logs the report `#{what => Text, facts => Facts}'. Its domain is `[quic_dist, Area]' with
%% the option `log_domains'. Without that it has none, because OTP's default handler drops all
%% domains but its own.
-spec log(area(), logger:level(), unicode:chardata(), facts()) -> ok.
log(Area, Level, Text, Facts) ->
    Metadata0 = #{report_cb => fun ?MODULE:format/1},
    Metadata =
        case persistent_term:get(?DOMAINS, false) of
            true -> Metadata0#{domain => [quic_dist, Area]};
            false -> Metadata0
        end,
    logger:log(Level, #{what => Text, facts => Facts}, Metadata).

%% @doc The `report_cb': one line, the text and then each fact as ` name=value'.
-spec format(logger:report()) -> {io:format(), [term()]}.
format(#{what := Text, facts := Facts}) ->
    {"quic_dist: ~ts~ts", [Text, [[$\s, name(Name), $=, value(Value)] || {Name, Value} <- Facts]]}.

name(Name) when is_atom(Name) -> atom_to_binary(Name);
name(Name) -> Name.

value(Value) when is_binary(Value) -> Value;
value(Value) -> io_lib:format("~0tp", [Value]).
