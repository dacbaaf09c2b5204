"""Runs the stages of a recipe: a finished one is reused, an interrupted one resumed, a changed one refused."""

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from filelock import FileLock, Timeout

from dwp_init.storage import is_temporary, make_folder, remove, write_bytes, write_json
from training.engine.records import DONE, STAGE_CONFIG, check_outputs, outputs_digest, read_config, write_done
from training.engine.stage import Context, Stage, StageChangedError, stage_config

LOCK = ".lock"


def run_stages(stages: Mapping[str, Stage], context: Context, results: Path | None = None) -> dict[str, Path]:
    """Runs a recipe's stages in order and returns the folder of each.

    Args:
        stages: The stages by name.
        context: The context of the run.
        results: Where to copy the files that a stage leaves to be recorded, if anywhere: all of a finished stage that
            are as it left them. Of an interrupted one those that it wrote in this run, because a table may grow.

    Raises:
        StageChangedError: A folder holds a stage of the same name with other settings, or one that was made from
            others than the stages that are there now.
        ValueError: A file of a finished stage is not as the stage left it.
    """
    configs: dict[str, dict[str, Any]] = {}
    folders = {name: context.out / name for name in stages}
    for name, stage in stages.items():
        configs[name] = stage_config(name, stage, configs, context)
        _check_unchanged(folders[name], configs[name])
    for name, stage in stages.items():
        configs[name] = stage_config(name, stage, configs, context)  # an earlier stage may have replaced an input
        configs[name]["made_from"] = {need: outputs_digest(folders[need]) for need in stage.needs}
        _run_stage(name, stage, folders[name], configs[name], context, results)
    return folders


def publish_records(folder: Path, results: Path, known: Mapping[str, bytes] = MappingProxyType({})) -> list[Path]:
    """Copies the files that a stage left under ``record/`` to the results of record, replacing each in full.

    Args:
        folder: The folder of the stage.
        results: The folder of the results of record.
        known: Contents by name; files that still have theirs are left out.
    """
    make_folder(results)
    copied = []
    for name, content in _record(folder).items():
        if known.get(name) != content:
            write_bytes(results / name, content)
            copied.append(results / name)
    return copied


def _record(folder: Path) -> dict[str, bytes]:
    """Returns the contents of the files under ``record/``; a kill may have left hidden temporary ones."""
    return {path.name: path.read_bytes() for path in sorted((folder / "record").glob("[!.]*"))}


@contextmanager
def _published(folder: Path, results: Path | None) -> Iterator[None]:
    """Publishes the record of a stage after its run; after an interrupted run only what that run wrote."""
    known = _record(folder)
    try:
        yield
        known = {}
    finally:
        for path in publish_records(folder, results, known) if results else ():
            print(f"recorded {path}")


def _check_unchanged(folder: Path, config: dict[str, Any]) -> None:
    files = folder.iterdir() if folder.exists() else ()
    there = {file.name for file in files if not file.name.startswith(".")}  # the lock and temporary files are hidden
    if there <= {STAGE_CONFIG}:
        return  # nothing was made yet, for instance because a setting was refused
    if STAGE_CONFIG not in there:
        raise StageChangedError(
            f"{folder} holds {', '.join(sorted(there))} but no {STAGE_CONFIG}, so no stage made it; "
            "choose another --out, or remove that folder, if it was one of a run"
        )
    found = read_config(folder)
    if found.get("fingerprint") == config["fingerprint"]:
        _check_made_from(folder, found.get("made_from", {}), config.get("made_from", {}))
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


def _check_made_from(folder: Path, then: Mapping[str, str | None], now: Mapping[str, str | None]) -> None:
    """Raises ``StageChangedError`` if a stage that was needed has been made again since, with other files."""
    again = [need for need, digest in now.items() if None not in (digest, then.get(need)) and then[need] != digest]
    if again:
        raise StageChangedError(
            f"{folder} was made from files of {', '.join(again)} that are not those there now, because that was made "
            f"again since; remove {folder}, and it is made from those"
        )


def _run_stage(
    name: str, stage: Stage, folder: Path, config: dict[str, Any], context: Context, results: Path | None
) -> None:
    _check_unchanged(folder, config)
    if not _finished(folder, config):
        make_folder(folder)
        with locked(folder):
            _check_unchanged(folder, config)  # another process may have changed or finished it since the first check
            if not _finished(folder, config):
                print(f"{name}: running ({folder})", flush=True)
                _sweep(folder)
                remove(folder / DONE)  # there if the stage was done to a smaller extent
                write_json(folder / STAGE_CONFIG, config if _states_its_needs(folder) else _without_needs(config))
                with _published(folder, results):
                    _fill(stage, folder, context)
                return
    with _published(folder, results):
        check_outputs(folder)
        print(f"{name}: finished earlier, reused ({folder})", flush=True)


def _states_its_needs(folder: Path) -> bool:
    """Whether a folder is new, or what is in it was made since stages state the files that they were made from."""
    return not (folder / STAGE_CONFIG).exists() or "made_from" in read_config(folder)


def _without_needs(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "made_from"}


def _sweep(folder: Path) -> None:
    """Removes temporary files that a killed process left; whoever may write here holds the lock."""
    for path in folder.rglob(".*.tmp"):
        if is_temporary(path):
            remove(path)


def _finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a stage is done, to the extent that is asked for now, and from the inputs that are there now."""
    return (folder / DONE).exists() and read_config(folder).get("extent", {}) == config["extent"]


def _fill(stage: Stage, folder: Path, context: Context) -> None:
    start = time.perf_counter()
    summary = stage.run(folder, context)
    made_with = {
        "torch": torch.__version__,
        "device": str(context.device),
        "processor": _processor(context.device),
        **context.engine.describe(),
        "smoke": context.smoke,
        "seconds_of_last_run": round(time.perf_counter() - start, 1),
    }
    write_done(folder, summary | {"made_with": made_with})


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Keeps other processes out of a folder; the operating system frees the lock of a killed process.

    Args:
        folder: The folder, which holds the lock as a hidden file.
        seconds: How long to wait for another process.

    Raises:
        OSError: Another process is still at work.
    """
    lock = FileLock(folder / LOCK, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise OSError(f"another process is at work in {folder}; wait for it, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
