%% @doc Checks a peer's name: in the distribution handshake it must give the name that it gave to
%% our sidecar, which has compared that name with the peer's certificate.
%%
%% The name is checked on its way to dist_util, so a peer with a false name neither becomes known to
%% net_kernel nor disturbs a connection of that name. The other direction needs no check of ours:
%% dist_util compares the name in the peer's challenge with the name of the node that was dialled,
%% which the sidecar has compared with the hello.
-module(quic_dist_peer).

-export([require_name/3, check/2, is_known/1]).
-export_type([claim/0, claimed/0]).

-include_lib("kernel/include/dist_util.hrl").

-type claim() :: {Node :: binary(), Identity :: undefined | binary()}.
%% The name in the hello, and what a verified certificate names, in words.

-type claimed() :: claim() | {unclaimed, Report :: fun((line(), quic_dist_events:event()) -> ok)}.
%% A peer over HTTP has claimed no name here: if it has claimed one, the sidecar compares it. Of its
%% refusal `Report' logs a line and tells an event, unless there are too many.

-type line() ::
    {quic_dist_log:area(), logger:level(), Text :: unicode:chardata(), quic_dist_log:facts()}.

%% @doc The handshake record of an accepted connection with a receiver that ends the handshake when
%% the peer gives another name than the one it has claimed, and logs both. If the peer has claimed
%% none, the receiver compares the name with the option `allow'.
-spec require_name(claimed(), {inet:ip_address(), inet:port_number()}, #hs_data{}) -> #hs_data{}.
require_name(Claim, Address, #hs_data{f_recv = Receive} = Hs) ->
    Hs#hs_data{
        f_recv = fun(Ctrl, Length, Timeout) ->
            case Receive(Ctrl, Length, Timeout) of
                {ok, Message} -> pass(check(Claim, Message), Message, Address, Claim);
                Other -> Other
            end
        end
    }.

pass(ok, Message, _, _) ->
    {ok, Message};
pass({error, Why}, _, {Ip, UdpPort}, Claim) ->
    Peer = [inet:ntoa(Ip), $:, integer_to_list(UdpPort)],
    Fields = [{peer, iolist_to_binary(Peer)}, {err, unicode:characters_to_binary(Why)}],
    Text = <<"inbound connection turned away">>,
    Named = maps:from_list([{atom_to_binary(Name), Value} || {Name, Value} <- Fields]),
    Event = #{event => refused, text => Text, facts => Named},
    case Claim of
        {unclaimed, Report} ->
            Report({security, warning, Text, Fields}, Event);
        _ ->
            quic_dist_log:log(security, warning, Text, Fields),
            quic_dist_links:tell(Event)
    end,
    {error, refused}.

%% @doc Does an atom exist of the name that a message of the distribution handshake gives? Yes for a
%% message without a name, because no atom is made of it.
-spec is_known([byte()]) -> boolean().
is_known([$N, _, _, _, _, _, _, _, _, _, _, _, _, Size1, Size0 | Rest]) ->
    is_atom_name(lists:sublist(Rest, 256 * Size1 + Size0));
is_known([$n, _, _, _, _, _, _ | Name]) ->
    is_atom_name(Name);
is_known(_) ->
    true.

%% A node that asks for a name gives its host's alone, and gets one that is new.
is_atom_name(Bytes) ->
    try
        _ = list_to_existing_atom(Bytes),
        lists:member($@, Bytes)
    catch
        error:_ -> false
    end.

%% @doc Does a message of the distribution handshake, as the list of bytes that dist_util gets, give
%% the name that was claimed? Messages without a name pass; dist_util refuses one that is cut short.
%%
%% The messages are those of ERTS User's Guide, "Distribution Protocol": `N' and the older `n' with
%% the name, in Latin-1. A node that asks for a name gives its host's alone, and is
%% `undefined@Host' in the hello.
-spec check(claimed(), [byte()]) -> ok | {error, unicode:chardata()}.
check(Claim, [$N, _, _, _, _, _, _, _, _, _, _, _, _, Size1, Size0 | Rest]) ->
    compare(Claim, lists:sublist(Rest, 256 * Size1 + Size0));
check(Claim, [$n, _, _, _, _, _, _ | Name]) ->
    compare(Claim, Name);
check(_, _) ->
    ok.

compare(_, "nonode@nohost" = Name) ->
    {error, ["the peer calls itself ", Name, ", which is the name of no node"]};
compare({unclaimed, _}, Bytes) ->
    Name =
        case lists:member($@, Bytes) of
            true -> Bytes;
            false -> "undefined@" ++ Bytes
        end,
    case quic_dist_sidecar:options() of
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

%% On one line, and not longer than names are, because a stranger may send any bytes.
shown(Name) ->
    Text = lists:sublist(unicode:characters_to_list(Name), 256),
    lists:droplast(tl(lists:flatten(io_lib:write_string(Text)))).
