"""Existing checkpoints: safetensors state dicts in files, in folders and on the Hub; pickles are refused."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

SUFFIX, INDEX = ".safetensors", ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERT = "convert it to safetensors: safetensors.torch.save_file, or https://huggingface.co/spaces/safetensors/convert"
Operator = Literal["plain", "transposed", ""]
_REPO = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Entry:
    """A tensor as the header of its file describes it.

    Args:
        dtype: As safetensors writes it, such as ``BF16``.
        shape: Its shape.
        file: The file that holds it.
        layout: The operator of which it is the weight, ``"plain"`` or ``"transposed"`` convolution; empty where the
            format does not say.
        groups: Groups of that convolution; None where the format does not say.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    layout: Operator = ""
    groups: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A state dict.

    Args:
        name: Its name in records, which must not have paths of this machine.
        files: Its file, or its shards.
        index: The index of the shards.
        ordered: Whether its entries are in the order of execution or of declaration.
        family: Checkpoints of one family, such as those fine-tuned from another, are of the same part of a split; by
            default each is a family of its own, of its name.
    """

    name: str
    files: tuple[Path, ...]
    index: Path | None = None
    ordered: bool = False
    family: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", self.family or self.name)

    def renamed(self, name: str) -> "Checkpoint":
        """Returns it under another name; its family is renamed with it where it has none but itself."""
        return replace(self, name=name, family=name if self.family == self.name else self.family)

    def entries(self) -> dict[str, Entry]:
        """Reads the headers of all its tensors, by name.

        Raises:
            ValueError: A file is broken, or shards and their index differ.
        """
        found: dict[str, Entry] = {}
        for path in self.files:
            for name, entry in _read_header(path).items():
                if name in found:
                    raise ValueError(f"{name} is in both {found[name].file} and {path}; get the shards again")
                found[name] = entry
        missing = sorted(set(_read_index(self.index)) - set(found)) if self.index else []
        if missing:
            raise ValueError(f"{self.index} lists {missing[0]}, which no shard holds; get the shards again")
        return found

    def load(self, entries: dict[str, Entry]) -> Iterator[tuple[str, Tensor]]:
        """Yields tensors by name, in the order of ``entries``."""
        with ExitStack() as stack:
            paths = {entry.file for entry in entries.values()}
            files = {path: stack.enter_context(safe_open(path, framework="pt")) for path in paths}
            for name, entry in entries.items():
                yield name, files[entry.file].get_tensor(name)


def find_checkpoints(sources: Iterable[str]) -> list[Checkpoint]:
    """Finds the checkpoints of all sources and gives each a name of its own.

    Args:
        sources: Files; folders, in which each file is a checkpoint, or all shards of an index are one; or repositories
            on the Hub, ``user/name`` or ``user/name@revision``.

    Raises:
        FileNotFoundError: A source does not exist or holds no safetensors file.
        ValueError: A source holds only pickles, or an index is broken.
    """
    found: dict[str, Checkpoint] = {}
    for source in sources:
        for checkpoint in _find(source):
            name, number = checkpoint.name, 1
            while name in found:
                number += 1
                name = f"{checkpoint.name}#{number}"
            found[name] = checkpoint.renamed(name)
    return list(found.values())


def network_file(folder: Path, seed: int) -> Path:
    """Returns the file of the source network with this seed, in the folder of its stage."""
    return folder / f"network-{seed:03d}{SUFFIX}"


def natural(name: str) -> list[str | int]:
    """Returns a sorting key by which ``block.10`` comes after ``block.2``."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _find(source: str) -> list[Checkpoint]:
    path = Path(source)
    if source and path.is_dir():  # an empty path would be the current folder
        return _in_folder(path, path.resolve().name)
    if path.is_file():
        if path.suffix in PICKLES:
            raise ValueError(f"{path} is a pickle file, which can run code when it is read; {CONVERT}")
        if path.suffix != SUFFIX:
            raise ValueError(f"a checkpoint's file ends in {SUFFIX}; got {path.name!r}")
        return [Checkpoint(path.name, (path,))]
    if not source.endswith(SUFFIX) and (match := _REPO.fullmatch(source)):
        return _on_hub(match[1], match[2])
    raise FileNotFoundError(f"no file or folder {source!r}; a repository on the Hub is user/name or user/name@revision")


def _in_folder(folder: Path, label: str) -> list[Checkpoint]:
    files = [path for path in folder.rglob(f"*{SUFFIX}") if path.is_file()]
    indexed = {path: _shards(path) for path in folder.rglob(f"*{INDEX}")}
    shards = {shard for group in indexed.values() for shard in group}
    places = {path: (path,) for path in files if path not in shards} | indexed
    if not places:
        pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in PICKLES)
        if pickles:
            raise ValueError(
                f"{folder} holds no {SUFFIX} file but {len(pickles)} pickle file{'s' * (len(pickles) > 1)}, such as "
                f"{pickles[0]}, which can run code when read; {CONVERT}"
            )
        raise FileNotFoundError(f"no {SUFFIX} file under {folder}; give a folder, file or repository that holds some")
    return [
        Checkpoint(f"{label}/{path.relative_to(folder).as_posix()}", group, path if path in indexed else None)
        for path, group in sorted(places.items(), key=lambda item: natural(item[0].as_posix()))
    ]


def _shards(index: Path) -> tuple[Path, ...]:
    names = dict.fromkeys(_read_index(index).values())
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{index} names the shard {outside[0]!r}; shards must lie next to their index")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(f"{index} names {len(names)} shards, of which {missing[0]} is missing; get the shards again")
    return tuple(index.parent / name for name in names)


def _read_index(path: Path) -> dict[str, str]:
    try:
        shards: dict[str, str] = json.loads(path.read_bytes())["weight_map"]
        if not shards or not all(isinstance(name, str) for name in shards.values()):
            raise ValueError("weight_map names no files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not an index with a weight_map ({error!r}); get it again, or remove it") from error
    return shards


def _read_header(path: Path) -> dict[str, Entry]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is not a dictionary
            return {name: Entry(part.get_dtype(), tuple(part.get_shape()), path) for name, part in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); get it again, or remove it") from error


def _on_hub(repo: str, revision: str | None) -> list[Checkpoint]:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=f"*{SUFFIX}*"))
    except Exception as error:  # transport errors are classes of httpx or httpx2, depending on the version
        asked = f"{repo}@{revision}" if revision else repo
        raise FileNotFoundError(
            f"{asked} is neither a file or folder here nor a repository that the Hub gives ({error}); check the name, "
            "the revision and the network"
        ) from error
    commit = folder.name if _COMMIT.fullmatch(folder.name) else "main"
    name = f"{repo}@{revision or commit}"
    if not folder.is_dir() or not any(folder.rglob(f"*{SUFFIX}")):
        raise FileNotFoundError(f"{name} holds no {SUFFIX} file; if it holds .bin, .pt or .pth files, {CONVERT}")
    found = _in_folder(folder, name)
    return [found[0].renamed(name)] if len(found) == 1 else found
