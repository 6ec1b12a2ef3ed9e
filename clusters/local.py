"""A cluster of several nodes on this machine's loopback, for trying out what the files beside this one describe.

    python clusters/local.py --nodes 2 --cpus 2

Starts a head (no CPUs of its own, job server on port 8265) and worker nodes, prints how to use them, and stops all of
them on Ctrl-C. Lines typed meanwhile change it: `add` starts a node, `remove` kills the last one as a crash would.
Nothing listens beyond loopback, so there is no token.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from typing import Any

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray replaces loopback by the machine's external address
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "OMP_WAIT_POLICY": "passive",
    "RAY_worker_niceness": "0",
}

from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster

LOOPBACK = {"node_ip_address": "127.0.0.1"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes (default: 2)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs that each node says it has (default: 2)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that each node says it has, real or not (default: 0)")
    parser.add_argument("--memory-mb", type=int, default=200, help="object store of a node, MB (default: 200)")
    parser.add_argument("--port", type=int, default=8265, help="of the job server (default: 8265)")
    arguments = parser.parse_args()
    for name in ("nodes", "cpus", "memory_mb", "port"):
        if getattr(arguments, name) < (name != "nodes"):
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: must be positive")

    # Ray tells a job the cluster whose address was written last into this folder. In the usual one, that of any other
    # cluster on this machine may stand.
    folder = f"/tmp/ray-{arguments.port}"

    def shared() -> dict[str, Any]:
        """What every node has, the head too. Since all are on one machine, each has a port of its own, and a folder for
        jobs' code: in a shared one, each node would unpack the code anew, under the hands of the others."""
        port = free_port()
        return {
            **LOOPBACK,
            "temp_dir": folder,
            "object_store_memory": arguments.memory_mb * 2**20,
            "dashboard_agent_listen_port": port,
            "runtime_env_dir_name": f"code_of_{port}",
        }

    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": arguments.port}
    if not free(arguments.port):
        parser.error(f"--port is {arguments.port}, which is in use: give another")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **shared(), **dashboard})
    write_ray_address(cluster.gcs_address, folder)
    nodes = []

    def add() -> None:
        nodes.append(cluster.add_node(num_cpus=arguments.cpus, num_gpus=arguments.gpus, **shared()))

    try:
        for _ in range(arguments.nodes):
            add()
        cluster.wait_for_nodes()
        print(f"{len(nodes)} nodes of {arguments.cpus} CPUs and {arguments.gpus} GPUs; Ctrl-C stops them")
        print(f"  genie-ray collect /tmp/data --game Kangaroo-Atari2600-v0 --steps 2000 --address {cluster.address}")
        print(f"  genie-ray submit --address http://127.0.0.1:{arguments.port} -- run experiments/smoke.yaml \\")
        print("      --out /tmp/run", flush=True)
        for line in sys.stdin:
            if line.strip() == "add":
                add()
            elif line.strip() == "remove" and nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
            print(f"{len(nodes)} nodes", flush=True)
    except KeyboardInterrupt:
        print()
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            cluster.shutdown()


if __name__ == "__main__":
    main()
