%% @doc Warns of settings that are valid but do not do what the user meant: one line in the log for
%% each, with the cure.
%%
%% Nothing here ends a boot. A setting that is certainly wrong is an error of quic_dist_config.
-module(quic_dist_advice).

-export([listening/4, started/0]).
-export([unreachable/3, locked_out/3, unused/2]).

%% @doc Called when this node listens. `Ports' is the range that was asked for. In net_kernel.
-spec listening(
    atom(), string(), {inet:port_number(), inet:port_number()}, quic_dist_config:options()
) -> ok.
listening(Name, Host, Ports, Options) ->
    Text = atom_to_list(Name),
    Found =
        case Ports of
            {0, 0} -> quic_dist_names:is_registered(Name);
            _ -> true
        end,
    %% Other nodes do not connect to a remote shell or a script's node.
    Given = fun(Flag) -> init:get_argument(Flag) =/= error end,
    Passing =
        lists:any(Given, [hidden, remsh]) orelse
            (lists:any(Given, [name, sname]) andalso is_script()),
    warn([Line || not Passing, Line <- unreachable(Text, Host, Found)]),
    lists:foreach(
        fun(Line) -> quic_dist_log:log(security, notice, Line, []) end,
        [Line || not Passing, Line <- locked_out(Text, Host, Options)]
    ).

%% Is this VM started by escript? Programs read the output of scripts such as the nodetool of a relx
%% release. The node of rebar3 shell gets its name by no flag of the emulator.
is_script() ->
    case init:get_argument(boot) of
        {ok, Boots} -> filename:basename(lists:last(lists:append(Boots))) =:= "no_dot_erlang";
        error -> false
    end.

%% @doc Warnings of a node that other nodes cannot find, or not by the number in its name.
-spec unreachable(string(), string(), Found :: boolean()) -> [unicode:chardata()].
unreachable(Name, Host, Found) ->
    Number = Name =/= "" andalso lists:all(fun(C) -> C >= $0 andalso C =< $9 end, Name),
    IsPort = quic_dist_names:names_port(Name),
    case {Found, Number andalso not IsPort} of
        {false, true} ->
            [
                [
                    "no other node can find this one: there is no epmd (-no_epmd), and in the "
                    "name ", Name, "@", Host, " the first part is not a UDP port (1 to 65535)"
                ]
            ];
        {true, true} ->
            [
                [
                    Name, " in the name ", Name, "@", Host, " is not a UDP port (1 to 65535), and "
                    "does not say where this node listens"
                ]
            ];
        {false, false} when not IsPort ->
            [
                [
                    "no other node can find this one: there is no epmd (-no_epmd), and ", Name,
                    " is no port. Use a name of the form port@host, the option listen_port and a "
                    "table of nodes, or -epmd_module quic_epmd without -no_epmd"
                ]
            ];
        _ ->
            []
    end.

%% @doc A notice if the option `allow' names none of the usual tools.
-spec locked_out(string(), string(), quic_dist_config:options()) -> [unicode:chardata()].
locked_out(Name, Host, #{allow := Patterns}) ->
    Node = Name ++ "@" ++ Host,
    Tools = ["undefined@" ++ Host, "rpc-0-" ++ Node],
    Allowed = fun(Tool) ->
        Binary = unicode:characters_to_binary(Tool),
        lists:any(fun(Pattern) -> quic_dist_admit:matches(Binary, Pattern) end, Patterns)
    end,
    case lists:any(Allowed, Tools) of
        true ->
            [];
        false ->
            [
                [
                    "the option allow names no tools: rpc, remote and stop of a release by mix "
                    "call themselves *-", Node, ", those of relx and quicdistd undefined@", Host,
                    ". Add those that you use"
                ]
            ]
    end;
locked_out(_, _, _) ->
    [].

%% @doc Called when the application `quic_dist' starts. By then its environment is complete, even
%% what Elixir's config/runtime.exs sets.
-spec started() -> ok.
started() ->
    warn(not_a_carrier(is_alive()) ++ too_late(whereis(quic_dist_sidecar))).

%% A node may use this application only for its epmd modules, or for the web port.
not_a_carrier(true) ->
    Ours = [quic_epmd, webdist_epmd],
    Used =
        lists:any(fun(Carrier) -> lists:member(Carrier, ["quic", "webdist"]) end, carriers()) orelse
            lists:member(net_kernel:epmd_module(), Ours) orelse
            whereis(webdist_server) =/= undefined orelse
            init:get_argument(webdist) =/= error,
    case Used of
        true -> [];
        false -> [unused(carriers(), init:get_argument(proto_dist))]
    end;
not_a_carrier(false) ->
    [].

carriers() -> quic_dist_kernel:protocols().

%% @doc The warning of a node whose carriers are these, and not ours.
-spec unused([string()], {ok, [[string()]]} | error) -> unicode:chardata().
unused(Carriers, Given) ->
    Why =
        case Given of
            {ok, [_, _ | _] = Several} ->
                [
                    "-proto_dist is given ", integer_to_list(length(Several)), " times (",
                    lists:join("; ", [lists:join(" ", Words) || Words <- Several]),
                    "). Give it once: look into vm.args, ERL_FLAGS, ERL_AFLAGS and ERL_ZFLAGS "
                    "(rel/env.sh.eex)"
                ];
            {ok, _} ->
                "give -proto_dist quic in its place, in vm.args or ERL_FLAGS (rel/env.sh.eex)";
            error ->
                "give -proto_dist quic, in vm.args or ERL_FLAGS"
        end,
    [
        "the application quic_dist runs, and this node does not use QUIC: its carrier is ",
        lists:join(" ", Carriers), ". ", Why
    ].

%% Compares what the sources say now with the options in use since distribution started.
too_late(undefined) ->
    [];
too_late(_) ->
    case {quic_dist_sidecar:options(), quic_dist_config:read()} of
        {{ok, InUse}, {ok, Now}} -> late(changed(InUse, Now));
        {{ok, _}, {error, {bad_option, Key, _, _, _}}} -> late([Key]);
        _ -> []
    end.

%% Secret values are not handed out: the source of an option shows that it is given.
changed(#{sources := Before} = InUse, #{sources := After} = Now) ->
    Table = quic_dist_config:table(),
    Secret = quic_dist_option:secret(Table),
    Keys = lists:sort(quic_dist_option:fixed(Table) -- Secret),
    [Key || Key <- Keys, maps:find(Key, InUse) =/= maps:find(Key, Now)] ++
        [Key || Key <- Secret, is_map_key(Key, After), not is_map_key(Key, Before)].

late([]) ->
    [];
late(Keys) ->
    Named = lists:join(", ", [io_lib:format("~tw", [Key]) || Key <- Keys]),
    [
        [
            "set after distribution started, and not in use: ", Named, ". Put it into vm.args, "
            "sys.config or Elixir's config/config.exs; config/runtime.exs is read too late, unless "
            "the release has reboot_system_after_config: true"
        ]
    ].

warn(Lines) ->
    lists:foreach(fun(Line) -> quic_dist_log:log(warning, Line) end, Lines).
