%% @doc Has the sidecar write down connections: qlog files, which show each packet, and the TLS
%% secrets with which a capture of the network can be read.
-module(quic_dist_trace).

-export([trace/2]).
-export_type([setting/0]).

-type setting() :: #{
    qlog => file:filename_all() | off,
    insecure_key_log => file:filename_all() | off
}.
%% The folder in which each QUIC connection gets a qlog file, and the file to which its secrets are
%% appended in the form of SSLKEYLOGFILE. What is left out is off.

%% @doc Sets, until this sidecar ends, what is written of connections that begin from now on: of one
%% node's, or of those of all nodes that have no setting of their own. Where both are off a node has
%% none any more. A link that is up goes on as it was: `erlang:disconnect_node/1' makes a new
%% one. Nothing is written of an inbound connection whose peer is not authenticated.
-spec trace(node() | all, setting()) -> ok | {error, quic_dist_port:reason()}.
trace(Node, Setting) when is_atom(Node), is_map(Setting) ->
    case maps:without([qlog, insecure_key_log], Setting) of
        Unknown when map_size(Unknown) > 0 ->
            Words = io_lib:format("~0tp: there are qlog and insecure_key_log", [Unknown]),
            {error, {bad_option, lists:flatten(Words)}};
        _ ->
            Name =
                case Node of
                    all -> <<>>;
                    _ -> atom_to_binary(Node)
                end,
            Fields = maps:merge(
                file(qlog_dir, qlog, Setting), file(insecure_key_log, insecure_key_log, Setting)
            ),
            quic_dist_port:trace(Fields#{node => Name})
    end.

%% The sidecar has its own working folder only by chance.
file(Field, Key, Setting) ->
    case Setting of
        #{Key := off} -> #{};
        #{Key := Name} -> #{Field => unicode:characters_to_binary(filename:absname(Name))};
        _ -> #{}
    end.
