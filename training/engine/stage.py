"""Stages: the steps of a recipe, each a frozen dataclass that fills one folder.

A finished stage is reused, an interrupted one resumed, and one whose settings changed is refused: never mixed.
"""

import dataclasses
import fcntl
import hashlib
import io
import json
import platform
import time
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dwp_init.files import write_bytes, write_json
from training.images.sets import Images, load_images

CONFIG, METRICS, DONE, LOCK = "config.json", "metrics.jsonl", "done.json", ".lock"


FIXED = {"fixed": True}  # metadata of a field that the command line cannot override


@dataclass
class Context:
    """What a run has at hand, and what therefore is no part of a stage's identity.

    Args:
        out: The folder that holds one folder per stage.
        data_root: Where the data sets lie.
        download: Whether a missing data set may be fetched.
        device: The device to compute on.
        workers: Processes that train networks side by side.
        smoke: Whether data sets are replaced by synthetic ones of the same shape.
    """

    out: Path
    data_root: Path = Path("data")
    download: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 1
    smoke: bool = False
    _images: dict[tuple[str, str], Images] = field(default_factory=dict, init=False, repr=False, compare=False)

    def images(self, name: str, split: str) -> Images:
        """Loads a data set by name once, or its synthetic stand-in under ``--smoke``."""
        if (name, split) not in self._images:
            options = {"root": self.data_root, "download": self.download, "synthetic": self.smoke}
            self._images[name, split] = load_images(name, split, **options)
        return self._images[name, split]


@dataclass(frozen=True)
class Stage:
    """One step of a recipe; subclasses add their settings as fields and override :meth:`run`."""

    needs: tuple[str, ...] = ()

    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets that the stage reads; their digests become part of its identity."""
        return ()

    def other_inputs(self) -> dict[str, Any]:
        """Digests of whatever else the stage reads, by name; part of its identity too."""
        return {}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Fills ``folder``; returns the summary that is kept in ``done.json``."""
        raise NotImplementedError


class StageChangedError(RuntimeError):
    """A stage's folder was made with other settings than those asked for now."""


def run_stages(stages: Mapping[str, Stage], context: Context) -> dict[str, Path]:
    """Runs a recipe's stages in order and returns the folder of each.

    Raises:
        StageChangedError: A folder holds a stage of the same name with other settings.
    """
    configs: dict[str, dict[str, Any]] = {}
    folders = {name: context.out / name for name in stages}
    for name, stage in stages.items():
        configs[name] = _config(name, stage, configs, context)
        _check_unchanged(folders[name], configs[name])
    for name, stage in stages.items():
        _run_stage(name, stage, folders[name], configs[name], context)
    return folders


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a state to resume from, on the CPU.

    Raises:
        ValueError: The file is broken.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no whole checkpoint; remove it to start that part again") from error


def record_metrics(folder: Path, **metrics: Any) -> None:
    """Appends one line to the stage's ``metrics.jsonl``."""
    path = folder / METRICS
    cut_short = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * cut_short + json.dumps(metrics) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the lines of ``metrics.jsonl``; a last line cut short by a kill is left out."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def check_counts(**counts: int) -> None:
    """Raises ``ValueError`` where one of a stage's counts, such as ``epochs``, is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be 1 or more; got {count}")


def check_marks(marks: Sequence[int], name: str = "marks") -> None:
    """Raises ``ValueError`` unless they are steps from 1 up, each once and in order."""
    if not marks or marks[0] < 1 or list(marks) != sorted(set(marks)):
        raise ValueError(f"{name} must be steps from 1 up, each once and in order; got {tuple(marks)}")


def read_config(folder: Path) -> dict[str, Any]:
    """Reads what a stage was made from: its settings, and the digests of its data."""
    return json.loads((folder / CONFIG).read_text())


def read_done(folder: Path) -> dict[str, Any]:
    """Reads the summary of a finished stage."""
    return json.loads((folder / DONE).read_text())


def override(stages: Mapping[str, Stage], settings: list[str]) -> dict[str, Stage]:
    """Applies ``stage.field=value`` settings to a recipe's stages.

    Raises:
        ValueError: The form, the stage, the field or the value's type is wrong; the message lists what there is.
    """
    changed = dict(stages)
    for setting in settings:
        path, _, text = setting.partition("=")
        name, _, key = path.partition(".")
        if not (key and text):
            raise ValueError(f"a setting reads stage.field=value, such as sources.networks=8; got {setting!r}")
        if name not in changed:
            raise ValueError(f"no stage {name!r} in this recipe; it has {', '.join(changed)}")
        hints = typing.get_type_hints(type(changed[name]))
        names = [f.name for f in dataclasses.fields(changed[name]) if f.name != "needs" and not f.metadata]
        if key not in names:
            raise ValueError(f"stage {name!r} has no field {key!r}; its fields are {', '.join(names)}")
        changed[name] = dataclasses.replace(changed[name], **{key: _parse(text, hints[key], setting)})
    return changed


def _parse(text: str, kind: Any, setting: str) -> Any:
    try:
        return _convert(text, kind)
    except (ValueError, KeyError) as error:
        shown = str(kind) if typing.get_origin(kind) else kind.__name__
        raise ValueError(f"{setting!r}: {text!r} is not of type {shown}") from error


def _convert(text: str, kind: Any) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        inner = next(option for option in options if option is not types.NoneType)
        return None if text == "none" else _convert(text, inner)
    if origin is tuple:
        words = text.strip("[]()").split(",")
        kinds = [options[0]] * len(words) if options[-1] is Ellipsis else options
        return tuple(_convert(word.strip(), inner) for word, inner in zip(words, kinds, strict=True))
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    return kind(text)


def _config(name: str, stage: Stage, done: Mapping[str, dict[str, Any]], context: Context) -> dict[str, Any]:
    missing = [need for need in stage.needs if need not in done]
    if missing:
        raise ValueError(f"stage {name!r} needs {', '.join(missing)}, which no earlier stage of the recipe makes")
    config = {
        "stage": type(stage).__name__,
        "settings": dataclasses.asdict(stage),
        "needs": {need: done[need]["fingerprint"] for need in stage.needs},
        "data": {data: _describe(data, context) for data in stage.data_sets()} | stage.other_inputs(),
    }
    if context.smoke:
        config["data"]["smoke"] = True
    config = json.loads(json.dumps(config))
    text = json.dumps(config, sort_keys=True)
    return config | {"fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def _describe(data: str, context: Context) -> dict[str, Any]:
    return {split: context.images(data, split).description for split in ("train", "test")}


def _check_unchanged(folder: Path, config: dict[str, Any]) -> None:
    there = {file.name for file in folder.iterdir()} - {LOCK} if folder.exists() else set()
    if there <= {CONFIG}:
        return  # nothing was made yet, for instance because a setting was refused
    if CONFIG not in there:
        raise StageChangedError(
            f"{folder} holds {', '.join(sorted(there))} but no {CONFIG}, so no stage made it; choose another --out"
        )
    found = json.loads((folder / CONFIG).read_text())
    if found.get("fingerprint") == config["fingerprint"]:
        return
    parts = [
        f"{part}.{key} is {found.get(part, {}).get(key)!r} there, {config[part].get(key)!r} now"
        for part in ("settings", "needs", "data")
        for key in sorted(set(found.get(part, {})) | set(config[part]))
        if found.get(part, {}).get(key) != config[part].get(key)
    ] or ["it is of another kind"]
    raise StageChangedError(
        f"{folder} was made with other settings: {'; '.join(parts)}. Choose another --out, or remove that folder"
    )


def _run_stage(name: str, stage: Stage, folder: Path, config: dict[str, Any], context: Context) -> None:
    if (folder / DONE).exists():
        print(f"{name}: finished earlier, reused ({folder})", flush=True)
        return
    print(f"{name}: running ({folder})", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_unchanged(folder, config)  # another process may have been here since the first look
        write_json(folder / CONFIG, config)
        _fill(stage, folder, context)


def _fill(stage: Stage, folder: Path, context: Context) -> None:
    start = time.perf_counter()
    summary = stage.run(folder, context)
    made_with = {
        "torch": torch.__version__,
        "device": str(context.device),
        "processor": _processor(context.device),
        "workers": context.workers,
        "smoke": context.smoke,
        "seconds_of_last_run": round(time.perf_counter() - start, 1),
    }
    write_json(folder / DONE, summary | {"made_with": made_with})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of a stage's folder; the lock goes with the process, however it ends."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"another process is at work in {folder}; wait for it, or choose another --out") from error
        yield


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves a state to resume from, whole or not at all."""
    packed = io.BytesIO()
    torch.save(state, packed)
    write_bytes(path, packed.getvalue())


def publish_records(folder: Path, results: Path) -> list[Path]:
    """Copies what a stage left under ``record/`` to the results of record, each file replaced whole."""
    results.mkdir(parents=True, exist_ok=True)
    copied = []
    for source in sorted((folder / "record").glob("*")):
        write_bytes(results / source.name, source.read_bytes())
        copied.append(results / source.name)
    return copied
