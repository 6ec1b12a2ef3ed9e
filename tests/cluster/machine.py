"""One node of a Ray cluster on loopback, until it is ended: `machine.py FOLDER PORT head`, or `node`.

FOLDER takes what Ray writes. PORT is the head's. A head has no CPUs, a node has one.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

from tests.cluster.nodes import OBJECT_STORE


def main() -> None:
    folder, port, kind = sys.argv[1:]
    head = kind == "head"
    parameters = RayParams(
        temp_dir=folder,
        node_ip_address="127.0.0.1",
        num_cpus=0 if head else 1,
        num_gpus=0,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        min_worker_port=0,
        max_worker_port=0,
        **({"gcs_server_port": int(port)} if head else {"gcs_address": f"127.0.0.1:{port}", "node_manager_port": 0}),
    )
    node = Node(parameters, head=head, shutdown_at_exit=False, spawn_reaper=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        signal.pause()
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


if __name__ == "__main__":
    main()
