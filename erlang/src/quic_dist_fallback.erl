%% @doc Another way to a peer that QUIC does not reach: TLS over TCP, by the option `fallback'.
%%
%% Some networks drop UDP silently. Each connection is tried over QUIC first, so nodes use QUIC
%% again as soon as it works. All carriers of the option authenticate peers as QUIC does, so an
%% attacker who drops packets gains nothing; carriers in clear are not accepted.
-module(quic_dist_fallback).

-export([connect/4]).

-type failure() :: {Code :: atom(), unicode:chardata()}.
%% Code is one of portproto/PROTOCOL.md, section 7, or `no_port': the node's port is not known.

%% Milliseconds after which QUIC is taken for blocked. A reachable peer answers within two round
%% trips and the time to derive the keys of a new cookie.
-define(PATIENCE, 2500).

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

%% Did the path fail? A refusal by the peer itself is final.
is_path(Code) ->
    lists:member(Code, [
        timeout, unreachable, refused, permission_denied, unknown_host, no_port
    ]).

fall_back(Node, Carriers, Why, Deadline) ->
    {node, _, Host} = dist_util:split_node(Node),
    Left = max(1, Deadline - erlang:monotonic_time(millisecond)),
    case webdist_dial:dial(Node, Host, {only, Carriers}, Left) of
        {ok, #{url := Url} = Link} ->
            Text = ["QUIC does not get through to ", atom_to_binary(Node)],
            Fields = [{instead, Url}, {err, unicode:characters_to_binary(Why)}],
            quic_dist_links:repeated({fallback, Node}, notice, Text, [Url, " ", Why], Fields),
            {link, Link};
        {error, Text} ->
            {error, [Why, "; and by the option fallback: ", Text]}
    end.
