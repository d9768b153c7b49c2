%% @doc Log reports of the carrier, in one form: a text for people, and facts.
-module(quic_dist_log).

-export([log/2, log/3, format/1]).
-export_type([facts/0]).

-type facts() :: [{Name :: atom() | binary(), Value :: term()}].

%% @doc Logs a line without further facts.
-spec log(logger:level(), unicode:chardata()) -> ok.
log(Level, Text) ->
    log(Level, Text, []).

%% @doc Logs the report `#{what => Text, facts => Facts}'. It has no domain: OTP's default handler
%% drops every domain that is not its own.
-spec log(logger:level(), unicode:chardata(), facts()) -> ok.
log(Level, Text, Facts) ->
    Metadata = #{report_cb => fun ?MODULE:format/1},
    logger:log(Level, #{what => Text, facts => Facts}, Metadata).

%% @doc The `report_cb': one line, the text and then each fact as ` name=value'.
-spec format(logger:report()) -> {io:format(), [term()]}.
format(#{what := Text, facts := Facts}) ->
    {"quic_dist: ~ts~ts", [Text, [[$\s, name(Name), $=, value(Value)] || {Name, Value} <- Facts]]}.

name(Name) when is_atom(Name) -> atom_to_binary(Name);
name(Name) -> Name.

value(Value) when is_binary(Value) -> Value;
value(Value) -> io_lib:format("~0tp", [Value]).
