%% @doc Distribution over HTTP, for applications and operators.
-module(webdist).

-export([info/0, child_spec/0, start_link/0]).

%% @doc How this VM stands at its host's web port (`state', `address', `port', `text': see {@link
%% webdist_server}), the `options' in use, and how it takes upgraded connections (`take').
-spec info() -> #{atom() => term()} | {error, string()}.
info() ->
    case {webdist_server:info(), webdist_config:read()} of
        {{ok, Status}, {ok, Options}} ->
            Known = #{options => Options, take => webdist_link:take(Options)},
            case Status of
                undefined -> Known#{state => unused};
                _ -> maps:merge(Known, Status)
            end;
        {{error, Text}, _} ->
            {error, Text};
        {_, {error, Text}} ->
            {error, Text}
    end.

%% @doc A child for an application's own supervisor, in place of `-s webdist_server': the VM takes
%% part in holding the port as long as the child runs. Where the port is held for another reason
%% already, by `-proto_dist webdist' or `-s webdist_server', it adds nothing.
-spec child_spec() -> supervisor:child_spec().
child_spec() ->
    (webdist_sup:child_spec())#{start => {?MODULE, start_link, []}}.

%% @private What the child of {@link child_spec/0} starts.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    case webdist_sup:start_link(serve) of
        ignore ->
            _ = webdist_server:start(),
            ignore;
        Result ->
            Result
    end.
