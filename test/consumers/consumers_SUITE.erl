%% @doc Projects that have this repository as a git dependency, by rebar3 and by mix: it is fetched,
%% compiled and gets its executable; their releases run where nothing else is, and the commands that
%% come with these work. Needs root, for cage.sh, and Elixir, for mix.
%%
%% The repository that they fetch has this working tree as the tag v1, and as v2 the same with a
%% version that is raised.
-module(consumers_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2]).
-export([end_per_testcase/2]).
-export([
    compiled_with_its_executable/1,
    two_nodes/1,
    remote_shell/1,
    no_place_for_sockets/1,
    upgraded/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-import(quic_dist_wait, [scale/1]).

-define(NEW_VSN, "9.9.9").

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(300000)}].

all() ->
    [{group, rebar3}, {group, mix}].

groups() ->
    Cases = [
        compiled_with_its_executable,
        two_nodes,
        remote_shell,
        no_place_for_sockets,
        upgraded
    ],
    [{Tool, [], Cases} || Tool <- [rebar3, mix]].

init_per_suite(Config) ->
    case os:cmd("id -u") of
        "0\n" ->
            Repository = filename:join(quic_dist_run:dir(), "repository"),
            ok = repository(Repository),
            Home = filename:join(quic_dist_run:dir(), "home"),
            ok = file:make_dir(Home),
            %% The user nobody has to get at the releases.
            ok = file:change_mode(quic_dist_run:dir(), 8#755),
            [{url, "file://" ++ Repository}, {home, Home} | Config];
        _ ->
            {skip, "cage.sh needs root"}
    end.

end_per_suite(_Config) ->
    ok.

%% What is not committed is in the working tree as well.
repository(Dir) ->
    Git = "git -c user.name=test -c user.email=test@localhost -c init.defaultBranch=main ",
    Commit = [Git, "add -A && ", Git, "commit -qm"],
    quic_dist_fixtures:shell(quic_dist_fixtures:top(), [
        "mkdir -p ", Dir, " && git ls-files -z --cached --others --exclude-standard ",
        "| xargs -0 cp -P --parents -t ", Dir, " && cd ", Dir, " && ",
        Git, "init -q && ", Commit, " v1 && git tag v1 && ",
        "sed -i 's/{vsn, \".*\"}/{vsn, \"" ?NEW_VSN "\"}/' erlang/src/quic_dist.app.src && ",
        Commit, " v2 && git tag v2"
    ]).

%% Each tool builds its project once, with a path to the executable and no Go.
init_per_group(Tool, Config) ->
    Project = filename:join(quic_dist_run:dir(), atom_to_list(Tool)),
    Fixture = filename:join([quic_dist_fixtures:top(), "test", "consumers", atom_to_list(Tool)]),
    ok = quic_dist_fixtures:shell("/", ["cp -R ", Fixture, " ", Project]),
    ok = substitute(Project, "URL", value(url, Config)),
    ok = substitute(Project, "TAG", "v1"),
    ok = substitute(Project, "VERSION", "1.0.0"),
    {ok, Target} = quic_dist_executable:target(),
    Executable = filename:join([code:priv_dir(quic_dist), Target, "quicdistd"]),
    Config1 = [{tool, Tool}, {project, Project}, {target, Target} | Config],
    Said = build(Config1, [{"QUIC_DIST_EXECUTABLE", Executable}]),
    Release = unpack(Config1, "1.0.0"),
    [{said, Said}, {executable, Executable}, {release, Release} | Config1].

end_per_group(_Tool, _Config) ->
    ok.

end_per_testcase(_Case, _Config) ->
    %% What a case has started and not ended.
    [quic_dist_os:signal(Pid, kill) || {Pid, _} <- quic_dist_os:os_processes()],
    ok.

value(Key, Config) -> proplists:get_value(Key, Config).

%% Fetched, compiled, and with the executable, which has its run bit in the release too.
compiled_with_its_executable(Config) ->
    Vsn = binary_to_list(quic_dist_fixtures:vsn()),
    contains(value(said, Config), [
        "quicdistd " ++ Vsn ++ " for " ++ value(target, Config) ++ ": copied from"
    ]),
    File = in_release(Config, value(release, Config), Vsn),
    ?assertEqual(file:read_file(value(executable, Config)), file:read_file(File)),
    {ok, #file_info{mode = Mode}} = file:read_file_info(File),
    ?assertEqual(8#111, Mode band 8#111).

%% Two nodes of a release that was moved, run by nobody, on a read-only file system and without any
%% tools, find each other over QUIC and end in order; there is no epmd.
two_nodes(Config) ->
    [A, B] = [start(Config, value(release, Config), Name, Others) || {Name, Others} <- two_names()],
    up(A),
    up(B),
    ?assertEqual("pong", ping(Config, A, B)),
    ?assertEqual("pong", ping(Config, B, A)),
    ?assertEqual("socket", plane(Config, A, B)),
    ?assertEqual([], [Line || {_, Line} <- quic_dist_os:os_processes(), is_epmd(Line)]),
    stop(Config, A),
    stop(Config, B).

is_epmd(Line) -> re:run(Line, "^[^ ]*epmd( |$)") =/= nomatch.

%% The release's own command opens a shell on the node, from a terminal.
remote_shell(Config) ->
    [{Name, _} | _] = two_names(),
    Node = start(Config, value(release, Config), Name, []),
    up(Node),
    Shell = quic_dist_command:open(
        ["-qec", lists:concat(lists:join(" ", shell_command(Config, Node))), "/dev/null"],
        #{exec => os:find_executable("script"), env => [{"TERM", "xterm"} | env(Node)]}
    ),
    [] = quic_dist_command:expect(Shell, ["\\(", Name, "\\)1> "], 30000),
    quic_dist_command:enter(Shell, expression(Config)),
    [Pid] = quic_dist_command:expect(Shell, "here:([0-9]+):", 15000),
    ?assertEqual(os_pid(Config, Node), Pid),
    stop(Config, Node).

%% Where no socket can be made data goes through standard input and output.
no_place_for_sockets(Config) ->
    [A, B] = [
        start(Config, value(release, Config), Name, Others, [{"CAGE_TMP", "none"}])
     || {Name, Others} <- two_names()
    ],
    up(A),
    up(B),
    ?assertEqual("pong", ping(Config, A, B)),
    ?assertEqual("stdio", plane(Config, A, B)),
    stop(Config, A),
    stop(Config, B).

%% A dependency that is raised gets another executable, built by Go this time, and a node of the new
%% release takes the place of an old one beside others of the old.
upgraded(Config) ->
    [{NameA, _}, {NameB, _}] = two_names(),
    Old = start(Config, value(release, Config), NameA, []),
    Replaced = start(Config, value(release, Config), NameB, []),
    up(Old),
    up(Replaced),
    ?assertEqual("pong", ping(Config, Old, Replaced)),
    ok = substitute(value(project, Config), "v1", "v2"),
    ok = substitute(value(project, Config), "1\\.0\\.0", "2.0.0"),
    contains(
        upgrade(Config), ["quicdistd " ?NEW_VSN " for " ++ value(target, Config) ++ ": built with"]
    ),
    Release = unpack(Config, "2.0.0"),
    {ok, _} = file:read_file_info(in_release(Config, Release, ?NEW_VSN)),
    stop(Config, Replaced),
    New = start(Config, Release, NameB, []),
    up(New),
    ?assertEqual("pong", ping(Config, Old, New)),
    ?assertEqual("pong", ping(Config, New, Old)),
    ?assertEqual(binary_to_list(quic_dist_fixtures:vsn()), vsn(Config, Old)),
    ?assertEqual(?NEW_VSN, vsn(Config, New)),
    stop(Config, Old),
    stop(Config, New).

%% Projects

substitute(Project, Old, New) ->
    quic_dist_fixtures:shell(Project, [
        "find . -name _build -prune -o -name deps -prune -o -type f -print ",
        "| xargs sed -i 's#", Old, "#", New, "#g'"
    ]).

%% Neither tool has Hex here, nor needs it.
build(Config, Env) ->
    [said(Config, Line, Env) || Line <- build_lines(value(tool, Config))].

build_lines(rebar3) -> ["rebar3 as prod release", "rebar3 as prod tar"];
build_lines(mix) -> ["mix deps.get", "mix release"].

upgrade(Config) ->
    Line =
        case value(tool, Config) of
            rebar3 -> "rebar3 upgrade quic_dist";
            mix -> "mix deps.update quic_dist"
        end,
    [said(Config, Line, []) | build(Config, [])].

said(Config, Line, Env) ->
    {exit_status, Status, Said} = quic_dist_command:run(["-c", Line], #{
        exec => "/bin/sh",
        cd => value(project, Config),
        timeout => 240000,
        env => [
            {"HOME", value(home, Config)},
            {"MIX_ENV", "prod"},
            {"MIX_REBAR3", os:find_executable("rebar3")},
            {"HEX_OFFLINE", "1"},
            {"LC_ALL", "C.UTF-8"},
            {"GOFLAGS", "-modcacherw"},
            {"GOPATH", go_env("GOPATH")},
            {"GOCACHE", go_env("GOCACHE")}
            | Env
        ]
    }),
    ct:log("~ts~n~ts", [Line, Said]),
    ?assertEqual(0, Status, Said),
    Said.

%% Go's folders are in the home of who runs the tests.
go_env(Name) -> string:trim(os:cmd("go env " ++ Name)).

contains(Said, Words) ->
    [?assertNotEqual({Word, nomatch}, {Word, string:find(Said, Word)}, Said) || Word <- Words].

%% The archive of a release, unpacked elsewhere.
unpack(Config, Version) ->
    Tool = value(tool, Config),
    Archive = filename:join(value(project, Config), archive(Tool, Version)),
    Dir = filename:join(quic_dist_run:dir(), lists:concat([Tool, "-", Version, "-unpacked"])),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    ok = quic_dist_fixtures:shell(Dir, ["tar -xzf ", Archive]),
    Dir.

archive(rebar3, Version) -> "_build/prod/rel/consumer/consumer-" ++ Version ++ ".tar.gz";
archive(mix, Version) -> "_build/prod/consumer-" ++ Version ++ ".tar.gz".

in_release(Config, Release, Vsn) ->
    Application = filename:join([Release, "lib", "quic_dist-" ++ Vsn]),
    filename:join([Application, "priv", value(target, Config), "quicdistd"]).

%% Nodes

%% Two free ports, and the other's.
two_names() ->
    [A, B] = [integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1" || _ <- [1, 2]],
    [{A, [B]}, {B, [A]}].

start(Config, Release, Name, Others) -> start(Config, Release, Name, Others, []).

start(Config, Release, Name, Others, Env) ->
    Node = #{name => Name, release => Release, env => [{"PEERS", lists:join(" ", Others)} | Env]},
    Verb =
        case value(tool, Config) of
            rebar3 -> "foreground";
            mix -> "start"
        end,
    Command = quic_dist_command:open([Release, "/mnt/bin/consumer", Verb], #{
        exec => cage(), env => env(Node)
    }),
    Node#{command => Command}.

cage() -> filename:join([quic_dist_fixtures:top(), "test", "consumers", "cage.sh"]).

%% What the release's scripts want to write goes to /tmp/out. Nodetool is what relx has for
%% carriers other than TCP; newer releases of it take it by themselves.
env(#{name := Name, env := Env}) ->
    [
        {"NODE", Name},
        {"COOKIE", "secret"},
        {"RELEASE_COOKIE", "secret"},
        {"RELX_OUT_FILE_PATH", "/tmp/out"},
        {"RELEASE_TMP", "/tmp/out"},
        {"USE_NODETOOL", "1"},
        {"XDG_RUNTIME_DIR", false},
        {"LC_ALL", "C.UTF-8"}
        | Env
    ].

up(#{name := Name, command := Command}) ->
    [] = quic_dist_command:expect(Command, ["consumer is up: ", Name], 30000),
    ok.

%% What a command of the release's script says.
command(#{release := Release} = Node, Args) ->
    {exit_status, Status, Said} = quic_dist_command:run(
        [Release, "/mnt/bin/consumer" | Args], #{exec => cage(), env => env(Node), timeout => 30000}
    ),
    ?assertEqual({0, Args}, {Status, Args}, Said),
    string:trim(Said).

stop(Config, #{command := Command} = Node) ->
    _ = command(Node, ["stop"]),
    Ended = quic_dist_command:finish(Command, 30000),
    ?assertMatch({exit_status, 0, _}, Ended, value(tool, Config)).

%% What a node answers: to arguments of relx's script, or to an expression of Elixir. Above it may
%% stand what the command's own node logs.
ask(Config, Node, Arguments, Elixir) ->
    Said =
        case value(tool, Config) of
            rebar3 -> command(Node, Arguments);
            mix -> command(Node, ["rpc", Elixir])
        end,
    lists:last(string:lexemes(Said, "\r\n")).

ping(Config, From, #{name := To}) ->
    ask(
        Config,
        From,
        ["rpc", "net_adm", "ping", "['" ++ To ++ "']."],
        "IO.puts(:net_adm.ping(:\"" ++ To ++ "\"))"
    ).

%% How data gets from the VM to the sidecar: by a port of the emulator, or by a process.
plane(Config, From, #{name := To}) ->
    ask(
        Config,
        From,
        [
            "eval",
            "case lists:keyfind('" ++ To ++ "', 1, erlang:system_info(dist_ctrl)) of "
            "{_, Controller} when is_port(Controller) -> socket; _ -> stdio end."
        ],
        "controllers = :erlang.system_info(:dist_ctrl); "
        "IO.puts(if is_port(controllers[:\"" ++ To ++ "\"]), do: :socket, else: :stdio)"
    ).

os_pid(Config, Node) ->
    Said = ask(Config, Node, ["rpc", "os", "getpid"], "IO.puts(:os.getpid())"),
    string:trim(Said, both, "\"").

vsn(Config, Node) ->
    Said = ask(
        Config,
        Node,
        ["rpc", "application", "get_key", "[quic_dist, vsn]."],
        "IO.puts(Application.spec(:quic_dist, :vsn))"
    ),
    {match, [Vsn]} = re:run(Said, "[0-9]+\\.[0-9.]+", [{capture, first, list}]),
    Vsn.

shell_command(Config, #{release := Release}) ->
    Verb =
        case value(tool, Config) of
            rebar3 -> "remote_console";
            mix -> "remote"
        end,
    [cage(), Release, "/mnt/bin/consumer", Verb].

expression(Config) ->
    case value(tool, Config) of
        rebar3 -> "io:format(\"here:~ts:~n\", [os:getpid()]).\n";
        mix -> "IO.puts(\"here:#{:os.getpid()}:\")\n"
    end.
