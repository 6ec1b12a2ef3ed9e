"""How train workers share a model: each has a copy (DDP), or each holds a part of every weight (FSDP2).

The model's code knows of neither, as in torchtitan (Liang et al., 2024, arXiv 2410.06511): its half blocks are wrapped
from outside. A half block's weights are gathered when it computes, and dropped; gradients and the optimiser's moments
are only ever held in parts. Both ways save the same files, and go on from each other's.

Here, too, is what workers tell each other beside: their metrics, and that a node will be taken away.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray.train.torch
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from genie_ray.base.psnr import psnr
from genie_ray.base.session import Sharding
from world_model.checkpoint import Model
from world_model.layers.transformer import transformers


class Copies:
    """Every worker has the whole model; one worker alone has no other. `model` is what computes the loss."""

    def __init__(self, module: Model, device: torch.device) -> None:
        self._module = module.to(device)
        self.model: nn.Module = ray.train.torch.prepare_model(self._module)

    def micro_step(self, piece: int, pieces: Sequence[int]) -> AbstractContextManager[Any]:
        """Where a piece of the batch goes forward and backward; workers exchange gradients in the last one."""
        if piece == pieces[-1] or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def whole(self) -> Model:
        """The model with all its weights, to validate and to save. All workers must ask for it."""
        return self._module

    def state_dict(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Weights and moments as one worker alone has them; complete on the first worker. All must ask for it."""
        return {"model": self._module.state_dict(), "optimizer": optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Goes on from a state, of either way to share."""
        self._module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])


class Shards:
    """Every worker holds a part of each weight; the methods are those of `Copies`."""

    def __init__(self, module: Model, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        group = torch.distributed.group.WORLD
        assert group is not None
        mesh = DeviceMesh.from_group(group, device.type)
        self._build: Any = type(module)
        self._config, self._device = module.config, device
        for stack in transformers(module):
            for half in (*stack.spatial, *stack.temporal):
                fully_shard(half, mesh=mesh)
        fully_shard(module, mesh=mesh)  # the rest; each call moves its weights to the device, so never all at once
        self.model: nn.Module = module

    @contextlib.contextmanager
    def micro_step(self, piece: int, pieces: Sequence[int]) -> Iterator[None]:
        """Gradients are exchanged in each, or they would be held whole; so workers must have equally many pieces."""
        for buffer in self.model.buffers() if piece == pieces[0] else ():  # running statistics, as DDP does
            torch.distributed.broadcast(buffer, src=0)
        yield

    def whole(self) -> Model:
        state = {name: _gather(value) for name, value in self.model.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            model: Model = self._build(self._config)
        model.load_state_dict(state, assign=True)
        return model.to(self._device)

    def state_dict(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        found = optimizer.state_dict()
        moments = {
            number: {name: _gather_to_first(value) for name, value in kept.items()}
            for number, kept in found["state"].items()
        }
        weights = {name: _gather_to_first(value) for name, value in self.model.state_dict().items()}
        return {"model": weights, "optimizer": found | {"state": moments}}

    def load_state_dict(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        own = self.model.state_dict()
        self.model.load_state_dict({name: _share(value, own[name]) for name, value in state["model"].items()})
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = {
            number: {
                name: value if name == "step" else _share(value, parameters[number]) for name, value in kept.items()
            }
            for number, kept in state["optimizer"]["state"].items()
        }
        optimizer.load_state_dict(state["optimizer"] | {"state": moments})


WAYS: dict[Sharding, type[Copies] | type[Shards]] = {"none": Copies, "fsdp": Shards}


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scales all gradients down together if their norm is above `most`; returns the norm before."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = _gather(norm)  # each worker has that of its parts
    nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _gather(value: Tensor) -> Tensor:
    """The whole tensor of parts that workers hold; another tensor as it is."""
    return value.full_tensor().detach() if isinstance(value, DTensor) else value


def _gather_to_first(value: Any) -> Any:
    """The whole tensor in the first worker's main memory; for others, nothing of it stays."""
    if not isinstance(value, DTensor):
        return value
    whole = _gather(value)
    return whole.cpu() if torch.distributed.get_rank() == 0 else None


def _share(value: Tensor, like: Tensor) -> Tensor:
    """This worker's part of a tensor, if `like` is held in parts; every worker has the whole tensor."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


class Averages:
    """Weighted means from accumulated sums, exact for uneven batches and ranks."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, Tensor | float] = defaultdict(float)
        self._weights: defaultdict[str, float] = defaultdict(float)  # by key: not every batch has every value

    def add(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Adds the means of one batch; stays on the device."""
        for key, value in values.items():
            self._sums[key] = self._sums[key] + value.detach() * weight
            self._weights[key] += weight

    def reduce(self) -> dict[str, float]:
        """The means over everything added on all ranks; a PSNR is that of the pooled error, in dB."""
        parts = [{key: (float(value), self._weights[key]) for key, value in self._sums.items()}]
        if torch.distributed.is_initialized():
            own, parts = parts[0], parts * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
        means = {}
        for key in sorted({key for part in parts for key in part}):
            values = [part[key] for part in parts if key in part]
            means[key] = sum(value for value, _ in values) / sum(weight for _, weight in values)
        if "psnr" in means:
            means["psnr"] = float(psnr(means["reconstruction_mse"]))
        if "prediction_mse" in means:
            means["prediction_psnr"] = float(psnr(means["prediction_mse"]))
        return means


class NodeWarning:
    """The notice that a spot node is given before it is taken away, where the cluster passes it on to Ray."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def is_new(self) -> bool:
        """Whether a node was given notice since the last call. All workers must ask, and all are told the same."""
        info = ray.train.get_preemption_info()
        leaving = info.preempted_node_ids if info else []
        new, self._known = not set(leaving) <= set(self._known), leaving
        return new
