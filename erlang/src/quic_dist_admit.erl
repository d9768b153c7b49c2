%% @doc Who may connect to this node, and with which cookie: the VM's answers to its sidecar.
%%
%% A peer that the sidecar has no reason of its own to turn away is asked about, by the name that it
%% claims (the event `admit' of portproto/PROTOCOL.md). What decides is the option `allow',
%% `net_kernel:allow/1', and the cookie that this node has for that name; the proof that the peer
%% knows the cookie is the sidecar's business. No atom is made of a stranger's name.
-module(quic_dist_admit).

-export([answer/4, may_connect/2, cookie/2, matches/2]).

%% @doc Answers a question, from a process of its own: `net_kernel' and `auth' are asked, which may
%% be busy, and `quic_dist_port' must never wait for them. If they take longer than `Timeout'
%% milliseconds the answer is no; the sidecar has given up by then. As many such processes can be
%% as the sidecar has open questions.
-spec answer(port(), Admit :: quic_dist_proto:fields(), quic_dist_config:options(), timeout()) ->
    ok.
answer(Port, #{attempt := Attempt, node := Node}, Options, Timeout) ->
    _ = spawn_opt(
        fun() ->
            Verdict = within(Timeout, fun() -> verdict(Node, Options) end),
            write(Port, quic_dist_proto:control(verdict, Verdict#{attempt => Attempt}))
        end,
        %% As the processes that set up connections have.
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

write(Port, Frame) ->
    try port_command(Port, Frame) of
        true -> ok
    catch
        %% The sidecar that asked has ended.
        error:badarg -> ok
    end.

verdict(Node, Options) ->
    case may_connect(Node, Options) of
        true ->
            case net_kernel_allows(Node) of
                ok -> (cookie(Node, Options))#{accept => true};
                {error, Why} -> refused(Why)
            end;
        false ->
            refused("the option allow does not name it")
    end.

refused(Why) ->
    #{accept => false, text => list_to_binary(Why)}.

%% @doc Is there, for all that the option `allow' says, to be a connection with this node?
-spec may_connect(Node :: binary(), quic_dist_config:options()) -> boolean().
may_connect(Node, #{allow := Patterns}) ->
    lists:any(fun(Pattern) -> matches(Node, Pattern) end, Patterns);
may_connect(_, _) ->
    true.

%% As `dist_util' will judge in the handshake, which knows a node that has no name yet by its host.
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

%% @doc The cookie that this node has for `Node', as the field `cookie' of a message to the sidecar:
%% none where certificates authenticate, or if there is no cookie (`-nocookie').
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
    %% Who has no atom has no cookie of its own.
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
