#!/usr/bin/env escript
%% -*- mode: erlang -*-
%%! -noinput
%% Puts the executable of this version where the library looks for it, priv/OS-ARCH/. rebar3 runs it
%% before it compiles this repository, as a dependency too, and so does mix, by way of rebar3.
%%
%%   escript scripts/executable.escript             by the first way that works
%%   escript scripts/executable.escript build       with Go, whatever is there
%%   escript scripts/executable.escript build FILE  with Go, into FILE
%%
%% The ways, in this order:
%%   1. it is there, of this version and for the target
%%   2. QUIC_DIST_EXECUTABLE, an absolute path to the file
%%   3. a Go toolchain, if the Go sources are here
%%   4. QUIC_DIST_MIRROR, the URL of a folder with the archives that make dist writes. What comes
%%      from there has to have the checksum that checksums.txt, a part of the sources, pins.
%% A path that the user has given and that cannot be used ends the search: silently taking something
%% else would not be what was asked. QUIC_DIST_TARGET, OS-ARCH as Go spells them, is the system that
%% the release is for; this machine's by default.
-mode(compile).

%% Milliseconds: to build, where Go may have to fetch a toolchain and modules first; to download; to
%% say a version.
-define(BUILD, 15 * 60 * 1000).
-define(DOWNLOAD, 5 * 60 * 1000).
-define(SAY, 10000).
%% Bytes: no archive of ours is nearly so large.
-define(ARCHIVE_MAX, 64 * 1024 * 1024).

main(Args) ->
    Root = filename:dirname(filename:dirname(filename:absname(escript:script_name()))),
    try
        Job = job(Root),
        case Args of
            [] -> place(Job);
            ["build"] -> build(Job, executable(Job));
            ["build", File] -> build(Job, filename:absname(File));
            _ -> throw("usage: executable.escript [build [FILE]]")
        end
    catch
        throw:Text ->
            say(standard_error, Text),
            halt(1)
    end.

say(Device, Text) -> io:put_chars(Device, ["quic_dist: ", Text, $\n]).

%% What is wanted. The sources of the library know how systems and files are called.
job(Root) ->
    Source = filename:join(Root, "erlang/src/quic_dist_executable.erl"),
    {ok, Module, Beam} = compile:file(Source, [binary]),
    {module, Module} = code:load_binary(Module, Source, Beam),
    App = filename:join(Root, "erlang/src/quic_dist.app.src"),
    {ok, [{application, quic_dist, Keys}]} = file:consult(App),
    Here = quic_dist_executable:target(),
    Target =
        case {env("QUIC_DIST_TARGET"), Here} of
            {unset, {ok, This}} ->
                This;
            {unset, {error, Architecture}} ->
                throw(["set QUIC_DIST_TARGET, OS-ARCH: this system is not known, ", Architecture]);
            {Given, _} ->
                re:run(Given, "^[a-z0-9]+-[a-z0-9]+$") =/= nomatch orelse
                    throw([
                        "QUIC_DIST_TARGET is ", Given, ", and has to be OS-ARCH as Go has them: ",
                        "linux-amd64, linux-arm64, darwin-arm64, windows-amd64 and others"
                    ]),
                Given
        end,
    #{
        root => Root,
        vsn => proplists:get_value(vsn, Keys),
        target => Target,
        runs_here => {ok, Target} =:= Here
    }.

name(#{target := "windows-" ++ _}) -> "quicdistd.exe";
name(_) -> "quicdistd".

executable(#{root := Root, target := Target} = Job) ->
    filename:join([Root, "priv", Target, name(Job)]).

env(Name) ->
    case os:getenv(Name) of
        false -> unset;
        "" -> unset;
        Value -> Value
    end.

%% The ways

place(Job) ->
    place([fun there/1, fun given/1, fun built/1, fun downloaded/1], Job, []).

place([Way | Rest], Job, Tried) ->
    case Way(Job) of
        there -> ok;
        {ok, How} -> say(standard_io, [title(Job), ": ", How]);
        {no, Why} -> place(Rest, Job, [Why | Tried]);
        {unusable, Why} -> throw([title(Job), ": ", Why])
    end;
place([], Job, Tried) ->
    throw([
        "there is no ", title(Job), ". Tried, in this order:",
        [["\n  ", Why] || Why <- lists:reverse(Tried)],
        "\nName the file with QUIC_DIST_EXECUTABLE, or a mirror with QUIC_DIST_MIRROR, or have Go ",
        "in PATH, or put the file there."
    ]).

title(#{vsn := Vsn, target := Target}) -> ["quicdistd ", Vsn, " for ", Target].

%% 1. It is there. What this program has put there is known by its note: a Go source that has since
%% changed, or a checksum, wants another executable though the version is the same. Anything else is
%% asked for its version.
there(Job) ->
    File = executable(Job),
    case fits(File, Job) of
        ok ->
            case {noted(File, Job), env("QUIC_DIST_EXECUTABLE")} of
                {{stale, Why}, _} ->
                    {no, [File, ": ", Why]};
                {ok, unset} ->
                    there;
                {ok, Given} ->
                    file:read_file(Given) =:= file:read_file(File) orelse
                        say(standard_io, [File, " is taken; remove it to have ", Given]),
                    there
            end;
        {error, Why} ->
            {no, [File, ": ", Why]}
    end.

noted(File, Job) ->
    case file:consult(note(Job)) of
        {ok, [{How, Key, Sum}]} ->
            case {sum(File) =:= Sum, key(How, Job)} of
                {true, Other} when Other =/= Key ->
                    {stale, "was " ++ atom_to_list(How) ++ " for other sources"};
                _ ->
                    ok
            end;
        _ ->
            ok
    end.

%% 2. A file that the user has.
given(Job) ->
    case env("QUIC_DIST_EXECUTABLE") of
        unset ->
            {no, "QUIC_DIST_EXECUTABLE, a path to the file, is not set"};
        Given ->
            Said = ["QUIC_DIST_EXECUTABLE, ", Given, ": "],
            case {filename:pathtype(Given), file:read_file(Given)} of
                {absolute, {ok, Bytes}} ->
                    case put_there(Bytes, copied, Job) of
                        ok -> {ok, ["copied from ", Given]};
                        {error, Why} -> {unusable, [Said, Why]}
                    end;
                {absolute, {error, eisdir}} ->
                    {unusable, [Said, "is a folder, and has to be the file itself"]};
                {absolute, {error, Reason}} ->
                    {unusable, [Said, file:format_error(Reason)]};
                _ ->
                    {unusable, [Said, "has to be an absolute path: this runs in another folder"]}
            end
    end.

%% 3. Go.
built(#{root := Root} = Job) ->
    case {filelib:is_regular(filename:join(Root, "go.mod")), os:find_executable("go")} of
        {false, _} ->
            {no, "build with Go: the Go sources are not here"};
        {true, false} ->
            {no, "build with Go: there is no go in PATH"};
        {true, Go} ->
            New = beside(executable(Job)),
            case go_build(Go, New, Job) of
                {0, _} ->
                    {ok, Bytes} = file:read_file(New),
                    ok = file:delete(New),
                    case put_there(Bytes, built, Job) of
                        ok -> {ok, ["built with ", Go]};
                        {error, Why} -> {no, ["build with ", Go, ": ", Why]}
                    end;
                {Status, Output} ->
                    _ = file:delete(New),
                    Said = io_lib:format(": status ~p: ", [Status]),
                    {no, ["build with ", Go, Said, last_lines(Output)]}
            end
    end.

build(Job, File) ->
    Go = os:find_executable("go"),
    Go =/= false orelse throw("there is no go in PATH"),
    ensure_folder(File),
    case go_build(Go, File, Job) of
        {0, _} -> ok;
        {Status, Output} -> throw([Output, io_lib:format("go build: status ~p", [Status])])
    end,
    case File =:= executable(Job) of
        true -> note(built, File, Job);
        false -> ok
    end.

%% The same sources give the same bytes: no path, no version control, no build id, no symbols.
go_build(Go, File, #{root := Root, vsn := Vsn, target := Target}) ->
    [Os, Arch] = string:split(Target, "-"),
    Linker = "-s -w -buildid= -X main.build=" ++ Vsn,
    Args = [
        "build", "-trimpath", "-buildvcs=false", "-ldflags", Linker, "-o", File, "./cmd/quicdistd"
    ],
    Env = [{"CGO_ENABLED", "0"}, {"GOOS", Os}, {"GOARCH", Arch}],
    ensure_folder(File),
    run(Go, Args, [{cd, Root}, {env, Env}], ?BUILD).

%% 4. A mirror.
downloaded(Job) ->
    case {pinned(Job), env("QUIC_DIST_MIRROR")} of
        {unknown, _} ->
            {no, [
                "download: checksums.txt pins none for ", archive(Job),
                ": not a released version, or not for this system"
            ]};
        {_, unset} ->
            {no, "download: QUIC_DIST_MIRROR, the URL of a folder with the archives, is not set"};
        {Sum, Mirror} ->
            Url = string:trim(Mirror, trailing, "/") ++ "/" ++ archive(Job),
            case verified(download(Url), Sum, Job) of
                ok -> {ok, ["downloaded from ", Url]};
                {error, Why} -> {no, ["download from ", Url, ": ", Why]}
            end
    end.

archive(#{vsn := Vsn, target := Target}) -> "quicdistd-" ++ Vsn ++ "-" ++ Target ++ ".tar.gz".

%% The checksum of the archive, as sha256sum prints it.
pinned(#{root := Root} = Job) ->
    case file:read_file(filename:join(Root, "checksums.txt")) of
        {ok, Text} ->
            Line = "^([0-9a-f]{64})  \\Q" ++ archive(Job) ++ "\\E$",
            case re:run(Text, Line, [multiline, {capture, [1], list}]) of
                {match, [Sum]} -> Sum;
                nomatch -> unknown
            end;
        {error, _} ->
            unknown
    end.

%% Nothing of the archive is looked at before all of it is known to be the one.
verified({ok, Bytes}, Sum, Job) ->
    case hex(crypto:hash(sha256, Bytes)) of
        Sum ->
            Member = filename:basename(archive(Job), ".tar.gz") ++ "/" ++ name(Job),
            case erl_tar:extract({binary, Bytes}, [compressed, memory, {files, [Member]}]) of
                {ok, [{_, Executable}]} -> put_there(Executable, downloaded, Job);
                {ok, []} -> {error, ["has no ", Member]};
                {error, Reason} -> {error, io_lib:format("~0tp", [Reason])}
            end;
        Other ->
            {error, [
                io_lib:format("~w bytes with the checksum ", [byte_size(Bytes)]), Other,
                ", and ", Sum, " is pinned: it is not the release's file, or not all of it"
            ]}
    end;
verified({error, _} = Error, _, _) ->
    Error.

download(Url) ->
    Started = [application:ensure_all_started(App) || App <- applications(Url)],
    case [Lacks || {error, {Lacks, _}} <- Started] of
        [] -> request(Url);
        [Lacks | _] -> {error, ["this Erlang has no application ", atom_to_list(Lacks)]}
    end.

applications("https://" ++ _) -> [inets, ssl];
applications(_) -> [inets].

request(Url) ->
    Proxies = [
        {Option, {{Host, Port}, no_proxy()}}
     || {Option, Names} <- [{proxy, ["http_proxy"]}, {https_proxy, ["https_proxy", "HTTPS_PROXY"]}],
        Value <- lists:sublist([V || N <- Names, V <- [env(N)], V =/= unset], 1),
        #{host := Host} = Uri <- [uri_string:parse(Value)],
        Port <- [maps:get(port, Uri, 80)]
    ],
    ok = httpc:set_options(Proxies),
    case tls(Url, authorities()) of
        {ok, Tls} ->
            Http = [{timeout, ?DOWNLOAD}, {connect_timeout, 30000}, {ssl, Tls}],
            request(Url, Http);
        {error, _} = Error ->
            Error
    end.

request(Url, Http) ->
    case httpc:request(get, {Url, []}, Http, [{sync, false}, {stream, self}]) of
        {ok, Request} ->
            Timer = erlang:send_after(?DOWNLOAD, self(), {http, {Request, {error, timeout}}}),
            Result = receive_body(Request, [], 0),
            _ = erlang:cancel_timer(Timer),
            Result;
        {error, Reason} ->
            {error, io_lib:format("~0tp", [Reason])}
    end.

no_proxy() ->
    [Host || V <- [env("no_proxy")], V =/= unset, Host <- string:lexemes(V, ", ")].

authorities() ->
    try
        public_key:cacerts_get()
    catch
        _:_ -> []
    end.

%% Given for http too: what httpc does by default needs certificates of authorities, and crashes
%% where a machine has none (OTP 27). Without any, no server is trusted.
tls("https://" ++ _, []) ->
    {error, "https needs certificates of authorities (ca-certificates), and there are none"};
tls(_, []) ->
    {ok, [{verify, verify_peer}, {cacerts, []}]};
tls(_, Cacerts) ->
    Match = public_key:pkix_verify_hostname_match_fun(https),
    {ok, [
        {verify, verify_peer},
        {cacerts, Cacerts},
        {depth, 10},
        {customize_hostname_check, [{match_fun, Match}]}
    ]}.

receive_body(Request, Parts, Size) ->
    receive
        {http, {Request, stream_start, _}} ->
            receive_body(Request, Parts, Size);
        {http, {Request, stream, Part}} when Size + byte_size(Part) =< ?ARCHIVE_MAX ->
            receive_body(Request, [Part | Parts], Size + byte_size(Part));
        {http, {Request, stream, _}} ->
            ok = httpc:cancel_request(Request),
            {error, io_lib:format("more than ~w bytes", [?ARCHIVE_MAX])};
        {http, {Request, stream_end, _}} ->
            {ok, iolist_to_binary(lists:reverse(Parts))};
        {http, {Request, {error, Reason}}} ->
            {error, io_lib:format("~0tp", [Reason])};
        {http, {Request, {{_, Status, Phrase}, _, _}}} ->
            {error, io_lib:format("~w ~ts", [Status, Phrase])}
    end.

%% Files

%% Takes the bytes if they are what is wanted. The file has its name when it is whole: nobody who
%% compiles at the same time sees half of it.
put_there(Bytes, How, Job) ->
    File = executable(Job),
    New = beside(File),
    ensure_folder(File),
    case file:write_file(New, Bytes) of
        ok ->
            case fits(New, Job) of
                ok ->
                    case file:rename(New, File) of
                        ok ->
                            note(How, File, Job);
                        {error, Reason} ->
                            _ = file:delete(New),
                            {error, [File, ": ", file:format_error(Reason)]}
                    end;
                Error ->
                    _ = file:delete(New),
                    Error
            end;
        {error, Reason} ->
            {error, [New, ": ", file:format_error(Reason)]}
    end.

%% The suffix stays: Windows runs no file without it.
beside(File) ->
    filename:join(filename:dirname(File), "new." ++ os:getpid() ++ "." ++ filename:basename(File)).

ensure_folder(File) ->
    case filelib:ensure_dir(File) of
        ok -> ok;
        {error, Reason} -> throw([filename:dirname(File), ": ", file:format_error(Reason)])
    end.

%% Is it an executable for the target, and if that can be asked, of this version? A run bit that got
%% lost on the way, as in archives of CI systems, is given back.
fits(File, #{target := Target, runs_here := RunsHere} = Job) ->
    case filelib:is_regular(File) andalso quic_dist_executable:kind_of(Target) of
        false ->
            {error, "no such file"};
        Kind ->
            case quic_dist_executable:describe(File) of
                Kind when RunsHere ->
                    _ = file:change_mode(File, 8#755),
                    version(File, Job);
                Kind ->
                    _ = file:change_mode(File, 8#755),
                    ok;
                Other ->
                    {error, [Other, ", and ", Kind, " is wanted"]}
            end
    end.

version(File, #{vsn := Vsn}) ->
    Wanted = "quicdistd " ++ Vsn ++ ", protocol ",
    case run(File, ["version"], [], ?SAY) of
        {0, Output} ->
            case string:prefix(Output, Wanted) of
                nomatch -> {error, ["says ", first_line(Output), ", and ", Vsn, " is wanted"]};
                _ -> ok
            end;
        {Status, Output} ->
            {error, io_lib:format("does not say its version: ~p ~ts", [Status, first_line(Output)])}
    end.

%% A note of what was put there, and from what. Not beside the file, to be no part of releases.
note(#{root := Root, target := Target}) -> filename:join([Root, "_build", "executable", Target]).

note(How, File, Job) ->
    Note = note(Job),
    ensure_folder(Note),
    ok = file:write_file(Note, io_lib:format("~p.~n", [{How, key(How, Job), sum(File)}])).

%% What the executable depends on.
key(copied, _) -> "";
key(downloaded, Job) -> pinned(Job);
key(built, #{root := Root, vsn := Vsn}) -> hex(crypto:hash(sha256, [Vsn | sources(Root)])).

%% The Go sources and what is compiled into them, with their names; the folders that have none are
%% not entered.
sources(Root) ->
    {ok, Entries} = file:list_dir(Root),
    Others = ["erlang", "test", "docs", "priv", "scripts"],
    Folders = [E || E <- Entries, hd(E) =/= $., hd(E) =/= $_, not lists:member(E, Others)],
    Files = [
        filename:join(Folder, File)
     || Folder <- Folders,
        Pattern <- ["**/*.go", "**/page/*"],
        File <- filelib:wildcard(Pattern, filename:join(Root, Folder))
    ],
    [
        [File, 0, Bytes, 0]
     || File <- ["go.mod", "go.sum" | lists:sort(Files)],
        {ok, Bytes} <- [file:read_file(filename:join(Root, File))]
    ].

sum(File) ->
    {ok, Bytes} = file:read_file(File),
    hex(crypto:hash(sha256, Bytes)).

hex(Bytes) -> string:lowercase(binary_to_list(binary:encode_hex(Bytes))).

%% Other programs

%% Their exit status, or why there is none, and what they said.
run(Program, Args, Options, Timeout) ->
    Port = [{args, Args}, exit_status, stderr_to_stdout, binary, hide | Options],
    try open_port({spawn_executable, Program}, Port) of
        Running ->
            Timer = erlang:send_after(Timeout, self(), {Running, timeout}),
            Result = collect(Running, []),
            _ = erlang:cancel_timer(Timer),
            Result
    catch
        error:Reason -> {file:format_error(Reason), ""}
    end.

collect(Port, Output) ->
    receive
        {Port, {data, Bytes}} -> collect(Port, [Output, Bytes]);
        {Port, {exit_status, Status}} ->
            {Status, text(Output)};
        {Port, timeout} ->
            true = port_close(Port),
            {timeout, text(Output)}
    end.

%% What a program says need not be text.
text(Output) ->
    Bytes = iolist_to_binary(Output),
    case unicode:characters_to_list(Bytes) of
        Text when is_list(Text) -> Text;
        _ -> binary_to_list(Bytes)
    end.

first_line(Text) -> hd(string:split(string:trim(Text), "\n")).

last_lines(Text) ->
    Lines = string:lexemes(Text, "\n"),
    lists:join("; ", lists:nthtail(max(0, length(Lines) - 3), Lines)).
