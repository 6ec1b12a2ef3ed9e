"""A Ray cluster of several nodes on this machine, run by its own process; nodes can be added and removed.

Prints the cluster's address. Answers each line on its standard input with one line: `add` starts a node with one CPU
and prints the process id of its raylet; `remove PID` kills that node; `warn PID` tells Ray that it will be taken away
in a minute, as a cloud does with a spot node.
"""

import os
import sys
import time

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray replaces loopback by the machine's external address
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
}
os.environ.setdefault("RAY_health_check_failure_threshold", "3")

from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

OBJECT_STORE = 80 * 1024**2
LOOPBACK = {"node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE, "include_dashboard": False}
STARTS = 3  # a busy machine may take longer than Ray waits


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **LOOPBACK})
    nodes = {}
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, *pid = line.split()
        if command == "add":
            node = started(cluster)
            raylet = node.all_processes["raylet"][0].process.pid
            nodes[raylet] = node
            print(raylet, flush=True)
        elif command == "warn":
            reason, deadline_ms = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, time.time_ns() // 1_000_000 + 60_000
            node_id = nodes[int(pid[0])].node_id
            print(GcsClient(address=cluster.address).drain_node(node_id, reason, "spot", deadline_ms), flush=True)
        else:
            cluster.remove_node(nodes.pop(int(pid[0])), allow_graceful=False)
            print("removed", flush=True)
    cluster.shutdown()


def started(cluster: Cluster) -> Node:
    """A new node."""
    for attempt in range(STARTS):
        try:
            return cluster.add_node(num_cpus=1, **LOOPBACK)
        except Exception as error:  # Ray's own, of no class
            print(f"a node did not start: {error}", file=sys.stderr)
            if attempt == STARTS - 1:
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
