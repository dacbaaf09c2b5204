"""Ranks: the processes among which a model is spread or copied; they draw the same weights, and fail together."""

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import distributed, nn

from dwp_init.priors.checks import whole_number
from dwp_init.shards import is_sharded
from dwp_init.text import few

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.fsdp import FSDPModule

T = TypeVar("T")


class Ranks:
    """The process groups of a model after ``fully_shard``, or under ``DistributedDataParallel`` or FSDP; often none.

    Args:
        model: The model. Parameters that ``fully_shard`` has gathered for a forward pass are put back into their parts.
        alone: Whether this process need not agree with others, because it writes nothing.
    """

    def __init__(self, model: nn.Module, alone: bool = False) -> None:
        self._groups: list[ProcessGroup] = []
        if not alone and distributed.is_available() and distributed.is_initialized():
            _reshard(model)
            self._groups += {id(group): group for group in _groups(model)}.values()

    def source(self, seed: int | None, generator: torch.Generator | None) -> tuple[int | None, torch.Generator | None]:
        """Returns the seed or generator given or, if the model has several ranks, a seed that the first one draws.

        Raises:
            TypeError: The seed is not a whole number.
            ValueError: The ranks have different seeds.
        """
        seed = None if seed is None else whole_number(seed, "seed")
        self.check_alike("seed", [seed])
        if seed is not None or not self._groups:
            return seed, generator
        device = generator.device if generator else torch.device("cpu")
        drawn = int(torch.randint(2**63 - 1, (), generator=generator, device=device).item())
        for group in self._groups:
            drawn = _gathered(drawn, group)[0]
        return drawn, None

    def check_alike(self, name: str, values: Iterable[object]) -> None:
        """Raises ``ValueError`` on every rank unless all have the same values, in any order."""
        sets = {frozenset(values)}
        for group in self._groups:
            sets = sets.union(*_gathered(sets, group))
        some = frozenset.union(*sets) - frozenset.intersection(*sets)
        if some:
            raise ValueError(f"{name} must be the same in all processes; only some have {few(sorted(map(str, some)))}")

    @contextmanager
    def together(self) -> Generator[None, None, None]:
        """A context that fails on every rank if it fails on one, so that none waits for another in vain.

        Raises:
            RuntimeError: It failed on another rank.
        """
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
        fault = f"rank {distributed.get_rank()}: {error}" if self._groups and error else None
        for group in self._groups:
            fault = next(filter(None, _gathered(fault, group)), None)
        if error is not None:
            raise error
        if fault is not None:
            raise RuntimeError(f"nothing was changed, because of {fault}")


def _gathered(value: T, group: "ProcessGroup") -> list[T]:
    """Returns the values of all ranks of a group."""
    values: list[T] = [value] * distributed.get_world_size(group)
    distributed.all_gather_object(values, value, group=group)
    return values


def _reshard(model: nn.Module) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            cast("FSDPModule", module).reshard()


def _groups(model: nn.Module) -> Iterator["ProcessGroup"]:
    """Yields the groups of a model's wrappers, and of its parameters; some more than once."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = (nn.parallel.DistributedDataParallel, *((fsdp.FullyShardedDataParallel,) if fsdp else ()))
    for module in model.modules():
        if isinstance(module, kinds):
            yield cast("ProcessGroup", module.process_group)
    for tensor in model.parameters():
        if is_sharded(tensor):
            yield from tensor.device_mesh.get_all_groups()
