"""A checkpoint: the tensors of a network, in one file or in shards, of any format."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from training.kernels.formats import format_of
from training.kernels.formats.base import Entry
from training.kernels.manifest import Origin


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a network.

    Args:
        name: Its name in records, which must not have paths of this machine.
        files: Its file, or its shards.
        index: The index of the shards.
        family: Checkpoints of one family, such as those fine-tuned from another, are of the same part of a split; by
            default each is a family of its own, of its name.
        origin: What a manifest says of it.
        unread: Names of the files of its folder that are not read, because they have another format than it.
    """

    name: str
    files: tuple[Path, ...]
    index: Path | None = None
    family: str = ""
    origin: Origin | None = None
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or (self.origin and self.origin.family) or self.name)

    @property
    def ordered(self) -> bool:
        """Whether its entries are in the order of execution or of declaration."""
        return all(format_of(path).ordered for path in self.files)

    def renamed(self, name: str) -> "Checkpoint":
        """Returns it under another name; its family is renamed with it where it has none but itself."""
        return replace(self, name=name, family=name if self.family == self.name else self.family)

    def entries(self) -> dict[str, Entry]:
        """Describes all its tensors, by name.

        Raises:
            ValueError: A file is broken, or shards and their index differ.
        """
        found: dict[str, Entry] = {}
        for path in self.files:
            for name, entry in format_of(path).entries(path).items():
                if name in found:
                    raise ValueError(f"{name} is in both {found[name].file} and {path}; get the shards again")
                found[name] = entry
        missing = sorted(set(read_index(self.index)) - set(found)) if self.index else []
        if missing:
            raise ValueError(f"{self.index} lists {missing[0]}, which no shard holds; get the shards again")
        return found

    def load(self, entries: dict[str, Entry]) -> Iterator[tuple[str, Tensor]]:
        """Yields tensors by name, in the order of ``entries``."""
        with ExitStack() as stack:
            files: dict[Path, Callable[[str], Tensor]] = {}
            for name, entry in entries.items():
                if entry.file not in files:
                    files[entry.file] = stack.enter_context(format_of(entry.file).open(entry.file))
                yield name, files[entry.file](name)


def network_file(folder: Path, seed: int) -> Path:
    """Returns the file of the source network with this seed, in the folder of its stage."""
    return folder / f"network-{seed:03d}.safetensors"


def natural(name: str) -> list[str | int]:
    """Returns a sorting key by which ``block.10`` comes after ``block.2``."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def read_index(path: Path) -> dict[str, str]:
    """Reads the index of shards: the name of the file of each tensor.

    Raises:
        ValueError: It is not such an index.
    """
    try:
        shards: dict[str, str] = json.loads(path.read_bytes())["weight_map"]
        if not shards or not all(isinstance(name, str) for name in shards.values()):
            raise ValueError("weight_map names no files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not an index with a weight_map ({error!r}); get it again, or remove it") from error
    return shards
