-module(quic_dist_config_tests).

-include_lib("eunit/include/eunit.hrl").

%% Options from one source.
check(Options) -> quic_dist_config:check([{"here", Options}]).

option(Key, Value) ->
    case check([{Key, Value}]) of
        {ok, Options} -> {ok, maps:get(Key, Options)};
        {error, _} = Error -> Error
    end.

%% The result leaves out options that are not set, but for those with a default.
nothing_given_test() ->
    {ok, Options} = quic_dist_config:check([]),
    ?assertEqual(#{}, maps:get(nodes, Options)),
    ?assertEqual(notice, maps:get(log_level, Options)),
    ?assertEqual(auto, maps:get(data_plane, Options)),
    ?assertEqual(bulk, maps:get(streams, Options)),
    ?assertEqual(8, maps:get(lanes, Options)),
    ?assertEqual(auto, maps:get(connections, Options)),
    ?assertEqual(true, maps:get(resume, Options)),
    ?assertEqual(quic, maps:get(path, Options)),
    ?assertEqual(any, maps:get(certificate_names, Options)),
    ?assertEqual(false, maps:get(close_untrusted, Options)),
    ?assertEqual(false, maps:get(insecure_no_verify, Options)),
    ?assertEqual(registry, maps:get(discovery, Options)),
    ?assertEqual([<<"127.0.0.0/8">>, <<"::1">>], maps:get(names_to, Options)),
    ?assertEqual(<<"_erldist._udp.%h">>, maps:get(dns_service, Options)),
    ?assertEqual(<<"_erldist._tcp.%h">>, maps:get(dns_service_tcp, Options)),
    Optional = [
        certfile, keyfile, password, cacertfile, allow, listen_address, listen_port, executable,
        nodes_file, peer_port, name_port, name_address, dns_server
    ],
    ?assertEqual([], [Key || Key <- Optional, is_map_key(Key, Options)]).

%% Each option takes these values and gives them the form that the library uses.
accepted_test_() ->
    [
        {lists:flatten(io_lib:format("~p", [{Key, Value}])),
            ?_assertEqual({ok, Checked}, option(Key, Value))}
     || {Key, Value, Checked} <- accepted()
    ].

accepted() ->
    Files = [certfile, cacertfile, executable, nodes_file],
    Path = <<"/a b/ü"/utf8>>,
    [{Key, Value, Path} || Key <- Files, Value <- ["/a b/ü", Path, '/a b/ü']] ++
        [
            {certfile, lists:duplicate(4096, $a), binary:copy(<<"a">>, 4096)},
            {certfile, ["/etc/", <<"node">>, ".pem"], <<"/etc/node.pem">>},
            {listen_address, "127.0.0.1", {127, 0, 0, 1}},
            {listen_address, <<"127.0.0.1">>, {127, 0, 0, 1}},
            {listen_address, '127.0.0.1', {127, 0, 0, 1}},
            {listen_address, {127, 0, 0, 1}, {127, 0, 0, 1}},
            {listen_address, "0.0.0.0", {0, 0, 0, 0}},
            {listen_address, "::", {0, 0, 0, 0, 0, 0, 0, 0}},
            {listen_address, "fe80::1", {16#FE80, 0, 0, 0, 0, 0, 0, 1}},
            {listen_address, {0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}},
            {discovery, epmd, epmd},
            {discovery, none, none},
            {peer_port, 1, 1},
            {name_port, 65535, 65535},
            {name_address, "::1", {0, 0, 0, 0, 0, 0, 0, 1}},
            {names_to, [], []},
            {names_to, ["10.0.0.0/8", '::1'], [<<"10.0.0.0/8">>, <<"::1">>]},
            {dns_service, "_%n._udp.%h", <<"_%n._udp.%h">>},
            {dns_server, "10.0.0.53:53", <<"10.0.0.53:53">>},
            {listen_port, 0, {0, 0}},
            {listen_port, 1, {1, 1}},
            {listen_port, 65535, {65535, 65535}},
            {listen_port, {1, 65535}, {1, 65535}},
            {listen_port, {7, 7}, {7, 7}},
            {allow, [], []},
            {allow, ["*"], [<<"*">>]},
            {allow, ['a@h', "*@b.io", <<"c*@d*">>], [<<"a@h">>, <<"*@b.io">>, <<"c*@d*">>]},
            {allow, [lists:duplicate(1022, $a) ++ "@h"], [
                iolist_to_binary([lists:duplicate(1022, $a), "@h"])
            ]},
            {nodes, [], #{}},
            {nodes, [{'a@b', "c", 1}], #{'a@b' => {<<"c">>, 1}}},
            {nodes, [{"a@b", <<"c">>, 65535}], #{'a@b' => {<<"c">>, 65535}}},
            {nodes, [{<<"a@b">>, c, 1}], #{'a@b' => {<<"c">>, 1}}},
            {nodes, [{'a@b', {10, 0, 0, 1}, 1}], #{'a@b' => {<<"10.0.0.1">>, 1}}},
            {nodes, [{'a@b', {0, 0, 0, 0, 0, 0, 0, 1}, 1}], #{'a@b' => {<<"::1">>, 1}}},
            {nodes, [{'a@b', lists:duplicate(255, $h), 1}], #{
                'a@b' => {binary:copy(<<"h">>, 255), 1}
            }},
            {nodes, [{'a@b', "x", 1}, {'c@d', "y", 2}], #{
                'a@b' => {<<"x">>, 1}, 'c@d' => {<<"y">>, 2}
            }},
            %% The first entry of a node counts.
            {nodes, [{'a@b', "x", 1}, {'a@b', "y", 2}], #{'a@b' => {<<"x">>, 1}}}
        ] ++
        [{data_plane, Plane, Plane} || Plane <- [auto, socket, stdio]] ++
        [{streams, Mode, Mode} || Mode <- [single, bulk, sender]] ++
        [{lanes, N, N} || N <- [1, 8, 64]] ++
        [{connections, K, K} || K <- [auto, 1, 16]] ++
        [{certificate_names, Names, Names} || Names <- [any, node, host]] ++
        [
            {Key, Set, Set}
         || Key <- [resume, close_untrusted, insecure_no_verify, log_domains],
            Set <- [true, false]
        ] ++
        [{status_port, N, N} || N <- [0, 9464, 65535]] ++
        [{Key, "/x/y", <<"/x/y">>} || Key <- [qlog_dir, insecure_key_log]] ++
        [{log_level, Level, Level} || Level <- [error, warning, notice, info, debug]].

%% Each option refuses these values, with its own words for what it takes.
refused_test_() ->
    [
        {lists:flatten(io_lib:format("~0p", [{Key, Value}])),
            {timeout, 60, fun() ->
                {error, Reason} = check([{Key, Value}]),
                {bad_option, Key, _, "here", _} = Reason,
                Text = quic_dist_config:format_error(Reason),
                ?assertMatch({match, _}, re:run(Text, Accepted))
            end}}
     || {Key, Values, Accepted} <- refused(), Value <- Values
    ].

refused() ->
    NoText = ["", <<>>, '', 17, [a | b], {}, #{}, <<255>>, lists:duplicate(4097, $a)],
    Files = [certfile, keyfile, cacertfile, executable, insecure_key_log, nodes_file],
    [{Key, NoText, "a file name"} || Key <- Files] ++
        [
            {discovery, [registri, "registry", 1, fixed], "registry, epmd|this together with"},
            {peer_port, [0, 65536, "7000", a, {1, 2}], "a port number, 1 to 65535"},
            {name_port, [0, -1, 1.0], "a port number, 1 to 65535"},
            {name_address, ["localhost", 17], "an IP address"},
            {names_to, ["::1", [""], [a | b], [10], lists:duplicate(65, "::1")], "at most 64"},
            {dns_service, NoText, "%n .* %h"},
            {dns_service_tcp, NoText, "%n .* %h"},
            {dns_server, NoText, "address and port"},
            {password, NoText, "a string"},
            {listen_address,
                ["", "localhost", "10.0.0", "10.0.0.256", ":::", {10, 0, 0}, {10, 0, 0, 256}, 17],
                "an IP address"},
            {listen_port,
                [-1, 65536, 1.0, "7000", <<"7000">>, a, {0, 1}, {2, 1}, {1, 65536}, {1}, {1, 2, 3}],
                "0 to 65535.*{Min, Max}"},
            {allow,
                [
                    'a@h',
                    "a@h",
                    <<"a@h">>,
                    all,
                    [a],
                    ["a*"],
                    ["@h"],
                    ["a@"],
                    ["a@b@c"],
                    [""],
                    [17],
                    [lists:duplicate(1023, $a) ++ "@h"],
                    ['a@h' | 'b@h']
                ],
                "a list of node names, or patterns"},
            {nodes,
                [
                    a,
                    #{'a@b' => {"c", 1}},
                    [a],
                    [{'a@b', "c"}],
                    [{a, "c", 1}],
                    [{'@b', "c", 1}],
                    [{'a@', "c", 1}],
                    [{'a@b@c', "c", 1}],
                    [{17, "c", 1}],
                    [{'a@b', "", 1}],
                    [{'a@b', {1, 2, 3}, 1}],
                    [{'a@b', lists:duplicate(256, $h), 1}],
                    [{'a@b', "c", 0}],
                    [{'a@b', "c", 65536}],
                    [{'a@b', "c", "1"}],
                    [{'a@b', "c", 1} | b]
                ],
                "a list of {Node, Host, UdpPort}"},
            {data_plane, [tcp, "stdio", true], "auto, socket or stdio"},
            {streams, [auto, one, "bulk", <<"bulk">>, true, 1, [bulk]], "single, bulk or sender"},
            {certificate_names, [cn, "any", true, [any]], "any, node or host"},
            {resume, [yes, "true", 1], "true or false"},
            {path, [udp, "tcp", true], "quic, auto or tcp"},
            {close_untrusted, [yes, "true", 1, <<"true">>], "true or false"},
            {insecure_no_verify, [no, "false", 0, undefined], "true or false"},
            {log_domains, [yes, 1, []], "true or false"},
            {status_port, [-1, 65536, "9464", any, {1, 2}], "0 to 65535"},
            {qlog_dir, NoText, "the name of a folder"},
            {lanes, [0, 65, -1, 8.0, "8", auto, {1, 64}], "1 to 64"},
            {connections, [0, 17, -1, 1.0, "1", "auto", any, {1, 16}], "auto, or 1 to 16"},
            {log_level, [warn, all, none, "info", 7, emergency], "error, warning, notice, info"}
        ].

%% An unknown option is refused, with a list of those that are known.
unknown_test_() ->
    [
        fun() ->
            {error, {bad_option, Key, 1, "here", Accepted}} = check([{Key, 1}]),
            [
                ?assertNotEqual({Known, nomatch}, {Known, string:find(Accepted, Known)})
             || Known <- lists:map(fun atom_to_list/1, known())
            ]
        end
     || Key <- [nonsense, "certfile", <<"certfile">>, {a, b}, 17]
    ].

%% Those that an unknown one is answered with.
known() -> quic_dist_option:names(quic_dist_config:table()).

%% Each option is documented, with its default and its other names, and is read by a module or sent
%% to the sidecar; and each option that is documented is in the table.
documented_test_() ->
    [
        {Heading, fun() ->
            Documented = documented(Heading),
            Table = Config:table(),
            ?assertEqual(
                lists:sort(quic_dist_option:names(Table)),
                lists:sort([Key || {Key, _, _} <- Documented])
            ),
            {ok, Defaults} = Config:check([]),
            [
                begin
                    {_, _, Traits} = lists:keyfind(Key, 1, Table),
                    ?assertEqual({Key, default(Key, Defaults)}, {Key, Default}),
                    ?assertEqual({Key, maps:get(aliases, Traits, [])}, {Key, Aliases})
                end
             || {Key, Aliases, Default} <- Documented
            ],
            Others = [Module || Module <- modules(), Module =/= Config],
            Unread = [Key || {Key, _, Traits} <- Table, not is_map_key(to, Traits)],
            ?assertEqual([], Unread -- lists:append(lists:map(fun atoms/1, Others)))
        end}
     || {Heading, Config} <- [
            {"## Options of quic_dist", quic_dist_config}, {"## Options of webdist", webdist_config}
        ]
    ].

%% What a table sends are fields that the messages have; and what a link reads anew is not sent
%% when the port is served.
sent_test() ->
    Messages = quic_dist_proto:messages(vm),
    [
        begin
            {Message, Field} =
                case Target of
                    {_, _} -> Target;
                    _ -> {Target, Name}
                end,
            {_, Fields} = lists:keyfind(Message, 1, Messages),
            ?assertEqual({Name, true}, {Name, lists:keymember(Field, 1, Fields)}),
            ?assertNot(is_map_key(live, Traits) andalso Message =:= web_serve)
        end
     || Config <- [quic_dist_config, webdist_config],
        {Name, _, #{to := Targets} = Traits} <- Config:table(),
        Target <- Targets
    ].

%% Options become fields of `configure' in the form that the sidecar reads.
configure_test() ->
    {ok, Options} = check([{name_address, "::1"}, {connections, auto}, {certfile, "/c"}]),
    Fields = quic_dist_config:configure(Options),
    ?assertMatch(
        #{name_address := <<"::1">>, connections := 0, certfile := <<"/c">>, name_port := 4369},
        Fields
    ),
    [?assertNot(is_map_key(Key, Fields)) || Key <- [allow, nodes, fallback, keyfile, sources]],
    {ok, Given} = check([{name_port, 17}, {connections, 3}]),
    ?assertMatch(#{name_port := 17, connections := 3}, quic_dist_config:configure(Given)).

%% The type of the options names all of the table, and requires those that have a default.
type_test_() ->
    [
        ?_assertEqual(
            lists:sort(
                [
                    {Name, is_map_key(default, Traits)}
                 || {Name, _, Traits} <- Config:table()
                ] ++ Others
            ),
            lists:sort(declared(forms(Config)))
        )
     || {Config, Others} <- [{quic_dist_config, [{sources, true}]}, {webdist_config, []}]
    ].

declared(Forms) ->
    [Fields] = [Fields || {attribute, _, type, {options, {type, _, map, Fields}, []}} <- Forms],
    [{Name, Kind =:= map_field_exact} || {type, _, Kind, [{atom, _, Name}, _]} <- Fields].

%% A file's name at the head of a text is found in the options that name it.
option_of_file_test() ->
    {ok, Options} = check([{certfile, "/c"}, {qlog_dir, "/q"}, {executable, "/x"}]),
    Of = fun(Text) -> quic_dist_config:option_of_file(Text, Options) end,
    ?assertEqual("quic_dist: bad option certfile from here: ", Of(<<"/c: no such file">>)),
    ?assertEqual("quic_dist: bad option qlog_dir from here: ", Of(<<"/q: no such folder">>)),
    ?assertEqual("", Of(<<"/x: not this one">>)).

%% Another way than QUIC authenticates peers as QUIC does.
fallback_test_() ->
    [
        {lists:flatten(io_lib:format("~0tp", [Given])), fun() ->
            case option(fallback, Given) of
                {ok, Carriers} ->
                    ?assertEqual(Want, {ok, Carriers});
                {error, {bad_option, fallback, Given, "here", Accepted}} ->
                    ?assertEqual(Want, error),
                    ?assertEqual("a list of https, wss, h2 and h3, in the order to try", Accepted)
            end
        end}
     || {Given, Want} <- [
            {[], {ok, []}},
            {[https, wss, h2, h3], {ok, [https, wss, h2, h3]}},
            {[http], error},
            {[https, ws], error},
            {[quic], error},
            {[https | wss], error},
            {https, error}
        ]
    ].

%% The options in the tables of a section of docs/OPTIONS.md, with their other names, and their
%% defaults: `none' where that is told in words.
documented(Heading) ->
    {ok, Text} = file:read_file("docs/OPTIONS.md"),
    [_, Rest] = binary:split(Text, iolist_to_binary(["\n", Heading, "\n"])),
    [Section | _] = binary:split(Rest, <<"\n## ">>),
    Row = "^\\| `([a-z_0-9]+)`(?: \\(or `([a-z]+)`\\))? .*\\| ([^|]*) \\|$",
    {match, Rows} = re:run(Section, Row, [
        global, multiline, {capture, all_but_first, list}
    ]),
    {Parameters, _} = kernel_parameters(Text),
    [
        {list_to_atom(Key), [list_to_atom(Alias) || Alias =/= ""], in_words(Default)}
     || [Key, Alias, Default] <- Rows, not lists:member(Key, Parameters)
    ].

%% Kernel's parameters have a table of two columns in the same section.
kernel_parameters(Text) ->
    [_, Rest] = binary:split(Text, <<"\n### Kernel's parameters\n">>),
    [Section | _] = binary:split(Rest, <<"\n## ">>),
    {match, Found} = re:run(Section, "^\\| `([a-z_]+)`(?:, `([a-z_]+)`)? ", [
        global, multiline, {capture, all_but_first, list}
    ]),
    {lists:append(Found), Section}.

kernel_parameters_documented_test() ->
    {ok, Text} = file:read_file("docs/OPTIONS.md"),
    {Documented, _} = kernel_parameters(Text),
    Read = lists:usort([
        Parameter
     || Module <- modules(), Parameter <- parameters(forms(Module))
    ]),
    ?assertEqual(Read, lists:sort([list_to_atom(Name) || Name <- Documented])).

%% The names in application:get_env(kernel, Name) and its like.
parameters({call, _, {remote, _, {atom, _, application}, {atom, _, get_env}}, [Kernel | Args]}) ->
    case {Kernel, Args} of
        {{atom, _, kernel}, [{atom, _, Name} | _]} -> [Name];
        _ -> []
    end;
parameters(Form) when is_tuple(Form) -> parameters(tuple_to_list(Form));
parameters([Form | Rest]) -> parameters(Form) ++ parameters(Rest);
parameters(_) -> [].

in_words(Default) ->
    case re:run(Default, "^`(.*)`$", [{capture, all_but_first, list}]) of
        {match, [Term]} ->
            {ok, Tokens, _} = erl_scan:string(Term ++ "."),
            {ok, Value} = erl_parse:parse_term(Tokens),
            Value;
        nomatch ->
            none
    end.

%% A default as people write it; `none' also for what is empty and means something of its own.
default(Key, Defaults) ->
    case Defaults of
        #{Key := Binary} when is_binary(Binary) -> binary_to_list(Binary);
        #{Key := [Binary | _] = Texts} when is_binary(Binary) -> [binary_to_list(T) || T <- Texts];
        #{allow := []} when Key =:= allow -> none;
        #{nodes := Empty} when Key =:= nodes, Empty =:= #{} -> [];
        #{Key := Value} -> Value;
        #{} -> none
    end.

modules() ->
    Ebin = filename:dirname(code:which(quic_dist)),
    [
        list_to_atom(filename:basename(File, ".beam"))
     || File <- filelib:wildcard(filename:join(Ebin, "*.beam"))
    ].

forms(Module) ->
    {ok, {_, [{abstract_code, {_, Forms}}]}} = beam_lib:chunks(code:which(Module), [abstract_code]),
    Forms.

atoms(Module) -> named(forms(Module)).

named({atom, _, Atom}) -> [Atom];
named(Form) when is_tuple(Form) -> named(tuple_to_list(Form));
named([Form | Rest]) -> named(Form) ++ named(Rest);
named(_) -> [].

%% The first quic_dist's names are names for the same options.
old_names_test() ->
    ?assertMatch(
        {ok, #{certfile := <<"c">>, keyfile := <<"k">>}}, check([{cert, "c"}, {key, "k"}])
    ),
    ?assertMatch({ok, #{certfile := <<"new">>}}, check([{certfile, "new"}, {cert, "old"}])),
    ?assertMatch({ok, #{certfile := <<"old">>}}, check([{cert, "old"}, {certfile, "new"}])),
    ?assertMatch({error, {bad_option, cert, 17, "here", "a file name"}}, check([{cert, 17}])).

%% Earlier sources win, and within a source the first mention.
precedence_test() ->
    Sources = [
        {"flags", [{listen_port, 1}, {listen_port, 2}]},
        {"file", [{listen_port, 3}, {log_level, debug}]},
        {"environment", [{listen_port, 4}, {log_level, error}, {executable, "/x"}]}
    ],
    ?assertMatch(
        {ok, #{listen_port := {1, 1}, log_level := debug, executable := <<"/x">>}},
        quic_dist_config:check(Sources)
    ).

%% A wrong value is refused, under the name of its own source, although a higher source wins.
hidden_mistakes_test() ->
    Sources = [{"flags", [{log_level, info}]}, {"file", [{log_level, loud}]}],
    ?assertMatch(
        {error, {bad_option, log_level, loud, "file", _}}, quic_dist_config:check(Sources)
    ).

%% A key or a password without a certificate is refused, under its own source; one source may
%% complete another.
incomplete_identity_test() ->
    ?assertMatch(
        {error, {bad_option, keyfile, "k", "here", "this together with certfile"}},
        check([{keyfile, "k"}])
    ),
    ?assertMatch(
        {error, {bad_option, keyfile, "k", "here", "this together with certfile"}},
        check([{key, "k"}])
    ),
    ?assertMatch(
        {error, {bad_option, password, _, "here", "this together with certfile"}},
        check([{password, "p"}])
    ),
    ?assertMatch(
        {ok, #{certfile := <<"c">>, keyfile := <<"k">>, password := <<"p">>}},
        quic_dist_config:check([
            {"flags", [{keyfile, "k"}]}, {"file", [{certfile, "c"}, {password, "p"}]}
        ])
    ).

%% The answer to a mistyped name has the nearest option, if one is near, and no other.
nearest_test_() ->
    Text = fun(Check, Key) ->
        case Check([{Key, 1}]) of
            {error, Reason} when is_tuple(Reason) -> quic_dist_config:format_error(Reason);
            {error, Words} -> Words
        end
    end,
    Quic = fun check/1,
    Web = fun webdist_config:check/1,
    [
        ?_assertMatch({match, _}, re:run(Text(Check, Key), ["did you mean ", Meant, "\\?$"]))
     || {Check, Key, Meant} <- [
            {Quic, lane, "lanes"},
            {Quic, alow, "allow"},
            {Quic, listen_prot, "listen_port"},
            {Quic, cacert_file, "cacertfile"},
            {Web, carrier, "carriers"},
            {Web, web_upsteam, "web_upstream"}
        ]
    ] ++
        [
            ?_assertEqual(nomatch, re:run(Text(Check, Key), "did you mean"))
         || {Check, Key} <- [
                {Quic, nonsense},
                {Quic, a},
                {Quic, "lane"},
                {Web, certfile},
                {Quic, list_to_atom(lists:duplicate(255, $l))}
            ]
        ].

%% No error about a password shows it, in whatever form it was set.
passwords_are_not_shown_test_() ->
    Secrets = ["s3cret", <<"s3cret">>, s3cret, {s3cret}, [s3cret | b], #{s3cret => 1}],
    [
        fun() ->
            {error, Reason} = check([{password, Secret}]),
            ?assertEqual(nomatch, string:find(quic_dist_config:format_error(Reason), "s3cret")),
            ?assertEqual(nomatch, string:find(io_lib:format("~p", [Reason]), "s3cret"))
        end
     || Secret <- Secrets
    ].

%% An error is one line: option, value, source and what is accepted.
one_line_test_() ->
    Mistakes = [{Key, Value} || {Key, Values, _} <- refused(), Value <- Values, Key =/= password],
    [
        fun() ->
            {error, Reason} = quic_dist_config:check([{"the source", [{Key, Value}]}]),
            Text = quic_dist_config:format_error(Reason),
            ?assertEqual(nomatch, string:find(Text, "\n")),
            Parts = [
                atom_to_list(Key),
                lists:flatten(io_lib:format("~0tp", [Value])),
                "the source",
                element(5, Reason)
            ],
            [?assertNotEqual({Part, nomatch}, {Part, string:find(Text, Part)}) || Part <- Parts]
        end
     || {Key, Value} <- Mistakes ++ [{certfile, {"two\nlines", lists:seq(1, 200)}}]
    ].

%% A value on the command line is a term if it reads as one, and else a string.
flags_test_() ->
    [
        {Word, ?_assertEqual([{key, Value}], quic_dist_source:flags(quic_dist, ["key", Word]))}
     || {Word, Value} <- [
            {"4711", 4711},
            {"{1,2}", {1, 2}},
            {"debug", debug},
            {"'a@b'", 'a@b'},
            {"a@b", a@b},
            {"\"quoted\"", "quoted"},
            {"'\"quoted twice\"'", "quoted twice"},
            {"'\"half", "'\"half"},
            {"<<\"bin\">>", <<"bin">>},
            {"[{'a@b', \"h\", 1}]", [{'a@b', "h", 1}]},
            {"/etc/ssl/node.pem", "/etc/ssl/node.pem"},
            {"./node.pem", "./node.pem"},
            {"node.pem", "node.pem"},
            {"C:\\node.pem", "C:\\node.pem"},
            {"10.0.0.1", "10.0.0.1"},
            {"::1", "::1"},
            {"fe80::1", "fe80::1"},
            {"two words", "two words"},
            {"Upper", "Upper"},
            {"it's", "it's"},
            {"50%", "50%"},
            {"1. 2", "1. 2"},
            {"fun() -> ok end", "fun() -> ok end"},
            {"", ""}
        ]
    ].

%% One flag may hold several pairs, as may several flags.
several_flags_test() ->
    ?assertEqual([], quic_dist_source:flags(quic_dist, [])),
    ?assertEqual(
        [{listen_port, 1}, {certfile, "/c"}, {listen_port, 2}],
        quic_dist_source:flags(quic_dist, [
            "listen_port", "1", "certfile", "/c", "listen_port", "2"
        ])
    ).

%% A key without a value is an error of its own, in one line too.
missing_value_test() ->
    Reason =
        try
            quic_dist_source:flags(quic_dist, ["listen_port", "1", "certfile"])
        catch
            throw:Thrown -> Thrown
        end,
    ?assertMatch({bad_source, _, _, _}, Reason),
    ?assertEqual(
        "quic_dist: boot flag -quic_dist certfile: has no value; accepted is -quic_dist Key Value",
        quic_dist_config:format_error(Reason)
    ).

%% The application's environment is a source, and the keys that OTP puts there are no options.
environment_test() ->
    Env = application:get_all_env(quic_dist),
    ok = application:set_env(quic_dist, listen_port, 4711),
    try
        ?assertMatch({ok, #{listen_port := {4711, 4711}}}, quic_dist_config:read()),
        ok = application:set_env(quic_dist, listen_port, nonsense),
        {error, Reason} = quic_dist_config:read(),
        ?assertNotEqual(nomatch, string:find(quic_dist_config:format_error(Reason), "environment"))
    after
        application:unset_env(quic_dist, listen_port)
    end,
    ?assertEqual(lists:sort(Env), lists:sort(lists:keydelete(included_applications, 1, Env))).
