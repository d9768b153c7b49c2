defmodule Consumer.Application do
  @moduledoc "Keeps the nodes of the configuration connected."
  use Application

  @impl true
  def start(_type, _args) do
    topology = [
      topology: :static,
      connect: {:net_kernel, :connect_node, []},
      list_nodes: {:erlang, :nodes, [:connected]},
      config: [hosts: Enum.map(Application.fetch_env!(:consumer, :peers), &String.to_atom/1)]
    ]

    IO.puts("consumer is up: #{node()}")
    Supervisor.start_link([{Consumer.Cluster, topology}], strategy: :one_for_one)
  end
end
