%% @doc Which peers may connect to this node, and with which cookie: the VM's answers to its
%% sidecar.
%%
%% The sidecar asks about each peer that it has no reason to refuse, by the name that the peer
%% claims (the event `admit' of portproto/PROTOCOL.md). The option `allow', `net_kernel:allow/1' and
%% the cookie that this node has for that name decide; the sidecar checks the proof that the peer
%% knows the cookie. No atom is made of a stranger's name.
-module(quic_dist_admit).
-behaviour(quic_dist_feature).

-export([topics/0, handle/3, may_connect/2, cookie/2, matches/2]).

%% @private
-spec topics() -> [quic_dist_feature:topic(), ...].
topics() ->
    [admit].

%% @private Answers a question of the sidecar, from a process of its own: it asks `net_kernel' and
%% `auth', which may be busy, and `quic_dist_sidecar' must never wait for them. If they take longer
%% than a handshake may, the answer is no; the sidecar has given up by then. There are at most as
%% many such processes as the sidecar has open questions.
-spec handle(admit, quic_dist_proto:fields(), quic_dist_feature:context()) -> ok.
handle(admit, #{attempt := Attempt, node := Node}, #{port := Port, options := Options}) ->
    Timeout = quic_dist_kernel:setup_time(),
    _ = spawn_opt(
        fun() ->
            Verdict = within(Timeout, fun() -> verdict(Node, Options) end),
            Frame = quic_dist_proto:control(verdict, Verdict#{attempt => Attempt}),
            quic_dist_pipe:write(Port, Frame)
        end,
        %% The priority of processes that set up connections.
        [{priority, max}]
    ),
    ok.

within(Timeout, Fun) ->
    Asker = self(),
    {Pid, Monitor} = spawn_opt(fun() -> Asker ! {self(), Fun()} end, [monitor, {priority, max}]),
    receive
        {Pid, Verdict} ->
            Verdict;
        {'DOWN', Monitor, process, Pid, _} ->
            refused("asking net_kernel and auth failed: distribution ends or is starting again")
    after Timeout ->
        exit(Pid, kill),
        refused("net_kernel or auth did not answer in time")
    end.

verdict(Node, Options) ->
    case may_connect(Node, Options) of
        true ->
            case net_kernel_allows(Node) of
                ok -> (cookie(Node, Options))#{accept => true};
                {error, Why} -> refused(Why)
            end;
        false ->
            refused(["the option allow does not name it; what would: ", pattern(Node, node())])
    end.

%% Tools of a release by mix have a new number each time.
pattern(Peer, MyNode) ->
    Tool = <<"-", (atom_to_binary(MyNode))/binary>>,
    case binary:longest_common_suffix([Peer, Tool]) =:= byte_size(Tool) of
        true -> <<"*", Tool/binary>>;
        false -> Peer
    end.

refused(Why) ->
    #{accept => false, text => unicode:characters_to_binary(Why)}.

%% @doc Does the option `allow' permit a connection with this node?
-spec may_connect(Node :: binary(), quic_dist_config:options()) -> boolean().
may_connect(Node, #{allow := Patterns}) ->
    lists:any(fun(Pattern) -> matches(Node, Pattern) end, Patterns);
may_connect(_, _) ->
    true.

%% `dist_util' judges alike in the handshake, and knows a node that has no name yet by its host.
net_kernel_allows(Node) ->
    Name =
        case unicode:characters_to_list(Node) of
            "undefined@" ++ Host -> Host;
            Whole -> Whole
        end,
    case net_kernel:allowed() of
        {ok, []} ->
            ok;
        {ok, Allowed} ->
            case dist_util:is_allowed(Name, Allowed) of
                true -> ok;
                false -> {error, "net_kernel:allow/1 does not name it"}
            end;
        ignored ->
            {error, "distribution is not running"}
    end.

%% @doc The cookie that this node has for `Node', as the field `cookie' of a message to the sidecar.
%% There is none if certificates authenticate, or if this node has no cookie (`-nocookie').
-spec cookie(Node :: node() | binary(), quic_dist_config:options()) -> #{cookie => binary()}.
cookie(_, #{cacertfile := _}) ->
    #{};
cookie(Node, _) ->
    case cookie_of(Node) of
        nocookie -> #{};
        '' -> #{};
        Cookie -> #{cookie => atom_to_binary(Cookie)}
    end.

cookie_of(Node) when is_atom(Node) ->
    erlang:get_cookie(Node);
cookie_of(Node) ->
    %% A name without an atom has no cookie of its own.
    try binary_to_existing_atom(Node) of
        Atom -> erlang:get_cookie(Atom)
    catch
        error:_ -> erlang:get_cookie()
    end.

%% @doc Does the name match the pattern, in which a star stands for any characters, or none?
-spec matches(Name :: binary(), Pattern :: binary()) -> boolean().
matches(Name, Pattern) ->
    case binary:split(Pattern, <<"*">>, [global]) of
        [Whole] ->
            Name =:= Whole;
        [First | Rest] ->
            Size = byte_size(First),
            case Name of
                <<First:Size/binary, Left/binary>> -> matches_rest(Left, Rest);
                _ -> false
            end
    end.

%% Each part at its first place leaves the most for those that follow, and the last is at the end.
matches_rest(Name, [Last]) ->
    Before = byte_size(Name) - byte_size(Last),
    Before >= 0 andalso binary:part(Name, Before, byte_size(Last)) =:= Last;
matches_rest(Name, [<<>> | Rest]) ->
    matches_rest(Name, Rest);
matches_rest(Name, [Part | Rest]) ->
    case binary:match(Name, Part) of
        {At, Size} ->
            <<_:At/binary, _:Size/binary, Left/binary>> = Name,
            matches_rest(Left, Rest);
        nomatch ->
            false
    end.
