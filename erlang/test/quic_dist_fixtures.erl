%% @doc What tests use beside the application: programs that are built for them, and the folder for
%% these and for what else takes long to make.
%%
%% The environment variable QUIC_DIST_TEST_FIXTURES names the folder, default _build/test-fixtures.
%% Where there is no go, what an earlier run has left there is used.
-module(quic_dist_fixtures).

-export([dir/0, top/0, quicdistd/2, build/2, cert/1, cert/2, shell/2, vsn/0]).

%% @doc The folder, which exists.
-spec dir() -> file:filename().
dir() ->
    Dir =
        case os:getenv("QUIC_DIST_TEST_FIXTURES") of
            false -> filename:join([top(), "_build", "test-fixtures"]);
            Given -> Given
        end,
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Dir.

%% @doc Builds a quicdistd, with the library's version unless `vsn' says otherwise and with the
%% build tags of `tags'. Returns the file, which is `Name' in the folder, or in one below.
-spec quicdistd(Name :: string(), #{vsn => iodata(), tags => string()}) -> file:filename().
quicdistd(Name, Options) ->
    File = filename:join(dir(), Name),
    ok = filelib:ensure_dir(File),
    Flags = [
        "-tags '", maps:get(tags, Options, ""), "' -ldflags '-X main.build=",
        maps:get(vsn, Options, vsn()), "' -o ", File
    ],
    build(Flags, "./cmd/quicdistd"),
    File.

%% @doc Has go build packages of this repository, if there is a go.
-spec build(Flags :: iodata(), Packages :: string()) -> ok.
build(Flags, Packages) ->
    case os:find_executable("go") of
        false ->
            ct:pal("no go here: using what is in ~ts", [dir()]);
        _ ->
            Go = "CGO_ENABLED=0 go build -trimpath -buildvcs=false ",
            shell(top(), [Go, Flags, " ", Packages])
    end.

%% @doc Runs `quicdistd cert' as a user does; fails if it does. A file gets its standard output.
-spec cert([string()]) -> ok.
cert(Words) -> cert(Words, "/dev/null").

-spec cert([string()], Output :: file:filename()) -> ok.
cert(Words, Output) ->
    Quoted = [[$\s, $', Word, $'] || Word <- ["cert" | Words]],
    shell(quic_dist_node:dir(), [quic_dist_node:executable(), Quoted, " >", Output]).

%% @doc Runs a command of the shell in a folder; fails if it does.
-spec shell(file:filename(), iodata()) -> ok.
shell(Dir, Command) ->
    Checked = ["cd '", Dir, "' && { ", Command, "; } 2>&1; echo status=$?"],
    Line = unicode:characters_to_list(Checked),
    Output = os:cmd(Line),
    case string:find(Output, "status=0\n", trailing) of
        nomatch -> error({Line, Output});
        _ -> ok
    end.

%% @doc The library's version.
-spec vsn() -> binary().
vsn() ->
    File = filename:join(quic_dist_node:ebin(), "quic_dist.app"),
    {ok, [{application, quic_dist, Keys}]} = file:consult(File),
    list_to_binary(proplists:get_value(vsn, Keys)).

%% @doc The top of the repository: where _build/default/lib/quic_dist/ebin is.
-spec top() -> file:filename().
top() ->
    lists:foldl(fun(_, Dir) -> filename:dirname(Dir) end, quic_dist_node:ebin(), lists:seq(1, 5)).
