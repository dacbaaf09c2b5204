"""Harvesting kernels from existing checkpoints: labelled, split by checkpoint, ready for ``fit``."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from dwp_init.storage import tensor_bytes, write_bytes, write_json
from training.engine.options import check_counts
from training.engine.records import DONE
from training.kernels.checkpoints import find_checkpoints
from training.kernels.convolutions import ConvolutionTensor, LeftOut, read_convolutions
from training.kernels.kernelset import KERNELS, PARTS, KernelSet, norm_threshold, shuffled

_LABELS, REPORT = "labels", "harvest.json"
FEWEST = 10  # kernels of a kind and size, as a fit needs
_HELD_OUT = 0.1  # of the checkpoints for validation, and again for the test
BY_CHECKPOINT = "by checkpoint"


@dataclass(frozen=True)
class Settings:
    """What to harvest.

    Args:
        kind: One of :data:`dwp_init.convolutions.KINDS`; all by default.
        size: Height and width of the kernels; all by default.
        per_layer: Maximum number of kernels taken from each tensor, at random.
        min_norm: Kernels are dropped if their Euclidean norm is below this times the 95 % quantile of the norms in
            their tensor. :class:`training.kernels.collect.Kernels` has one threshold for all networks; here it depends
            on the tensor, because checkpoints differ in scale.
        raw_scale: Whether kernels keep their scale; otherwise those kept of a tensor are divided by their root mean
            square.
        seed: Seed of the choice in each tensor, and of the split.
    """

    kind: str | None = None
    size: int | None = None
    per_layer: int = 2000
    min_norm: float = 0.25
    raw_scale: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Harvest:
    """The summary of each folder that was written, by name, and what was left out."""

    folders: dict[str, dict[str, Any]]
    left_out: list[LeftOut]


@dataclass
class Group:
    """Kernels of one kind and size, tensor by tensor."""

    kernels: list[Tensor] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.kernels))

    @property
    def checkpoints(self) -> list[str]:
        return list(dict.fromkeys(tensor["checkpoint"] for tensor in self.tensors))


def harvest(sources: list[str], out: Path, settings: Settings) -> Harvest:
    """Writes a folder ``<kind>-<k>x<k>`` for each kind and size, in the form of a finished kernels stage.

    ``kernels.safetensors`` holds the kernels in their parts. ``labels.safetensors`` has ``<part>.checkpoint`` and
    ``<part>.tensor``, which are positions in the lists of ``labels.json``, and ``<part>.depth``, all ``(n,)``.
    ``harvest.json``, next to the folders, lists the checkpoints and what was left out, of every harvest into ``out``.

    Args:
        sources: As for :func:`training.kernels.checkpoints.find_checkpoints`.
        out: Folder in which to write.
        settings: What to harvest.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: A file is broken, no kernels are left, or a folder holds those of another harvest.
    """
    check_counts(per_layer=settings.per_layer)
    if not 0 <= settings.min_norm < 1:
        raise ValueError(f"min_norm, a fraction of the 95 % quantile of norms, lies in [0, 1); got {settings.min_norm}")
    checkpoints = find_checkpoints(sources)
    entries = [checkpoint.entries() for checkpoint in checkpoints]  # of all first, so that a broken file shows at once
    groups: dict[str, Group] = {}
    left_out: list[LeftOut] = []
    names: list[str] = []
    seen: dict[str, str] = {}
    for checkpoint, found in zip(tqdm(checkpoints, desc="harvest", unit="checkpoint"), entries, strict=True):
        if set(PARTS) <= set(found):
            left_out.append(LeftOut(checkpoint.name, "", "a kernel data set, not a checkpoint", ""))
            continue
        layers, others = read_convolutions(checkpoint, found)
        left_out += others
        if not layers:
            left_out.append(LeftOut(checkpoint.name, "", "a checkpoint without a spatial convolution to take", ""))
        elif twin := _find_twin(checkpoint.name, [weight for _, weight in layers], seen):
            left_out.append(LeftOut(checkpoint.name, "", "a copy of another checkpoint", twin))
        else:
            names.append(checkpoint.name)
            for layer, weight in layers:
                _add(groups.setdefault(layer.group, Group()), layer, weight, settings)
    chosen = _choose(groups, settings, left_out)
    rank = {names[i]: place for place, i in enumerate(shuffled(len(names), settings.seed).tolist())}
    folders = _write(out, {name: _pack(group, rank, settings) for name, group in sorted(chosen.items())})
    _write_report(out / REPORT, names, [asdict(item) for item in left_out])
    return Harvest(folders, left_out)


def _write_report(path: Path, names: list[str], left_out: list[dict[str, str]]) -> None:
    """Writes the report, added to that of earlier harvests into the same folder."""
    before = json.loads(path.read_bytes()) if path.exists() else {"checkpoints": [], "left_out": []}
    checkpoints = list(dict.fromkeys(before["checkpoints"] + names))
    more = [item for item in left_out if item not in before["left_out"]]
    write_json(path, {"checkpoints": checkpoints, "left_out": before["left_out"] + more})


def _find_twin(name: str, weights: list[Tensor], seen: dict[str, str]) -> str | None:
    """Returns the earlier checkpoint with the same weights, perhaps in half precision; if none, remembers these."""
    digests = []
    for dtype in (torch.float16, torch.bfloat16):
        parts = sorted(hashlib.sha256(tensor_bytes(weight.to(dtype))).hexdigest() for weight in weights)
        digests.append(f"{dtype} {hashlib.sha256(''.join(parts).encode()).hexdigest()}")
    twin = next((seen[digest] for digest in digests if digest in seen), None)
    if twin is None:
        seen.update(dict.fromkeys(digests, name))
    return twin


def _add(group: Group, layer: ConvolutionTensor, weight: Tensor, settings: Settings) -> None:
    kernels = layer.cut(weight)
    norms = kernels.double().flatten(1).norm(dim=1)
    kept = kernels[(norms >= norm_threshold(norms, settings.min_norm)) & (norms > 0)]
    rms = kept.double().square().mean().sqrt()
    seed = int(hashlib.sha256(f"{settings.seed} {layer.checkpoint} {layer.name}".encode()).hexdigest()[:15], 16)
    taken = kept[shuffled(len(kept), seed)[: settings.per_layer].sort().values]
    group.kernels.append(taken.clone() if settings.raw_scale else (taken / rms).float())
    group.tensors.append(
        {
            "checkpoint": layer.checkpoint,
            "tensor": layer.name,
            "kind": layer.kind,
            "depth": round(layer.depth, 6),
            "shape": list(layer.entry.shape),
            "dtype": layer.entry.dtype,
            "rms": float(f"{rms.item():.6g}"),
            "kernels": len(taken),
            "kept": len(kept),
            "of": len(kernels),
        }
    )


def _choose(groups: dict[str, Group], settings: Settings, left_out: list[LeftOut]) -> dict[str, Group]:
    chosen = {}
    for name, group in groups.items():
        first = group.tensors[0]
        if settings.kind in (None, first["kind"]) and settings.size in (None, first["shape"][-1]):
            if len(group) >= FEWEST:
                chosen[name] = group
                continue
            for tensor in group.tensors:
                reason = f"fewer than {FEWEST} kernels of their kind and size"
                left_out.append(LeftOut(tensor["checkpoint"], tensor["tensor"], reason, name))
    if not chosen:
        size = "" if settings.size is None else f"{settings.size}×{settings.size} "
        kind = "" if settings.kind is None else f"{settings.kind} "
        there = ", ".join(f"{name} ({len(group)})" for name, group in sorted(groups.items())) or "none at all"
        why = ", ".join(dict.fromkeys(item.reason for item in left_out))
        raise ValueError(
            f"no {FEWEST} {size}{kind}kernels to take; there are {there}"
            + (f"; what was left out: {why}" if why else "")
            + "; give another --from, --kind or --size"
        )
    return chosen


def _split(group: Group, rank: dict[str, int], settings: Settings) -> tuple[list[Tensor], str]:
    """Returns the positions of the kernels of each part, and how they were split."""
    names = group.checkpoints
    order = sorted(range(len(names)), key=lambda place: rank[names[place]])
    if len(order) < 3:
        why = f"{len(order)} checkpoint{'s' * (len(order) > 1)} cannot be split in three"
    else:
        held_out = max(round(_HELD_OUT * len(order)), 1)
        first = len(order) - 2 * held_out
        by_part = (order[:first], order[first : first + held_out], order[first + held_out :])
        checkpoint = _labels(group)["checkpoint"]
        picked = [torch.isin(checkpoint, torch.tensor(part)).nonzero()[:, 0] for part in by_part]
        if min(map(len, picked)) >= 2:
            return picked, BY_CHECKPOINT
        why = "split by checkpoint, a part would have fewer than 2"
    held_out = max(int(_HELD_OUT * len(group)), 2)
    parts = shuffled(len(group), settings.seed).tensor_split([len(group) - 2 * held_out, len(group) - held_out])
    return list(parts), f"by kernel, at random: {why}"


def _labels(group: Group) -> dict[str, Tensor]:
    """Returns each kernel's checkpoint and tensor, as positions in their lists, and its depth."""
    names = {name: i for i, name in enumerate(group.checkpoints)}
    each = {
        "checkpoint": torch.tensor([names[tensor["checkpoint"]] for tensor in group.tensors], dtype=torch.int32),
        "tensor": torch.arange(len(group.tensors), dtype=torch.int32),
        "depth": torch.tensor([tensor["depth"] for tensor in group.tensors]),
    }
    counts = torch.tensor([len(kernels) for kernels in group.kernels])
    return {name: values.repeat_interleave(counts) for name, values in each.items()}


def _pack(group: Group, rank: dict[str, int], settings: Settings) -> dict[str, Any]:
    """Returns the contents of the files of a folder, by name."""
    picked, split = _split(group, rank, settings)
    labels, kernels = _labels(group), torch.cat(group.kernels)
    parts = {
        part: {name: values[rows] for name, values in labels.items()} for part, rows in zip(PARTS, picked, strict=True)
    }
    held_out = {part: [group.checkpoints[i] for i in parts[part]["checkpoint"].unique().tolist()] for part in PARTS[1:]}
    train, validation, test = (kernels[rows] for rows in picked)
    kernel_set = KernelSet(train, validation, test, parts["test"]["checkpoint"].long())
    kept, of = (sum(tensor[key] for tensor in group.tensors) for key in ("kept", "of"))
    source = {
        "checkpoints": group.checkpoints,
        "kind": group.tensors[0]["kind"],
        "size": group.tensors[0]["shape"][-1],
        "tensors": len(group.tensors),
        "split": split,
        **({"held_out_checkpoints": held_out} if split == BY_CHECKPOINT else {}),
        "scale": "as in the checkpoints" if settings.raw_scale else "a tensor's kernels have a root mean square of 1",
        **{key: getattr(settings, key) for key in ("min_norm", "per_layer", "seed")},
    }
    return {
        KERNELS: kernel_set.packed(),
        f"{_LABELS}.safetensors": save(
            {f"{part}.{name}": values for part in PARTS for name, values in parts[part].items()}
        ),
        f"{_LABELS}.json": {"checkpoints": group.checkpoints, "tensors": group.tensors},
        DONE: {
            "kernels": kernel_set.counts(),
            "kept": round(kept / of, 4),
            "source": source,
            "made_with": {"torch": torch.__version__},
        },
    }


def _write(out: Path, folders: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Writes all files, the summary of a folder last; none if a folder holds another harvest."""
    for name, files in folders.items():
        path = out / name / KERNELS
        if path.exists() and (out / name / DONE).exists() and path.read_bytes() != files[KERNELS]:
            raise ValueError(f"{path} holds other kernels; choose another --out, or remove {out / name}")
    for name, files in folders.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write = write_bytes if isinstance(content, bytes) else write_json
            write(out / name / file, content)
    return {name: files[DONE] for name, files in folders.items()}
