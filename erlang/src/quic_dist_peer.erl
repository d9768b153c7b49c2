%% @doc Who a peer is: the name that it gives in the distribution handshake has to be the one that
%% it gave to our sidecar, which is the one that its certificate was compared with.
%%
%% The name is looked at as dist_util reads it, before dist_util has seen it: a peer with a name
%% that is not its own neither becomes known to net_kernel nor disturbs a connection of that name.
%% The other direction needs nothing of ours: dist_util compares the name in the peer's challenge
%% with that of the node that was dialled, which the sidecar has compared with the hello.
-module(quic_dist_peer).

-export([held_to/3, check/2]).
-export_type([claim/0]).

-include_lib("kernel/include/dist_util.hrl").

-type claim() :: {Node :: binary(), Identity :: undefined | binary()}.
%% The name in the hello, and what a verified certificate names, in words.

%% @doc The handshake record of an accepted channel with a receiver that ends the handshake when
%% the peer gives a name that is not the one it has claimed, and logs both. One that came over HTTP
%% has claimed none here: what it has claimed the sidecar compares, if there is anything; so the
%% option `allow' is asked here too, about the name that it gives.
-spec held_to(claim() | unclaimed, {inet:ip_address(), inet:port_number()}, #hs_data{}) ->
    #hs_data{}.
held_to(Claim, Address, #hs_data{f_recv = Receive} = Hs) ->
    Hs#hs_data{
        f_recv = fun(Ctrl, Length, Timeout) ->
            case Receive(Ctrl, Length, Timeout) of
                {ok, Message} -> pass(check(Claim, Message), Message, Address);
                Other -> Other
            end
        end
    }.

pass(ok, Message, _) ->
    {ok, Message};
pass({error, Text}, _, {Ip, UdpPort}) ->
    Peer = [inet:ntoa(Ip), $:, integer_to_list(UdpPort)],
    Facts = [{peer, iolist_to_binary(Peer)}, {err, unicode:characters_to_binary(Text)}],
    What = <<"inbound connection turned away">>,
    quic_dist_log:log(security, warning, What, Facts),
    Named = maps:from_list([{atom_to_binary(Name), Value} || {Name, Value} <- Facts]),
    quic_dist_events:tell(#{event => refused, text => What, facts => Named}),
    {error, refused}.

%% @doc Does a message of the distribution handshake, as the list of bytes that dist_util gets, name
%% the node that was claimed? Messages that name none pass; of one that is cut short dist_util
%% makes an end.
%%
%% The messages are those of ERTS User's Guide, "Distribution Protocol": `N' and the older `n' with
%% the name, in Latin-1. A node that asks for a name gives its host's alone, and is
%% `undefined@Host' in the hello.
-spec check(claim() | unclaimed, [byte()]) -> ok | {error, unicode:chardata()}.
check(Claim, [$N, _, _, _, _, _, _, _, _, _, _, _, _, Size1, Size0 | Rest]) ->
    compare(Claim, lists:sublist(Rest, 256 * Size1 + Size0));
check(Claim, [$n, _, _, _, _, _, _ | Name]) ->
    compare(Claim, Name);
check(_, _) ->
    ok.

compare(unclaimed, Bytes) ->
    Name =
        case lists:member($@, Bytes) of
            true -> Bytes;
            false -> "undefined@" ++ Bytes
        end,
    case quic_dist_port:options() of
        {ok, Options} ->
            case quic_dist_admit:may_connect(unicode:characters_to_binary(Name), Options) of
                true -> ok;
                false -> {error, ["the option allow does not name ", shown(Name)]}
            end;
        {error, {_, Text}} ->
            {error, Text}
    end;
compare({Node, Identity}, Bytes) ->
    %% The bytes are the characters' code points, as in dist_util's list_to_atom.
    case unicode:characters_to_binary(Bytes) of
        Node -> ok;
        Host when <<"undefined@", Host/binary>> =:= Node -> ok;
        Name -> {error, differ(Name, Node, Identity)}
    end.

differ(Name, Node, Identity) ->
    [
        "the peer calls itself ", shown(Name), " in the distribution handshake and ", shown(Node),
        " in its hello",
        case Identity of
            undefined -> [];
            _ -> ["; its certificate names ", Identity]
        end
    ].

%% On one line, and not longer than names are: what a stranger sends may be anything.
shown(Name) ->
    Text = lists:sublist(unicode:characters_to_list(Name), 256),
    lists:droplast(tl(lists:flatten(io_lib:write_string(Text)))).
