"""Models that several processes hold together: each rank says what became of them, and all must say the same.

python -m tests.interop.processes COUNT FOLDER
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrizations

import dwp_init.initialize
from dwp_init import apply_
from tests.interop.common import Wrap, draw, each, network, weights

COUNTS = (2, 4)
SAME = "the bare model's draw, to the bit, on every rank"
AGREED = "the same draw on every rank"
RESCALED = (
    "its weight is rescaled in the forward pass, as by spectral_norm or weight standardisation, so its response cannot "
    "be kept; to draw it, give its exact name in layers="
)
FLAT = "an error: flattened by FullyShardedDataParallel: call apply_ inside its summon_full_params(model)"
FAULT = "an error on every rank, without waiting, and nothing changed"


def mesh(*names: str):
    from torch.distributed.device_mesh import init_device_mesh

    count = distributed.get_world_size()
    return init_device_mesh("cpu", (count // 2, 2) if len(names) == 2 else (count,), mesh_dim_names=names)


def sharded(model: nn.Module, **options: object) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(model[3], **options)
    return fully_shard(model, **options)


def flattened(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


def compared(model: nn.Module, wrap: Wrap = lambda layer: layer, **options: Any) -> str:
    """Draws a model, and compares its weights with a bare one's, whose layers are wrapped in the same way."""
    bare = each(wrap)(network())
    draw(bare, **options)
    draw(model, **options)
    return SAME if all(map(torch.equal, weights(bare)[:2], weights(model)[:2])) else "other weights"


def normed(wrap: Wrap, **options: Any) -> str:
    return compared(sharded(each(wrap)(network())), wrap, **options)


class OfNormOne(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


def of_norm_one(layer: nn.Conv2d) -> nn.Module:
    return OfNormOne(layer.in_channels, layer.out_channels, layer.kernel_size)


def left(wrap: Wrap) -> str:
    """Says why the wrapped layers stay, next to one that is drawn."""
    model = sharded(each(wrap)(network()).append(nn.Conv2d(4, 4, 3)))
    before = weights(model)
    report = draw(model)
    assert report.initialized == ["5"] and all(map(torch.equal, before[:2], weights(model)[:2]))
    return "; ".join({report.skipped[name] for name in ("0", "3")})


def agreed(model: nn.Module) -> str:
    """Draws a model without a seed, and compares the ranks, whose random states differ."""
    before = weights(model)[0].clone()
    torch.manual_seed(distributed.get_rank())
    apply_(model, "natural")
    ours = weights(model)[0].clone()
    theirs = [torch.empty_like(ours) for _ in range(distributed.get_world_size())]
    distributed.all_gather(theirs, ours)
    return AGREED if all(torch.equal(ours, other) for other in theirs) and not torch.equal(ours, before) else "other"


def after_a_forward_pass() -> str:
    model = sharded(network())
    if hasattr(torch.cpu.Stream, "record_event"):  # not in torch 2.6
        model(torch.ones(1, 3, 9, 9))  # leaves the parameters of the root gathered
    return compared(model)


def from_meta() -> str:
    model = sharded(network(device="meta"))
    report = apply_(model, "natural")
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(float("nan"))
    return "drawn on meta" if report.drawn else compared(model)


def tensor_parallel() -> str:
    from torch.distributed.tensor import Shard, distribute_tensor

    both, model = mesh("data", "tensor"), network()
    for place in (0, 3):
        model[place].weight = nn.Parameter(distribute_tensor(model[place].weight.data, both["tensor"], [Shard(0)]))
    return compared(sharded(model, mesh=both["data"]))


def placed() -> str:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    found = set()
    for placement in (Replicate(), Shard(0), Shard(1), Shard(3)):
        model = network()
        for place in (0, 3):
            weight = distribute_tensor(model[place].weight.data, mesh("all"), [placement])
            model[place].weight = nn.Parameter(weight)
        found.add(compared(model))
    return "; ".join(found)


def summoned() -> str:
    model = flattened(network())
    with model.summon_full_params(model):
        found = compared(model)
    with model.summon_full_params(model):
        bare = network()
        draw(bare)
        return found if torch.equal(bare[3].weight, weights(model)[1]) else "lost"


def refused(model: nn.Module, prior: str = "natural") -> str:
    before = [weight.clone() for weight in weights(model)]
    try:
        apply_(model, prior, scale="keep", seed=0)
    except Exception as error:
        same = all(map(torch.equal, before, weights(model)))
        others = distributed.get_rank() != distributed.get_world_size() - 1
        blamed = f"rank {distributed.get_world_size() - 1}: " in str(error)
        if (isinstance(error, RuntimeError) and others == blamed) or prior == "nowhere":
            return FAULT if same else "changed"
        return str(error).rpartition(" (")[0].replace("no layer can be initialised", "an error")
    return "drawn"


def missing_prior() -> str:
    last = distributed.get_rank() == distributed.get_world_size() - 1
    return refused(sharded(network()), "nowhere" if last else "natural")


def failing_draw() -> str:
    """Fails on the last rank, once the first layer has been written."""
    real, calls = dwp_init.initialize.draw_weight, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and distributed.get_rank() == distributed.get_world_size() - 1:
            raise MemoryError("no memory")
        return real(*arguments)

    dwp_init.initialize.draw_weight = fail
    try:
        return refused(sharded(network()))
    finally:
        dwp_init.initialize.draw_weight = real


CASES: dict[str, tuple[str, Callable[[], str]]] = {
    "fully_shard": (SAME, lambda: compared(sharded(network()))),
    "fully_shard without a seed": (AGREED, lambda: agreed(sharded(network()))),
    "fully_shard, after a forward pass": (SAME, after_a_forward_pass),
    "fully_shard on meta, then to_empty": (SAME, from_meta),
    "fully_shard on a mesh of two axes": (SAME, lambda: compared(sharded(network(), mesh=mesh("copies", "parts")))),
    "fully_shard and tensor parallel": (SAME, tensor_parallel),
    "fully_shard of weight_norm": (SAME, lambda: normed(parametrizations.weight_norm)),
    "fully_shard of spectral_norm": (RESCALED, lambda: left(parametrizations.spectral_norm)),
    "fully_shard of spectral_norm, named": (SAME, lambda: normed(parametrizations.spectral_norm, layers=["0", "3"])),
    "fully_shard of old weight_norm": (SAME, lambda: normed(nn.utils.weight_norm)),
    "fully_shard of old spectral_norm": (RESCALED, lambda: left(nn.utils.spectral_norm)),
    "fully_shard of old spectral_norm, named": (SAME, lambda: normed(nn.utils.spectral_norm, layers=["0", "3"])),
    "fully_shard of a forward pass of its own": (RESCALED, lambda: left(of_norm_one)),
    "fully_shard, a prior that one rank lacks": (FAULT, missing_prior),
    "fully_shard, a draw that fails on one rank": (FAULT, failing_draw),
    "DTensor, Replicate and Shard": (SAME, placed),
    "DDP": (SAME, lambda: compared(nn.parallel.DistributedDataParallel(network()))),
    "DDP without a seed": (AGREED, lambda: agreed(nn.parallel.DistributedDataParallel(network()))),
    "FSDP": (FLAT, lambda: refused(flattened(network()))),
    "FSDP in summon_full_params": (SAME, summoned),
}


def work(rank: int, count: int, folder: str) -> None:
    """Runs all cases as one of the processes, and writes what it found."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", count)
    distributed.init_process_group("gloo", rank=rank, world_size=count, store=store)
    found = {name: run() for name, (_, run) in CASES.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    count, folder = int(sys.argv[1]), sys.argv[2]
    method = "fork" if sys.platform == "linux" else "spawn"  # the former imports torch once
    torch.multiprocessing.start_processes(work, (count, folder), count, start_method=method)
