%% @doc Programs and files that tests use beside the application, and the folder for all that takes
%% long to make.
%%
%% The environment variable QUIC_DIST_TEST_FIXTURES names the folder, default _build/test-fixtures.
%% Where there is no go, what an earlier run has left there is used.
-module(quic_dist_fixtures).

-export([dir/0, top/0, fixture/1, quicdistd/2, fakes/0, fake_env/1, build/2, shell/2, vsn/0]).
-export([cert/1, cert/2, certificates/1, pem/1, make_pems/0]).

-define(CURVE, {namedCurve, secp256r1}).

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

%% @doc A file in the folder.
-spec fixture(Name :: string()) -> file:filename().
fixture(Name) -> filename:join(dir(), Name).

%% @doc Builds the programs of test/fakes into the folder.
-spec fakes() -> ok.
fakes() -> build([" -o ", dir(), "/"], "./test/fakes/...").

%% @doc The environment in which test/fakes/fakesidecar behaves in this way.
-spec fake_env(Mode :: string()) -> [{string(), string()}].
fake_env(Mode) ->
    [{"QUIC_DIST_FAKE", Mode}, {"QUIC_DIST_FAKE_BUILD", binary_to_list(vsn())}].

%% @doc Builds a quicdistd, with the library's version unless `vsn' says otherwise and with the
%% build tags of `tags'. Returns the file, which is `Name' in the folder, or in one below.
-spec quicdistd(Name :: string(), #{vsn => iodata(), tags => string()}) -> file:filename().
quicdistd(Name, Options) ->
    File = fixture(Name),
    ok = filelib:ensure_dir(File),
    Flags = [
        "-tags '", maps:get(tags, Options, ""), "' -ldflags '-X main.build=",
        maps:get(vsn, Options, vsn()), "' -o ", File
    ],
    build(Flags, "./cmd/quicdistd"),
    File.

%% @doc Builds packages of this repository with go, if there is a go. Suites that run at the same
%% time build one after the other, because they build the same files.
-spec build(Flags :: iodata(), Packages :: string()) -> ok.
build(Flags, Packages) ->
    case os:find_executable("go") of
        false ->
            ct:pal("no go here: using what is in ~ts", [dir()]);
        _ ->
            Go = ["CGO_ENABLED=0 flock ", fixture("lock"), " go build -trimpath -buildvcs=false "],
            shell(top(), [Go, Flags, " ", Packages])
    end.

%% @doc Runs `quicdistd cert' as a user does; fails if it does. A file gets its standard output.
-spec cert([string()]) -> ok.
cert(Words) -> cert(Words, "/dev/null").

-spec cert([string()], Output :: file:filename()) -> ok.
cert(Words, Output) ->
    Quoted = [[$\s, $', Word, $'] || Word <- ["cert" | Words]],
    shell(quic_dist_run:dir(), [quic_dist_run:executable(), Quoted, " >", Output]).

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
    File = filename:join(quic_dist_run:ebin(), "quic_dist.app"),
    {ok, [{application, quic_dist, Keys}]} = file:consult(File),
    list_to_binary(proplists:get_value(vsn, Keys)).

%% @doc The top of the repository: where _build/default/lib/quic_dist/ebin is.
-spec top() -> file:filename().
top() ->
    lists:foldl(fun(_, Dir) -> filename:dirname(Dir) end, quic_dist_run:ebin(), lists:seq(1, 5)).

%% @doc A certificate authority, and for each name a certificate that it has signed, as PEM files in
%% a new folder. A name is a DNS name or an IP address.
-spec certificates([inet:ip_address() | string()]) ->
    #{
        cacertfile := file:filename(),
        certs := [#{certfile := file:filename(), keyfile := file:filename()}]
    }.
certificates(Names) ->
    Dir = filename:join(quic_dist_run:dir(), quic_dist_run:unique("certs")),
    ok = file:make_dir(Dir),
    %% Others than Erlang take no SHA-1, which is what it would be.
    Strong = [{key, ?CURVE}, {digest, sha256}],
    Root = #{cert := Authority} = public_key:pkix_test_root_cert("quic dist test", Strong),
    #{
        cacertfile => write_pem(Dir, "ca.pem", {'Certificate', Authority, not_encrypted}),
        certs => [certificate(Dir, Root, N, Name) || {N, Name} <- lists:enumerate(Names)]
    }.

certificate(Dir, Root, N, Whose) ->
    San =
        case Whose of
            Ip when is_tuple(Ip) -> {iPAddress, ip_bytes(Ip)};
            Dns -> {dNSName, Dns}
        end,
    %% The record 'Extension' of public_key.hrl, and its 'id-ce-subjectAltName'.
    Name = {extensions, [{'Extension', {2, 5, 29, 17}, false, [San]}]},
    Peer = [{key, ?CURVE}, {digest, sha256}, Name],
    Chain = #{root => Root, intermediates => [], peer => Peer},
    #{server_config := Config} =
        public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    {KeyType, Key} = proplists:get_value(key, Config),
    Cert = proplists:get_value(cert, Config),
    Id = integer_to_list(N),
    #{
        certfile => write_pem(Dir, "cert" ++ Id ++ ".pem", {'Certificate', Cert, not_encrypted}),
        keyfile => write_pem(Dir, "key" ++ Id ++ ".pem", {KeyType, Key, not_encrypted})
    }.

ip_bytes({A, B, C, D}) -> <<A, B, C, D>>;
ip_bytes(Ip) -> << <<Word:16>> || Word <- tuple_to_list(Ip) >>.

write_pem(Dir, Name, Entry) ->
    File = filename:join(Dir, Name),
    ok = file:write_file(File, public_key:pem_encode([Entry])),
    File.

%% @doc A file of make_pems/0.
-spec pem(Name :: string()) -> file:filename().
pem(Name) -> fixture(filename:join("pem", Name)).

%% @doc Makes certificates and keys of every kind, good ones and bad ones, with openssl. It makes
%% them once: they stay until somebody removes the folder `pem'.
-spec make_pems() -> ok.
make_pems() ->
    case {filelib:is_dir(fixture("pem")), os:find_executable("openssl")} of
        {true, _} ->
            ok;
        {false, false} ->
            error("no openssl here");
        {false, _} ->
            %% Another suite may do the same now: the first that is ready wins.
            New = fixture("pem." ++ os:getpid()),
            ok = file:make_dir(New),
            make_pems(New),
            _ = file:rename(New, fixture("pem")),
            _ = file:del_dir_r(New),
            ok
    end.

make_pems(Dir) ->
    Write = fun(Name, Text) -> ok = file:write_file(filename:join(Dir, Name), Text) end,
    Write(
        "leaf.ext",
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    ),
    Write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"),
    Ec = "ec -pkeyopt ec_paramgen_curve:P-256",
    Valid = "-days 36500",
    %% A certificate of the kind that `Extensions' names for a new key, signed by `By'.
    Certificate = fun(Name, Key, By, Extensions, Days) ->
        shell(Dir, [
            ["openssl req -nodes -newkey ", Key, " -subj /CN=", Name],
            [" -keyout ", Name, ".key -out ", Name, ".csr"]
        ]),
        Signer =
            case By of
                itself -> [" -signkey ", Name, ".key"];
                _ -> [" -CA ", By, ".pem -CAkey ", By, ".key -CAcreateserial"]
            end,
        shell(Dir, [
            ["openssl x509 -req -in ", Name, ".csr -out ", Name, ".pem", Signer],
            [" -extfile ", Extensions, ".ext ", Days]
        ])
    end,
    Certificate("ca", Ec, itself, "ca", Valid),
    Certificate("stranger-ca", Ec, itself, "ca", Valid),
    Certificate("intermediate", Ec, "ca", "ca", Valid),
    Certificate("ec", Ec, "intermediate", "leaf", Valid),
    shell(Dir, "cat ec.pem intermediate.pem >ec-chain.pem"),
    Certificate("rsa", "rsa:2048", "ca", "leaf", Valid),
    shell(Dir, "cat rsa.pem rsa.key >rsa-both.pem"),
    Certificate("ed25519", "ed25519", "ca", "leaf", Valid),
    Certificate("encrypted", Ec, "ca", "leaf", Valid),
    shell(Dir, [
        "mv encrypted.key plain.key && openssl pkcs8 -topk8 -v2 aes-256-cbc",
        " -passout pass:secret -in plain.key -out encrypted.key"
    ]),
    Certificate("stranger", Ec, "stranger-ca", "leaf", Valid),
    %% Versions of openssl x509 differ in how they take a date in the past. This certificate is
    %% valid for the second in which it is made.
    Certificate("expired", Ec, "ca", "leaf", "-days 0"),
    shell(Dir, "chmod 600 *.key rsa-both.pem").
