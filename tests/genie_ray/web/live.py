"""A web application that listens on a port of its own, in a thread, and what a page of it shows."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette

Open = Callable[..., Any]
PHONE = {"width": 380, "height": 800}


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """The address, without scheme."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def picture(page: Any, canvas: str) -> NDArray[np.uint8]:
    """What a canvas shows, [H, W, 3]."""
    read = "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    height, width, *values = page.locator(canvas).first.evaluate(read)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
