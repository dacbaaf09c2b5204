"""Harvesting kernels from existing checkpoints: labelled, split by family, ready for ``fit``."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from dwp_init.storage import make_folder, remove, write_bytes, write_json
from dwp_init.text import few
from training.engine.options import check_counts
from training.engine.records import DONE, write_done
from training.engine.run import locked
from training.kernels.checkpoints import Checkpoint
from training.kernels.convolutions import ConvolutionTensor, LeftOut, read_convolutions
from training.kernels.copies import SharedLayers
from training.kernels.formats.base import Entry
from training.kernels.groups import Group, Settings
from training.kernels.kernelset import KERNELS, LABELS, PARTS, KernelSet, shuffled
from training.kernels.manifest import Origin
from training.kernels.places import find_checkpoints

REPORT = "harvest.json"
Origins: TypeAlias = dict[str, dict[str, str]]  # what manifests say, by name of the checkpoint
ANOTHER_FORMAT = "of another format than a file next to it; give its own name to read it"
_WAIT = 60.0  # seconds for another harvest that writes into the same folder
FEWEST = 10  # kernels of a kind and size, as a fit needs


@dataclass(frozen=True)
class Harvest:
    """The summary of each folder that was written, by name, what was left out, and families that are part of others."""

    folders: dict[str, dict[str, Any]]
    left_out: list[LeftOut]
    joined: dict[str, str]


def harvest(sources: list[str], out: Path, settings: Settings, data_root: Path | None = None) -> Harvest:
    """Writes a folder for each kind and size, such as ``dense-3x3``, in the form of a finished kernels stage.

    Checkpoints of one family are of the same part, because fine-tuned siblings have nearly the same kernels. A layer
    that several checkpoints share, such as a frozen one, is taken once, and their families are then one family.

    ``kernels.safetensors`` holds the kernels in their parts. ``labels.safetensors`` has ``<part>.checkpoint`` and
    ``<part>.tensor``, which are positions in the lists of ``labels.json``, and ``<part>.depth``, all ``(n,)``.
    ``harvest.json``, next to the folders, lists the checkpoints and what was left out, of every harvest into ``out``.
    What a manifest says of checkpoints stands in all three JSON files, under ``origins``. Stems of BGR become RGB.

    Args:
        sources: As for :func:`training.kernels.places.find_checkpoints`.
        out: Folder in which to write.
        settings: What to harvest.
        data_root: As for :func:`training.kernels.places.find_checkpoints`.

    Raises:
        FileNotFoundError: A source does not exist.
        OSError: Another process writes into ``out`` all the time.
        ValueError: A file is broken, no kernels are left, or a folder holds those of another harvest.
    """
    check_counts(per_layer=settings.per_layer)
    if settings.min_norm is not None and not 0 <= settings.min_norm < 1:
        raise ValueError(f"min_norm, a fraction of the 95 % quantile of norms, lies in [0, 1); got {settings.min_norm}")
    checkpoints = find_checkpoints(sources, data_root)
    entries = [checkpoint.entries() for checkpoint in checkpoints]  # of all first, so that a broken file shows at once
    taken = _Taken({}, {}, SharedLayers(), [])
    for checkpoint, found in zip(tqdm(checkpoints, desc="harvest", unit="checkpoint"), entries, strict=True):
        taken.add(checkpoint, found, settings)
    groups, families, left_out = taken.groups, taken.families, taken.left_out
    _check_patterns(settings, groups)
    names = taken.seen.families(families.values(), settings.tests)
    for group in groups.values():
        group.rename(names)
    chosen = _choose(groups, settings, left_out)
    each = list(dict.fromkeys(names.values()))
    rank = {each[i]: place for place, i in enumerate(shuffled(len(each), settings.seed).tolist())}
    origins = {each.name: each.origin.recorded() for each in checkpoints if each.origin and each.name in families}
    packed = {name: _pack(group, rank, settings, origins) for name, group in sorted(chosen.items())}
    make_folder(out)
    with locked(out, _WAIT):
        before = _read_report(out / REPORT)
        folders = _write(out, packed)
        _write_report(out / REPORT, before, list(families), origins, [asdict(item) for item in left_out])
    return Harvest(folders, left_out, {family: name for family, name in names.items() if family != name})


@dataclass(frozen=True)
class _Taken:
    """What was taken of the checkpoints so far: kernels, the family of each checkpoint, and what was left out."""

    groups: dict[str, Group]
    families: dict[str, str]
    seen: SharedLayers
    left_out: list[LeftOut]

    def add(self, checkpoint: Checkpoint, entries: dict[str, Entry], settings: Settings) -> None:
        """Takes the layers of a checkpoint that no earlier one has."""
        name = checkpoint.name
        self.left_out.extend(LeftOut(file, "", ANOTHER_FORMAT, name) for file in checkpoint.unread)
        if set(PARTS) <= set(entries):
            self.left_out.append(LeftOut(name, "", "a kernel data set, not a checkpoint", ""))
            return
        layers, others = read_convolutions(checkpoint, entries, settings.transposed)
        self.left_out.extend(others)
        shared = self.seen.find(layers, checkpoint.family)
        if not layers:
            self.left_out.append(LeftOut(name, "", "a checkpoint without a spatial convolution to take", ""))
        elif len(shared) == len(layers):
            firsts = ", ".join(dict.fromkeys(first.checkpoint for first in shared.values()))
            self.left_out.append(LeftOut(name, "", "a copy of another checkpoint", firsts))
        else:
            self.families[name] = checkpoint.family
            self.left_out.extend(
                LeftOut(name, layer.name, "a layer of another checkpoint too", f"{first.name} of {first.checkpoint}")
                for layer, first in shared.items()
            )
            for layer, weight in layers:
                if layer not in shared:
                    rgb = _as_rgb(layer, weight, checkpoint.origin)
                    self.groups.setdefault(layer.group, Group(settings)).add(layer, rgb, checkpoint.family)


def _check_patterns(settings: Settings, groups: dict[str, Group]) -> None:
    """Raises ``ValueError`` where a pattern matches no name."""
    tensors = [tensor for group in groups.values() for tensor in group.tensors]
    for option, patterns, key in (("transposed", settings.transposed, "tensor"), ("test", settings.test, "family")):
        names = list(dict.fromkeys(tensor[key] for tensor in tensors))
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"--{option} {pattern!r} matches no {key}; there are {few(names)}: mend the pattern, or drop it"
                )


def _as_rgb(layer: ConvolutionTensor, weight: Tensor, origin: Origin | None) -> Tensor:
    """Returns a weight whose input channels, if they are the colours of an image, are red, green and blue."""
    reversed_ = origin is not None and origin.channels == "BGR"
    return weight.flip(1) if reversed_ and layer.kind == "stem" and weight.shape[1] == 3 else weight


def _read_report(path: Path) -> dict[str, Any]:
    """Reads the report of earlier harvests into the same folder; raises ``ValueError`` if it is damaged."""
    report: dict[str, Any] = {"checkpoints": [], "origins": {}, "left_out": []}
    if not path.exists():
        return report
    with suppress(ValueError, RecursionError):
        found: object = json.loads(path.read_bytes())
        if isinstance(found, dict):
            report |= cast(dict[str, Any], found)
            if [type(report[key]) for key in ("checkpoints", "origins", "left_out")] == [list, dict, list]:
                return report
    raise ValueError(f"{path} is damaged; restore it, or remove it to list the harvests from now on alone")


def _write_report(
    path: Path, before: dict[str, Any], names: list[str], origins: Origins, left_out: list[dict[str, str]]
) -> None:
    """Writes the report, added to that of earlier harvests into the same folder."""
    checkpoints = list(dict.fromkeys(before["checkpoints"] + names))
    known = {json.dumps(item, sort_keys=True) for item in before["left_out"]}
    more = [item for item in left_out if json.dumps(item, sort_keys=True) not in known]
    report = {"checkpoints": checkpoints, "origins": before["origins"] | origins, "left_out": before["left_out"] + more}
    write_json(path, report)


def _choose(groups: dict[str, Group], settings: Settings, left_out: list[LeftOut]) -> dict[str, Group]:
    chosen = {}
    for name, group in groups.items():
        if not settings.takes(group.kind, group.size):
            continue
        few = f"fewer than {FEWEST} kernels of their kind and size" if len(group) < FEWEST else ""
        if not (reason := few or group.why_no_split()):
            chosen[name] = group
            continue
        left_out += [LeftOut(tensor["checkpoint"], tensor["tensor"], reason, name) for tensor in group.tensors]
    if not chosen:
        size = "" if settings.size is None else f"{'×'.join(map(str, settings.size))} "
        kind = "" if settings.kind is None else f"{settings.kind} "
        there = ", ".join(f"{name} ({len(group)})" for name, group in sorted(groups.items())) or "none at all"
        why = ", ".join(dict.fromkeys(item.reason for item in left_out))
        raise ValueError(
            f"there are fewer than {FEWEST} {size}{kind}kernels to take; there are {there}"
            + (f"; what was left out: {why}" if why else "")
            + f"; give another --from, --kind or --size{', or other families to --test' if settings.test else ''}"
        )
    return chosen


def _pack(group: Group, rank: dict[str, int], settings: Settings, origins: Origins) -> dict[str, Any]:
    """Returns the contents of the files of a folder, by name."""
    origins = {name: origins[name] for name in group.families if name in origins}
    trained_on = [origins.get(name, {}).get("trained_on") for name in group.families]
    picked, split = group.split(rank)
    labels, kernels = group.labels(), torch.cat(group.kernels)
    parts = {
        part: {name: values[rows] for name, values in labels.items()} for part, rows in zip(PARTS, picked, strict=True)
    }
    held_out = {part: group.families_of(rows) for part, rows in zip(PARTS, picked, strict=True)}
    shared = set(held_out.pop("train"))
    held_out = {part: families for part, families in held_out.items() if not shared & set(families)}
    train, validation, test = (kernels[rows] for rows in picked)
    kernel_set = KernelSet(train, validation, test, parts["test"]["checkpoint"].long())
    kept, of = (sum(tensor[key] for tensor in group.tensors) for key in ("kept", "of"))
    source = {
        "checkpoints": list(group.families),
        **({"origins": origins} if origins else {}),
        **({"dataset": "; ".join(sorted(set(filter(None, trained_on))))} if all(trained_on) else {}),
        "kind": group.kind,
        "size": list(group.size),
        "tensors": len(group.tensors),
        "split": split,
        **({"joined_families": group.joined} if group.joined else {}),
        **({"held_out_families": held_out} if held_out else {}),
        "scale": "as in the checkpoints" if settings.raw_scale else "a tensor's kernels have a root mean square of 1",
        "min_norm": settings.threshold(group.kind),
        **{key: getattr(settings, key) for key in ("per_layer", "seed")},
    }
    return {
        KERNELS: kernel_set.packed(),
        LABELS: save({f"{part}.{name}": values for part in PARTS for name, values in parts[part].items()}),
        "labels.json": {"checkpoints": list(group.families), "origins": origins, "tensors": group.tensors},
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
        make_folder(out / name)
        remove(out / name / DONE)
        for file, content in files.items():
            if file != DONE:
                write = write_bytes if isinstance(content, bytes) else write_json
                write(out / name / file, content)
        write_done(out / name, files[DONE])
    return {name: files[DONE] for name, files in folders.items()}
