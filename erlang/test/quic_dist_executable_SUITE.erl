%% @doc A project that compiles this library gets the executable to the right place: each way of
%% scripts/executable.escript works, and refuses what it must.
-module(quic_dist_executable_SUITE).

-export([all/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([
    taken_if_it_is_there/1,
    copied_from_a_path/1,
    unusable_paths/1,
    built_with_go/1,
    downloaded/1,
    refused_downloads/1,
    other_files_in_its_place/1,
    run_bit/1,
    for_another_system/1,
    every_way_is_named/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/file.hrl").

-import(quic_dist_wait, [scale/1]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(120000)}].

all() ->
    [
        taken_if_it_is_there,
        copied_from_a_path,
        unusable_paths,
        built_with_go,
        downloaded,
        refused_downloads,
        other_files_in_its_place,
        run_bit,
        for_another_system,
        every_way_is_named
    ].

%% A path on which there is no go, and all that starting an escript takes.
init_per_suite(Config) ->
    Tools = filename:join(quic_dist_run:dir(), "tools"),
    ok = file:make_dir(Tools),
    [
        ok = file:make_symlink(File, filename:join(Tools, Name))
     || Name <- ["sh", "sed", "dirname", "basename", "readlink"],
        File <- [os:find_executable(Name)],
        File =/= false
    ],
    {ok, Target} = quic_dist_executable:target(),
    Executable = filename:join([code:priv_dir(quic_dist), Target, "quicdistd"]),
    [{path, Tools}, {target, Target}, {executable, Executable} | Config].

end_per_suite(_Config) ->
    ok.

%% Each case has sources of its own, without an executable.
init_per_testcase(_Case, Config) ->
    Root = filename:join(quic_dist_run:dir(), quic_dist_run:unique("sources")),
    copy(
        [
            "scripts/executable.escript",
            "erlang/src/quic_dist_executable.erl",
            "erlang/src/quic_dist.app.src",
            "checksums.txt"
        ],
        Root
    ),
    [{root, Root} | Config].

end_per_testcase(_Case, Config) ->
    ok = file:del_dir_r(value(root, Config)).

copy(Files, Root) ->
    lists:foreach(
        fun(File) ->
            To = filename:join(Root, File),
            ok = filelib:ensure_dir(To),
            {ok, _} = file:copy(filename:join(quic_dist_fixtures:top(), File), To)
        end,
        Files
    ).

value(Key, Config) -> proplists:get_value(Key, Config).

%% The executable of another version, and one that is none.
other_version() ->
    quic_dist_fixtures:quicdistd("other-version", #{vsn => "9.9.9"}).

stranger() -> <<"#!/bin/sh\necho quicdistd 0.0.0\n">>.

%% An ELF header for arm64 (elf(5)): nothing here can run it, so that nobody asks for its version.
arm64() -> <<16#7F, "ELF", 2, 1, 1, 0, 0:80, 183:16/little, 0:800>>.

%% If it is there it is taken without a word, and nothing else is needed: no Go, no network.
taken_if_it_is_there(Config) ->
    ok = put_there(Config, contents(Config)),
    ?assertEqual({0, ""}, place(Config, [])),
    ?assertEqual(contents(Config), there(Config)),
    %% A path does not replace it, but is not passed over in silence either.
    Other = file(Config, "other", <<"another file">>),
    {0, Said} = place(Config, [{"QUIC_DIST_EXECUTABLE", Other}]),
    said(["is taken; remove it to have", Other], Said),
    ?assertEqual(contents(Config), there(Config)).

%% QUIC_DIST_EXECUTABLE is copied, may be without its run bit, and is there the next time.
copied_from_a_path(Config) ->
    Given = file(Config, "quicdistd ü", contents(Config)),
    ok = file:change_mode(Given, 8#600),
    {0, Said} = place(Config, [{"QUIC_DIST_EXECUTABLE", Given}]),
    said(["copied from"], Said),
    ?assertEqual(contents(Config), there(Config)),
    {ok, #file_info{mode = Mode}} = file:read_file_info(place_of(Config)),
    ?assertEqual(8#755, Mode band 8#777),
    ?assertEqual({0, ""}, place(Config, [])).

%% An unusable path ends the build, whatever other ways there are. The error says what was found.
unusable_paths(Config) ->
    {ok, Head} = file:read_file(value(executable, Config)),
    [
        begin
            {1, Said} = place(Config, [{"QUIC_DIST_EXECUTABLE", Path} | mirror("http://[::1]:1")]),
            said(["QUIC_DIST_EXECUTABLE" | Words], Said),
            ?assertEqual(none, there(Config)),
            ?assertEqual([], new_files(Config))
        end
     || {Path, Words} <- [
            {filename:join(value(root, Config), "none"), ["no such file"]},
            {value(root, Config), ["is a folder"]},
            {"quicdistd", ["absolute path"]},
            {file(Config, "script", stranger()), ["a script", "is wanted"]},
            {file(Config, "arm64", arm64()), ["a 64-bit ELF executable for arm64", "is wanted"]},
            {file(Config, "empty", <<>>), ["not an executable", "is wanted"]},
            {file(Config, "half", binary:part(Head, 0, 4096)), ["does not say its version"]},
            {other_version(), ["says quicdistd 9.9.9", binary_to_list(quic_dist_fixtures:vsn())]}
        ]
    ].

%% With a Go toolchain it is built; again when the sources have changed, and only then.
built_with_go(Config) ->
    case os:find_executable("go") of
        false ->
            {skip, "no go here"};
        Go ->
            copy(["go.mod", "go.sum" | go_files()], value(root, Config)),
            Path = [{"PATH", filename:dirname(Go) ++ ":" ++ os:getenv("PATH")}],
            {0, Said} = place(Config, Path),
            said(["built with"], Said),
            Built = there(Config),
            ?assertEqual({0, ""}, place(Config, Path)),
            Main = filename:join(value(root, Config), "cmd/quicdistd/main.go"),
            {ok, Text} = file:read_file(Main),
            Wrong = "erlang -proto_dist quic",
            Changed = string:replace(Text, "is started by it: erl -proto_dist quic", Wrong),
            ok = file:write_file(Main, Changed),
            {0, Again} = place(Config, Path),
            said(["built with"], Again),
            ?assertNotEqual(Built, there(Config)),
            %% Without Go what was built from other sources is not taken.
            ok = file:write_file(Main, Text),
            {1, Stale} = place(Config, []),
            said(["was built for other sources", "there is no go in PATH"], Stale),
            %% The same of files that are compiled in.
            {0, _} = place(Config, Path),
            Page = filename:join(value(root, Config), "internal/status/page/index.html"),
            ok = file:write_file(Page, "another page\n", [append]),
            {1, StalePage} = place(Config, []),
            said(["was built for other sources", "there is no go in PATH"], StalePage),
            %% A build that does not succeed is one more way that did not.
            ok = file:write_file(Main, "package main\nfunc main() { nonsense }\n"),
            {1, Broken} = place(Config, Path),
            said(["build with", "undefined: nonsense", "QUIC_DIST_MIRROR"], Broken)
    end.

go_files() ->
    Top = quic_dist_fixtures:top(),
    {ok, Entries} = file:list_dir(Top),
    [
        filename:join(Folder, File)
     || Folder <- Entries,
        hd(Folder) =/= $_,
        hd(Folder) =/= $.,
        Pattern <- ["**/*.go", "**/page/*"],
        File <- filelib:wildcard(Pattern, filename:join(Top, Folder))
    ].

%% A mirror's archive with the pinned checksum is taken.
downloaded(Config) ->
    Archive = archive(Config, contents(Config)),
    ok = pin(Config, Archive),
    Name = archive_name(Config),
    Mirror = serve(fun("/releases/" ++ Path) when Path =:= Name -> response(Archive) end),
    {0, Said} = place(Config, mirror(Mirror ++ "/releases/")),
    said(["downloaded from " ++ Mirror ++ "/releases/" ++ Name], Said),
    ?assertEqual(contents(Config), there(Config)),
    ?assertEqual({0, ""}, place(Config, [])),
    %% Another checksum wants another file.
    ok = pin(Config, <<"another">>),
    {1, Stale} = place(Config, mirror(Mirror ++ "/releases")),
    said(["was downloaded for other sources", "is pinned"], Stale).

%% What does not have the pinned checksum, or is no archive of ours, is not taken, and nothing of it
%% is left.
refused_downloads(Config) ->
    Archive = archive(Config, contents(Config)),
    Other = archive(Config, <<(contents(Config))/binary, 0>>),
    Half = binary:part(Archive, 0, byte_size(Archive) div 2),
    Foreign = archive(Config, stranger()),
    Size = integer_to_list(byte_size(Archive)),
    Length = ["HTTP/1.1 200 OK\r\ncontent-length: ", Size, "\r\n\r\n"],
    [
        begin
            ok = pin(Config, Pinned),
            {1, Said} = place(Config, mirror(serve(fun(_) -> Response end))),
            said(["download from http://", Word], Said),
            ?assertEqual(none, there(Config)),
            ?assertEqual([], new_files(Config))
        end
     || {Pinned, Response, Word} <- [
            {Archive, response(Other), "is pinned"},
            {Archive, response(Half), "is pinned"},
            {Archive, [Length, Half], "closed"},
            {Archive, ["HTTP/1.1 200 OK\r\n\r\n", Half], "is pinned"},
            {Archive, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404 Not Found"},
            {Archive, "nonsense\r\n\r\n", "download from"},
            {Archive, <<>>, "closed"},
            {<<"no archive">>, response(<<"no archive">>), ""},
            {Foreign, response(Foreign), "a script"}
        ]
    ],
    ok = pin(Config, Archive),
    {1, Nobody} = place(Config, mirror("http://127.0.0.1:1")),
    said(["download from http://127.0.0.1:1/", "econnrefused"], Nobody),
    %% Whether this machine has certificates of authorities or not.
    {1, NoTls} = place(Config, mirror("https://127.0.0.1:1")),
    said(["there is no quicdistd", "download from https://127.0.0.1:1/"], NoTls),
    %% More than any archive has is not waited for.
    Endless = binary:copy(<<0>>, 1024 * 1024),
    {1, TooMuch} = place(Config, mirror(serve(fun(_) -> {endless, Endless} end))),
    said(["more than 67108864 bytes"], TooMuch),
    %% Without a pinned checksum nothing is fetched.
    ok = file:write_file(filename:join(value(root, Config), "checksums.txt"), "# none\n"),
    {1, None} = place(Config, mirror(serve(fun(_) -> exit(fetched) end))),
    said(["checksums.txt pins none for " ++ archive_name(Config)], None).

%% A file that is not the executable of this version does not stay in its place if there is a way
%% to replace it, and is named if there is none.
other_files_in_its_place(Config) ->
    {ok, Version} = file:read_file(other_version()),
    [
        begin
            ok = put_there(Config, Content),
            {1, Said} = place(Config, []),
            said([place_of(Config) ++ ": " ++ Word, "QUIC_DIST_EXECUTABLE", "is not set"], Said),
            ?assertEqual(Content, there(Config))
        end
     || {Content, Word} <- [
            {stranger(), "a script, and "},
            {arm64(), "a 64-bit ELF executable for arm64, and "},
            {<<>>, "not an executable of a known kind"},
            {binary:part(contents(Config), 0, 4096), "does not say its version"},
            {Version, "says quicdistd 9.9.9"}
        ]
    ],
    {0, _} = place(Config, [{"QUIC_DIST_EXECUTABLE", value(executable, Config)}]),
    ?assertEqual(contents(Config), there(Config)).

%% An executable that has lost its run bit gets it back.
run_bit(Config) ->
    ok = put_there(Config, contents(Config)),
    ok = file:change_mode(place_of(Config), 8#644),
    ?assertEqual({0, ""}, place(Config, [])),
    {ok, #file_info{mode = Mode}} = file:read_file_info(place_of(Config)),
    ?assertEqual(8#111, Mode band 8#111).

%% QUIC_DIST_TARGET is the system that the executable is for, and a file for another is refused.
for_another_system(Config) ->
    Other =
        case value(target, Config) of
            "linux-arm64" -> "linux-riscv64";
            _ -> "linux-arm64"
        end,
    Target = {"QUIC_DIST_TARGET", Other},
    File = file(Config, "arm64", arm64()),
    {0, Said} = place(Config, [Target, {"QUIC_DIST_EXECUTABLE", File}]),
    said(["for " ++ Other, "copied"], Said),
    Place = filename:join([value(root, Config), "priv", Other, "quicdistd"]),
    ?assertEqual({ok, arm64()}, file:read_file(Place)),
    ?assertEqual(none, there(Config)),
    ?assertEqual({0, ""}, place(Config, [Target])),
    ok = file:delete(Place),
    {1, Refused} = place(Config, [Target, {"QUIC_DIST_EXECUTABLE", value(executable, Config)}]),
    said([quic_dist_executable:kind_of(Other), "is wanted"], Refused),
    [
        said(["QUIC_DIST_TARGET", Wrong, "OS-ARCH"], element(2, place(Config, [Variable])))
     || Wrong <- ["linux-x86_64", "../..-amd64"],
        Variable <- [{"QUIC_DIST_TARGET", Wrong}]
    ].

%% Where no way leads to it, the error has every way that was tried, in its order, and what to do.
every_way_is_named(Config) ->
    {1, Said} = place(Config, []),
    Order = [
        "there is no quicdistd " ++ binary_to_list(quic_dist_fixtures:vsn()),
        place_of(Config) ++ ": no such file",
        "QUIC_DIST_EXECUTABLE, a path to the file, is not set",
        "build with Go: the Go sources are not here",
        "download: checksums.txt pins none",
        "Name the file with QUIC_DIST_EXECUTABLE"
    ],
    InOrder = lists:join(".*", ["\\Q" ++ Words ++ "\\E" || Words <- Order]),
    ?assertMatch({match, _}, re:run(Said, InOrder, [dotall])),
    copy(["go.mod"], value(root, Config)),
    ok = pin(Config, <<"archive">>),
    {1, More} = place(Config, []),
    said(["build with Go: there is no go in PATH", "download: QUIC_DIST_MIRROR, the URL"], More).

%% Running it

%% The exit status and what was said.
place(Config, Env) ->
    Variables = ["QUIC_DIST_EXECUTABLE", "QUIC_DIST_MIRROR", "QUIC_DIST_TARGET"],
    Unset = [{Name, false} || Name <- Variables],
    {exit_status, Status, Said} = quic_dist_command:run(
        [filename:join([value(root, Config), "scripts", "executable.escript"])],
        #{
            exec => filename:join([code:root_dir(), "bin", "escript"]),
            env => Unset ++ [{"PATH", value(path, Config)}, {"LC_ALL", "C.UTF-8"} | Env],
            timeout => 60000
        }
    ),
    {Status, Said}.

said(Words, Said) ->
    [?assertNotEqual({Word, nomatch}, {Word, string:find(Said, Word)}, Said) || Word <- Words].

mirror(Url) -> [{"QUIC_DIST_MIRROR", Url}].

%% Files

place_of(Config) ->
    filename:join([value(root, Config), "priv", value(target, Config), "quicdistd"]).

contents(Config) ->
    {ok, Bytes} = file:read_file(value(executable, Config)),
    Bytes.

put_there(Config, Bytes) ->
    ok = filelib:ensure_dir(place_of(Config)),
    ok = file:write_file(place_of(Config), Bytes).

there(Config) ->
    case file:read_file(place_of(Config)) of
        {ok, Bytes} -> Bytes;
        {error, enoent} -> none
    end.

new_files(Config) -> filelib:wildcard("priv/*/*", value(root, Config)).

file(Config, Name, Bytes) ->
    File = filename:join(value(root, Config), Name),
    ok = file:write_file(File, Bytes),
    File.

%% The mirror

archive_name(Config) ->
    Vsn = binary_to_list(quic_dist_fixtures:vsn()),
    lists:concat(["quicdistd-", Vsn, "-", value(target, Config), ".tar.gz"]).

archive(Config, Executable) ->
    File = filename:join(value(root, Config), "archive.tar.gz"),
    Member = filename:join(filename:basename(archive_name(Config), ".tar.gz"), "quicdistd"),
    ok = erl_tar:create(File, [{Member, Executable}], [compressed]),
    {ok, Bytes} = file:read_file(File),
    ok = file:delete(File),
    Bytes.

pin(Config, Archive) ->
    Sum = string:lowercase(binary:encode_hex(crypto:hash(sha256, Archive))),
    Text = ["# a comment\n", Sum, "  ", archive_name(Config), "\n"],
    file:write_file(filename:join(value(root, Config), "checksums.txt"), Text).

response(Body) ->
    Length = integer_to_list(byte_size(Body)),
    ["HTTP/1.1 200 OK\r\ncontent-length: ", Length, "\r\nconnection: close\r\n\r\n", Body].

%% A web server that answers each request by what the function makes of its path, and closes. It
%% ends with the case.
serve(Answer) ->
    Caller = self(),
    Server = spawn_link(fun() ->
        {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
        {ok, Port} = inet:port(Listen),
        Caller ! {self(), Port},
        serve(Listen, Answer)
    end),
    receive
        {Server, Port} -> "http://127.0.0.1:" ++ integer_to_list(Port)
    end.

serve(Listen, Answer) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    ok = inet:setopts(Socket, [{packet, http}]),
    {ok, {http_request, 'GET', {abs_path, Path}, _}} = gen_tcp:recv(Socket, 0),
    ok = skip_headers(Socket),
    _ =
        case Answer(Path) of
            {endless, Bytes} ->
                _ = gen_tcp:send(Socket, "HTTP/1.1 200 OK\r\n\r\n"),
                send_until_closed(Socket, Bytes);
            Response ->
                gen_tcp:send(Socket, Response)
        end,
    ok = gen_tcp:close(Socket),
    serve(Listen, Answer).

skip_headers(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, http_eoh} -> inet:setopts(Socket, [{packet, raw}]);
        {ok, _} -> skip_headers(Socket)
    end.

send_until_closed(Socket, Bytes) ->
    case gen_tcp:send(Socket, Bytes) of
        ok -> send_until_closed(Socket, Bytes);
        {error, _} -> ok
    end.
