defmodule Consumer.Cluster do
  @moduledoc """
  Connects to nodes as the strategies of cluster libraries do: whoever is in the list and not connected is connected to, by a
  function that is configured, and again when the connection is lost.
  """
  use GenServer

  @interval 500

  def start_link(topology), do: GenServer.start_link(__MODULE__, topology, name: __MODULE__)

  @impl true
  def init(topology) do
    :ok = :net_kernel.monitor_nodes(true)
    {:ok, topology, {:continue, :connect}}
  end

  @impl true
  def handle_continue(:connect, topology), do: {:noreply, connect(topology)}

  @impl true
  def handle_info(:connect, topology), do: {:noreply, connect(topology)}

  def handle_info({:nodeup, node}, topology) do
    IO.puts("up: #{node}")
    {:noreply, topology}
  end

  def handle_info({:nodedown, node}, topology) do
    IO.puts("down: #{node}")
    {:noreply, topology}
  end

  defp connect(topology) do
    {module, function, args} = topology[:connect]
    {list_module, list_function, list_args} = topology[:list_nodes]
    connected = apply(list_module, list_function, list_args)

    for node <- topology[:config][:hosts], node != node(), node not in connected do
      apply(module, function, args ++ [node])
    end

    Process.send_after(self(), :connect, @interval)
    topology
  end
end
