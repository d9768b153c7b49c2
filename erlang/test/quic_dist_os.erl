%% @doc What the operating system knows of a run's programs: processes, signals, UDP sockets.
-module(quic_dist_os).

-export([alive/1, gone/2, kill/1, signal/2, os_processes/0, environment/1, sidecars/0]).
-export([descriptors/1, is_bound/1, udp_sockets/0, udp_sockets/1]).

%% @doc Does this operating system process of our run live (or is stopped)? A zombie does not, nor
%% does a process of others that has got the number of one of ours.
-spec alive(pos_integer()) -> boolean().
alive(OsPid) ->
    Name = integer_to_list(OsPid),
    case file:read_file("/proc/" ++ Name ++ "/stat") of
        {ok, Stat} ->
            %% The name is in parentheses and may hold any byte.
            [_, <<" ", State, _/binary>>] = string:split(Stat, ")", trailing),
            State =/= $Z andalso State =/= $X andalso is_ours(Name);
        {error, _} ->
            false
    end.

is_ours(Name) ->
    lists:member(quic_dist_run:mark(), variables(Name)).

%% @doc Sends a signal to an operating system process of our run; that it has ended already is no
%% error.
-spec signal(pos_integer(), stop | cont | kill | term | int | hup) -> ok.
signal(OsPid, Signal) ->
    case alive(OsPid) of
        true ->
            Name = string:uppercase(atom_to_list(Signal)),
            _ = os:cmd("kill -" ++ Name ++ " " ++ integer_to_list(OsPid)),
            ok;
        false ->
            ok
    end.

%% @doc Kills an operating system process of our run.
-spec kill(pos_integer()) -> ok.
kill(OsPid) -> signal(OsPid, kill).

%% @doc All living operating system processes that carry this run's mark, with their command lines.
-spec os_processes() -> [{pos_integer(), string()}].
os_processes() ->
    {ok, Names} = file:list_dir("/proc"),
    [
        {OsPid, command_line(Name)}
     || [C | _] = Name <- Names,
        C >= $0,
        C =< $9,
        OsPid <- [list_to_integer(Name)],
        alive(OsPid)
    ].

variables(Name) ->
    case file:read_file("/proc/" ++ Name ++ "/environ") of
        {ok, Bytes} -> binary:split(Bytes, <<0>>, [global]);
        {error, _} -> []
    end.

command_line(Name) ->
    case file:read_file("/proc/" ++ Name ++ "/cmdline") of
        {ok, Bytes} -> [case C of 0 -> $\s; _ -> C end || <<C>> <= Bytes];
        {error, _} -> ""
    end.

%% @doc All living sidecars of this run.
-spec sidecars() -> [pos_integer()].
sidecars() ->
    [Pid || {Pid, Line} <- os_processes(), re:run(Line, "^\\S*quicdistd ?$") =/= nomatch].

%% @doc Does a UDP socket of this network namespace have this port?
-spec is_bound(inet:port_number()) -> boolean().
is_bound(UdpPort) -> lists:keymember(UdpPort, 2, udp_sockets()).

%% @doc All UDP sockets of this network namespace: address, port and inode.
-spec udp_sockets() -> [{inet:ip_address(), inet:port_number(), non_neg_integer()}].
udp_sockets() ->
    lists:append([sockets(File) || File <- ["/proc/net/udp", "/proc/net/udp6"]]).

sockets(File) ->
    case file:read_file(File) of
        {ok, Text} ->
            [_Heading | Lines] = string:lexemes(Text, "\n"),
            [socket(string:lexemes(Line, " ")) || Line <- Lines];
        {error, enoent} ->
            []
    end.

%% proc(5): the second word is ADDRESS:PORT, each 32 bits of the address in the machine's byte
%% order; the tenth is the inode.
socket([_, Local | _] = Words) ->
    [Address, Port] = binary:split(Local, <<":">>),
    Ip = binary:decode_hex(Address),
    Swapped = << <<Word:32/native>> || <<Word:32/big>> <= Ip >>,
    {ip(Swapped), binary_to_integer(Port, 16), binary_to_integer(lists:nth(10, Words))}.

ip(<<A, B, C, D>>) -> {A, B, C, D};
ip(<<_:128>> = Ip) -> list_to_tuple([Word || <<Word:16>> <= Ip]).

%% @doc The file descriptors of an operating system process, each with what it leads to.
-spec descriptors(pos_integer()) -> [{Number :: string(), file:filename_all()}].
descriptors(OsPid) ->
    Dir = "/proc/" ++ integer_to_list(OsPid) ++ "/fd",
    Names =
        case file:list_dir(Dir) of
            {ok, List} -> List;
            {error, _} -> []
        end,
    [{Name, Link} || Name <- Names, {ok, Link} <- [file:read_link(filename:join(Dir, Name))]].

%% @doc The UDP sockets that an operating system process has open.
-spec udp_sockets(pos_integer()) -> [{inet:ip_address(), inet:port_number()}].
udp_sockets(OsPid) ->
    Links = [Link || {_, Link} <- descriptors(OsPid)],
    [
        {Ip, Port}
     || {Ip, Port, Inode} <- udp_sockets(),
        lists:member("socket:[" ++ integer_to_list(Inode) ++ "]", Links)
    ].

%% @doc The environment of an operating system process, as `NAME=value'; [] if there is no process.
-spec environment(pos_integer()) -> [binary()].
environment(OsPid) -> variables(integer_to_list(OsPid)).

%% @doc Waits until an operating system process of our run has ended, at most so many ms (before
%% scaling).
-spec gone(pos_integer(), timeout()) -> ok.
gone(OsPid, Within) ->
    quic_dist_wait:wait_until({gone, OsPid}, fun() -> not alive(OsPid) end, Within).
