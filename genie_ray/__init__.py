"""GenieRay: world models that learn games by exploring them, on Ray.

`genie_ray` is the distributed system and its command line; `world_model` holds the PyTorch models and `policies` the
RLlib agents. Importing this package is cheap: Ray and PyTorch are imported by the modules that need them.
"""

import sys

if sys.platform == "win32":
    raise ImportError("GenieRay does not run on Windows: use Linux, macOS or the Windows Subsystem for Linux")

__version__ = "0.1.0"
