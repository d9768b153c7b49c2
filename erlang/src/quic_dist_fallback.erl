%% @doc Another way to a peer that QUIC does not reach: TLS over TCP, by the option `fallback'.
%%
%% Some networks drop UDP without a word. Each connection is tried over QUIC first, so the first
%% that gets through is on QUIC again. What authenticates peers is the same on all these ways, so
%% who drops packets on purpose gains nothing; carriers in clear are not among them.
-module(quic_dist_fallback).

-export([connect/4, carriers/1]).

-type failure() :: {Code :: atom(), unicode:chardata()}.
%% Code is one of portproto/PROTOCOL.md, section 7, or `no_port': nobody said where the node is.

%% Milliseconds that QUIC has before it is taken for blocked. A peer that is there answers within
%% two round trips and what it takes to derive the keys of a new cookie.
-define(PATIENCE, 2500).

%% @doc Carriers of webdist that are good enough: all that authenticate as QUIC does.
-spec carriers(term()) -> {ok, [webdist_config:carrier()]} | error.
carriers([]) ->
    {ok, []};
carriers(Value) ->
    case webdist_config:carriers(Value) of
        {ok, Carriers} ->
            case [Clear || Clear <- Carriers, Clear =:= http orelse Clear =:= ws] of
                [] -> {ok, Carriers};
                _ -> error
            end;
        error ->
            error
    end.

%% @doc Connects by `Quic', a function of its deadline (milliseconds of monotonic time), or else by
%% the carriers of the option. An error is a line for the operator.
-spec connect(
    node(),
    fun((Deadline :: integer()) -> {ok, Channel} | {error, failure()}),
    quic_dist_config:options(),
    Deadline :: integer()
) -> {ok, Channel} | {link, webdist_dial:link()} | {error, unicode:chardata()}.
connect(_, Quic, #{fallback := []}, Deadline) ->
    case Quic(Deadline) of
        {error, {_, Text}} -> {error, Text};
        Result -> Result
    end;
connect(Node, Quic, #{fallback := Carriers}, Deadline) ->
    case Quic(min(Deadline, erlang:monotonic_time(millisecond) + ?PATIENCE)) of
        {error, {Code, Text}} ->
            case is_path(Code) of
                true -> fall_back(Node, Carriers, Text, Deadline);
                false -> {error, Text}
            end;
        Result ->
            Result
    end.

%% Not what the peer itself has said.
is_path(Code) ->
    lists:member(Code, [
        timeout, unreachable, refused, permission_denied, unknown_host, no_port
    ]).

fall_back(Node, Carriers, Why, Deadline) ->
    {node, _, Host} = dist_util:split_node(Node),
    Left = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case webdist_dial:dial(Node, Host, {only, Carriers}, Left) of
        {ok, #{url := Url} = Link} ->
            Words = ["QUIC does not get through to ", atom_to_binary(Node)],
            Facts = [{instead, Url}, {err, unicode:characters_to_binary(Why)}],
            quic_dist_log:log(notice, Words, Facts),
            {link, Link};
        {error, Text} ->
            {error, [Why, "; and by the option fallback: ", Text]}
    end.
