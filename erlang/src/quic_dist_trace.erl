%% @doc Makes the sidecar record connections: qlog files, which show each packet, and the TLS
%% secrets that decrypt a capture of the network.
-module(quic_dist_trace).

-export([trace/2]).
-export_type([setting/0]).

-type setting() :: #{
    qlog => file:filename_all() | off,
    insecure_key_log => file:filename_all() | off
}.
%% The folder in which each QUIC connection gets a qlog file, and the file to which its secrets are
%% appended in the form of SSLKEYLOGFILE. A key that is left out is off.

%% Milliseconds. A sidecar may have to be started first.
-define(TIMEOUT, 10000).

%% @doc Sets, until this sidecar ends, what it records of connections that begin from now on: those
%% of one node, or of all nodes that have no setting of their own. With both keys off, a node loses
%% its own setting. A link that is up does not change; `erlang:disconnect_node/1' makes room for a
%% new one. An inbound connection is not recorded until its peer is authenticated.
-spec trace(node() | all, setting()) -> ok | {error, quic_dist_sidecar:reason()}.
trace(Node, Setting) when is_atom(Node), is_map(Setting) ->
    case maps:without([qlog, insecure_key_log], Setting) of
        Unknown when map_size(Unknown) > 0 ->
            Text = io_lib:format("~0tp: there are qlog and insecure_key_log", [Unknown]),
            {error, {bad_option, lists:flatten(Text)}};
        _ ->
            Name =
                case Node of
                    all -> <<>>;
                    _ -> atom_to_binary(Node)
                end,
            Fields = maps:merge(
                file(qlog_dir, qlog, Setting), file(insecure_key_log, insecure_key_log, Setting)
            ),
            quic_dist_sidecar:command(trace, Fields#{node => Name}, ?TIMEOUT)
    end.

%% The sidecar's working folder need not be this VM's.
file(Field, Key, Setting) ->
    case Setting of
        #{Key := off} -> #{};
        #{Key := Name} -> #{Field => unicode:characters_to_binary(filename:absname(Name))};
        _ -> #{}
    end.
