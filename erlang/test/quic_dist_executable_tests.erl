-module(quic_dist_executable_tests).

-include_lib("eunit/include/eunit.hrl").

%% Each architecture, as OTP spells it, has the folder of Go's name for it.
target_test_() ->
    [
        {Architecture, ?_assertEqual({ok, Target}, quic_dist_executable:target(Architecture))}
     || {Architecture, Target} <- [
            {"x86_64-pc-linux-gnu", "linux-amd64"},
            {"x86_64-unknown-linux-musl", "linux-amd64"},
            {"x86_64-alpine-linux-musl", "linux-amd64"},
            {"amd64-pc-linux-gnu", "linux-amd64"},
            {"i386-pc-linux-gnu", "linux-386"},
            {"i686-pc-linux-gnu", "linux-386"},
            {"aarch64-unknown-linux-gnu", "linux-arm64"},
            {"aarch64-poky-linux", "linux-arm64"},
            {"arm-unknown-linux-gnueabihf", "linux-arm"},
            {"armv7l-unknown-linux-gnueabihf", "linux-arm"},
            {"armv6l-unknown-linux-gnueabi", "linux-arm"},
            {"riscv64-unknown-linux-gnu", "linux-riscv64"},
            {"powerpc64le-unknown-linux-gnu", "linux-ppc64le"},
            {"s390x-ibm-linux-gnu", "linux-s390x"},
            {"aarch64-apple-darwin23.1.0", "darwin-arm64"},
            {"x86_64-apple-darwin20.6.0", "darwin-amd64"},
            {"x86_64-portbld-freebsd13.2", "freebsd-amd64"},
            {"amd64-portbld-freebsd14.0", "freebsd-amd64"},
            {"x86_64-unknown-openbsd7.3", "openbsd-amd64"},
            {"x86_64--netbsd", "netbsd-amd64"},
            {"win32", "windows-amd64"}
        ]
    ].

%% The answer names an architecture for which there is no executable.
unknown_target_test_() ->
    [
        {Architecture,
            ?_assertEqual({error, Architecture}, quic_dist_executable:target(Architecture))}
     || Architecture <- [
            "sparc-sun-solaris2.10",
            "x86_64-pc-solaris2.11",
            "mips64-unknown-linux-gnu",
            "linux",
            ""
        ]
    ].

%% This machine has a target.
this_target_test() ->
    ?assertMatch({ok, _}, quic_dist_executable:target()).

%% The first bytes of a file tell its kind.
describe_test_() ->
    {setup, fun folder/0, fun remove/1, fun(Dir) ->
        [
            {Expected, fun() ->
                File = filename:join(Dir, "file"),
                ok = file:write_file(File, Head),
                ?assertEqual(Expected, quic_dist_executable:describe(File))
            end}
         || {Head, Expected} <- heads()
        ]
    end}.

heads() ->
    [
        {elf(2, little, 62), "a 64-bit ELF executable for amd64"},
        {<<(elf(2, little, 183))/binary, 0:800>>, "a 64-bit ELF executable for arm64"},
        {elf(1, little, 3), "a 32-bit ELF executable for 386"},
        {elf(1, little, 40), "a 32-bit ELF executable for arm"},
        {elf(2, little, 243), "a 64-bit ELF executable for riscv64"},
        {elf(2, big, 22), "a 64-bit ELF executable for s390x"},
        {elf(2, little, 258), "a 64-bit ELF executable for machine 258"},
        {elf(2, little, 9, 62), "a 64-bit ELF executable for amd64 (FreeBSD)"},
        {<<16#CF, 16#FA, 16#ED, 16#FE, 7, 0, 0, 1, 0:800>>, "a macOS executable for amd64"},
        {<<16#CF, 16#FA, 16#ED, 16#FE, 12, 0, 0, 1, 0:800>>, "a macOS executable for arm64"},
        {<<16#CF, 16#FA, 16#ED, 16#FE, 0:800>>, "a macOS executable"},
        {<<"MZ", 0:800>>, "a Windows executable"},
        {<<"#!/bin/sh\nexit 1\n">>, "a script"},
        {<<>>, "not an executable of a known kind"},
        {<<16#7F, "ELF">>, "not an executable of a known kind"},
        {<<"plain text">>, "not an executable of a known kind"}
    ].

elf(Class, Order, Machine) -> elf(Class, Order, 0, Machine).

%% elf(5): class, byte order, version, ABI, then, from byte 18, the machine.
elf(Class, little, Abi, Machine) -> <<16#7F, "ELF", Class, 1, 0, Abi, 0:80, Machine:16/little>>;
elf(Class, big, Abi, Machine) -> <<16#7F, "ELF", Class, 2, 0, Abi, 0:80, Machine:16/big>>.

%% Each target has the kind that its executables are described as.
kind_of_test_() ->
    [
        ?_assertEqual(quic_dist_executable:kind_of(Target), Described)
     || {Target, Described} <- [
            {"linux-amd64", "a 64-bit ELF executable for amd64"},
            {"linux-386", "a 32-bit ELF executable for 386"},
            {"linux-arm", "a 32-bit ELF executable for arm"},
            {"linux-ppc64le", "a 64-bit ELF executable for ppc64"},
            {"freebsd-amd64", "a 64-bit ELF executable for amd64 (FreeBSD)"},
            {"darwin-arm64", "a macOS executable for arm64"},
            {"windows-amd64", "a Windows executable"}
        ]
    ].

%% The description of an unreadable file is the reason.
describe_unreadable_test() ->
    ?assertEqual("no such file or directory", quic_dist_executable:describe("/no/such/file")).

%% The option `executable' is the only place searched if it is set.
find_given_test_() ->
    {setup, fun folder/0, fun remove/1, fun(Dir) ->
        File = filename:join(Dir, "quicdistd ü"),
        Find = fun(Path) ->
            quic_dist_executable:find(#{executable => unicode:characters_to_binary(Path)})
        end,
        [
            fun() ->
                ok = file:write_file(File, <<"#!/bin/sh\n">>),
                ok = file:change_mode(File, 8#755),
                ?assertEqual({ok, File}, Find(File))
            end,
            fun() ->
                ok = file:change_mode(File, 8#644),
                refused([File ++ ": not executable (chmod +x it)"], Find(File))
            end,
            fun() -> refused([Dir ++ ": is a directory"], Find(Dir)) end,
            fun() -> refused([Dir ++ "/none: no such file"], Find(Dir ++ "/none")) end,
            fun() -> refused(["file/below: not a directory"], below(Dir, Find)) end
        ]
    end}.

below(Dir, Find) ->
    File = filename:join(Dir, "file"),
    ok = file:write_file(File, <<>>),
    Find(filename:join(File, "below")).

%% The error is one line and says what was found where, and what to do.
refused(Parts, Result) ->
    {error, Text} = Result,
    ?assertEqual(nomatch, string:find(Text, "\n")),
    [
        ?assertNotEqual({Part, nomatch, Text}, {Part, string:find(Text, Part), Text})
     || Part <- ["no usable quicdistd", "make build", "executable" | Parts]
    ].

%% Without the option the executable is in the priv folder beside our own modules, for this system.
find_beside_test() ->
    {ok, Target} = quic_dist_executable:target(),
    Lib = filename:dirname(filename:dirname(code:which(quic_dist_executable))),
    case filelib:is_regular(filename:join([Lib, "priv", Target, "quicdistd"])) of
        true -> ?assertMatch({ok, _}, quic_dist_executable:find(#{}));
        false ->
            Tried = "priv/" ++ Target ++ "/quicdistd: no such file",
            refused([Tried], quic_dist_executable:find(#{}))
    end.

%% The error of a library without its executable, in a folder of any name, lists the place.
find_nowhere_test_() ->
    {setup, fun folder/0, fun remove/1, fun(Dir) ->
        {timeout, 30, fun() ->
            Ebin = filename:join([Dir, "renamed", "ebin"]),
            ok = filelib:ensure_dir(filename:join(Ebin, "x")),
            {module, Module} = code:ensure_loaded(quic_dist_executable),
            {Module, Beam, _} = code:get_object_code(Module),
            ok = file:write_file(filename:join(Ebin, "quic_dist_executable.beam"), Beam),
            {ok, Target} = quic_dist_executable:target(),
            Expression = "io:put_chars(element(2, quic_dist_executable:find(#{}))), halt().",
            {exit_status, 0, Output} =
                quic_dist_command:run(["-noinput", "-pa", Ebin, "-eval", Expression], #{}),
            quic_dist_hooks:end_run(),
            Place = filename:join([Dir, "renamed", "priv", Target, "quicdistd"]),
            refused([Place ++ ": no such file"], {error, Output})
        end}
    end}.

folder() ->
    Dir = filename:join(
        os:getenv("TMPDIR", "/tmp"), "quic_dist_executable_tests." ++ os:getpid()
    ),
    ok = file:make_dir(Dir),
    Dir.

remove(Dir) -> file:del_dir_r(Dir).
