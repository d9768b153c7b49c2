%% @doc Where the sidecar's executable is, for this operating system and processor.
%%
%% It is only looked up, never searched on `$PATH' and never fetched: the option `executable', or
%% `priv/OS-ARCH/quicdistd' of this library. Files are read raw, since at boot there is no file
%% server.
-module(quic_dist_executable).

-export([find/1, build/0, system/0, target/0, target/1, describe/1, kind_of/1]).

-include_lib("kernel/include/file.hrl").

%% @doc The executable's absolute path, or one line that lists each place tried and what was found
%% there.
-spec find(quic_dist_config:options()) -> {ok, file:filename_all()} | {error, string()}.
find(#{executable := File}) ->
    first([unicode:characters_to_list(File)], []);
find(#{}) ->
    case target() of
        {ok, Target} ->
            first([filename:join([Priv, Target, name()]) || Priv <- priv_dirs()], []);
        {error, Architecture} ->
            {error,
                "no executable is known for this system (" ++ Architecture ++
                    "); name one with the option executable"}
    end.

first([File | Rest], Tried) ->
    case usable(File) of
        ok -> {ok, absolute(File)};
        {error, Found} -> first(Rest, [[File, ": ", Found] | Tried])
    end;
first([], Tried) ->
    {error,
        lists:flatten([
            "no usable quicdistd: ",
            lists:join("; ", lists:reverse(Tried)),
            ". Build it with make build, or name one with the option executable"
        ])}.

%% The node may change its working directory, and the sidecar may have to be started again.
absolute(File) ->
    {ok, Cwd} = prim_file:get_cwd(),
    filename:absname(File, Cwd).

usable(File) ->
    case file:read_file_info(File, [raw]) of
        {ok, #file_info{type = regular, mode = Mode}} ->
            case {os:type(), Mode band 8#111} of
                {{unix, _}, 0} -> {error, "not executable (chmod +x it)"};
                _ -> ok
            end;
        {ok, #file_info{type = Type}} ->
            {error, "is a " ++ atom_to_list(Type)};
        {error, enoent} ->
            {error, "no such file"};
        {error, Reason} ->
            {error, file:format_error(Reason)}
    end.

%% The code server finds the library by its folder's name; a folder of another name is found by
%% this module's own file.
priv_dirs() ->
    Named =
        case code:priv_dir(quic_dist) of
            {error, bad_name} -> [];
            Dir -> [Dir]
        end,
    Beside =
        case code:which(?MODULE) of
            File when is_list(File) ->
                [filename:join(filename:dirname(filename:dirname(File)), "priv")];
            _ ->
                []
        end,
    Named ++ (Beside -- Named).

name() ->
    case os:type() of
        {win32, _} -> "quicdistd.exe";
        _ -> "quicdistd"
    end.

%% @doc The version of this library, which the executable must have too. The application need not be
%% loaded.
-spec build() -> binary().
build() ->
    case application:get_key(quic_dist, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> build(code:where_is_file("quic_dist.app"))
    end.

build(non_existing) ->
    <<"unknown (quic_dist.app is not on the code path)">>;
build(File) ->
    {ok, Bytes, _} = erl_prim_loader:get_file(File),
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Bytes)),
    {ok, {application, quic_dist, Keys}} = erl_parse:parse_term(Tokens),
    list_to_binary(proplists:get_value(vsn, Keys)).

%% @doc The folder's name for this system, OS and ARCH spelled as GOOS and GOARCH.
-spec target() -> {ok, string()} | {error, string()}.
target() ->
    target(erlang:system_info(system_architecture)).

%% @doc This system in words, for an error: the folder's name, or the system architecture for which
%% there is none.
-spec system() -> string().
system() ->
    case target() of
        {ok, Target} -> Target;
        {error, Architecture} -> Architecture
    end.

%% @doc The folder's name for a system architecture as OTP spells it.
-spec target(string()) -> {ok, string()} | {error, string()}.
target("win32") ->
    {ok, "windows-amd64"};
target(Architecture) ->
    [Cpu | System] = string:split(Architecture, "-"),
    case {os(lists:append(System)), arch(Cpu)} of
        {{ok, Os}, {ok, Arch}} -> {ok, Os ++ "-" ++ Arch};
        _ -> {error, Architecture}
    end.

os(System) ->
    Known = ["linux", "darwin", "freebsd", "openbsd", "netbsd"],
    case [Os || Os <- Known, string:find(System, Os) =/= nomatch] of
        [Os | _] -> {ok, Os};
        [] -> error
    end.

arch("x86_64") -> {ok, "amd64"};
arch("amd64") -> {ok, "amd64"};
arch("aarch64") -> {ok, "arm64"};
arch("arm64") -> {ok, "arm64"};
arch("arm" ++ _) -> {ok, "arm"};
arch("i" ++ [_ | "86"]) -> {ok, "386"};
arch("riscv64") -> {ok, "riscv64"};
arch("powerpc64le") -> {ok, "ppc64le"};
arch("ppc64le") -> {ok, "ppc64le"};
arch("s390x") -> {ok, "s390x"};
arch(_) -> error.

%% @doc What kind of file this is, for the message about one that did not run.
-spec describe(file:filename_all()) -> string().
describe(File) ->
    case read_head(File) of
        {ok, Head} -> kind(Head);
        {error, Reason} -> file:format_error(Reason)
    end.

read_head(File) ->
    case file:open(File, [read, raw, binary]) of
        {ok, Io} ->
            Head = file:read(Io, 20),
            _ = file:close(Io),
            case Head of
                eof -> {ok, <<>>};
                _ -> Head
            end;
        {error, _} = Error ->
            Error
    end.

%% ELF: class at byte 4, byte order at 5, ABI at 7, e_machine at 18 (elf(5)).
kind(<<16#7F, "ELF", Class, 1, _, Abi, _:10/binary, Machine:16/little>>) ->
    elf(Class, Abi, Machine);
kind(<<16#7F, "ELF", Class, 2, _, Abi, _:10/binary, Machine:16/big>>) ->
    elf(Class, Abi, Machine);
%% Mach-O: cputype at byte 4 (mach-o/loader.h, mach/machine.h).
kind(<<16#FEEDFACF:32/little, 16#01000007:32/little, _/binary>>) ->
    kind_of("darwin-amd64");
kind(<<16#FEEDFACF:32/little, 16#0100000C:32/little, _/binary>>) ->
    kind_of("darwin-arm64");
kind(<<16#FEEDFACF:32/little, _/binary>>) ->
    "a macOS executable";
kind(<<"MZ", _/binary>>) ->
    "a Windows executable";
kind(<<"#!", _/binary>>) ->
    "a script";
kind(_) ->
    "not an executable of a known kind".

%% Only FreeBSD's executables are marked as such; Linux takes what is marked as nobody's.
elf(Class, Abi, Machine) ->
    Name =
        case Machine of
            3 -> "386";
            40 -> "arm";
            62 -> "amd64";
            183 -> "arm64";
            243 -> "riscv64";
            21 -> "ppc64";
            22 -> "s390x";
            _ -> "machine " ++ integer_to_list(Machine)
        end,
    Of =
        case Abi of
            9 -> " (FreeBSD)";
            _ -> ""
        end,
    lists:flatten(io_lib:format("a ~w-bit ELF executable for ~ts~ts", [32 * Class, Name, Of])).

%% @doc What describe/1 says of an executable for this target.
-spec kind_of(Target :: string()) -> string().
kind_of("windows-" ++ _) ->
    "a Windows executable";
kind_of("darwin-" ++ Arch) ->
    "a macOS executable for " ++ Arch;
kind_of(Target) ->
    [Os, Arch] = string:split(Target, "-"),
    {Bits, Machine} =
        case Arch of
            "386" -> {"32", Arch};
            "arm" -> {"32", Arch};
            "ppc64le" -> {"64", "ppc64"};
            _ -> {"64", Arch}
        end,
    "a " ++ Bits ++ "-bit ELF executable for " ++ Machine ++
        case Os of
            "freebsd" -> " (FreeBSD)";
            _ -> ""
        end.
