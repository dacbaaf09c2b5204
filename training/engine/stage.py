"""Stages: the steps of a recipe, each a frozen dataclass that fills one folder, and their identity."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from training.engine.records import STAGE_CONFIG, read_config
from training.engine.workers import ONE_PROCESS, Engine
from training.images.sets import Images, load_images

FIXED = {"fixed": True}  # metadata of a field that the command line cannot override
ADDED = {"fixed": True, "added": True}  # of a fixed one that came later: folders from before have its default
INFORMS = {"fixed": True, "informs": True}  # of a fixed one that only says where another one's contents are
GROWS = {"grows": True}  # of one that says how much is done: with more of it, what is done stays and the rest is added


@dataclass
class Context:
    """How and where stages run. None of it is part of a stage's identity, except ``smoke``.

    Args:
        out: The folder that holds one folder per stage.
        data_root: The folder with the data sets.
        download: Whether a missing data set may be fetched.
        device: The device to compute on.
        engine: Where independent trainings run.
        smoke: Whether data sets are replaced by synthetic ones of the same shape.
        from_record: Whether runs of the results of record count as done, where a stage keeps them there.
    """

    out: Path
    data_root: Path = Path("data")
    download: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    engine: Engine = ONE_PROCESS
    smoke: bool = False
    from_record: bool = False
    _images: dict[tuple[str, str], Images] = field(default_factory=dict, init=False, repr=False, compare=False)

    def images(self, name: str, split: str) -> Images:
        """Returns a data set by name, loaded once; with ``smoke`` its synthetic replacement."""
        if (name, split) not in self._images:
            self._images[name, split] = load_images(
                name, split, root=self.data_root, download=self.download, synthetic=self.smoke
            )
        return self._images[name, split]


@dataclass(frozen=True)
class Stage:
    """One step of a recipe; subclasses add their settings as fields and override :meth:`run`.

    Args:
        needs: Names of the earlier stages whose folders this one reads.
    """

    keeps_runs: ClassVar[bool] = False
    """Whether its runs are kept in the results of record, from which it can resume, see ``training.engine.ledger``."""

    edition: ClassVar[int] = 1
    """A number that grows where a change of code changes what the runs find, so that those on record do not count."""

    needs: tuple[str, ...] = ()

    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets that the stage reads; their digests become part of its identity."""
        return ()

    def other_inputs(self) -> dict[str, Any]:
        """Digests of everything else that the stage reads, by name; also part of its identity."""
        return {}

    def replaceable_inputs(self, context: Context) -> dict[str, Any]:
        """Digests of what parts of the result depend on: where one changes, a finished stage makes that part again."""
        return {}

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        """Fills ``folder``; returns the summary that is kept in ``done.json``."""
        raise NotImplementedError


class StageChangedError(RuntimeError):
    """The folder of a stage was made with settings other than the current ones."""


def stage_config(name: str, stage: Stage, earlier: Mapping[str, dict[str, Any]], context: Context) -> dict[str, Any]:
    """Returns everything that a stage's result depends on, with a fingerprint of it.

    Fields that grow, and inputs that may be replaced, are apart, in ``extent``, and do not enter the fingerprint. A
    folder that differs in nothing but fields that inform is not another one, and keeps them and its fingerprint.

    Args:
        name: Name of the stage in its recipe.
        stage: The stage.
        earlier: Configurations of the recipe's earlier stages, by name.
        context: The context of the run.

    Raises:
        ValueError: The stage needs one that is not among ``earlier``, or one that grows.
    """
    missing = [need for need in stage.needs if need not in earlier]
    if missing:
        raise ValueError(f"stage {name!r} needs {', '.join(missing)}, which no earlier stage of the recipe makes")
    growing = [need for need in stage.needs if earlier[need]["extent"]]
    if growing:
        raise ValueError(
            f"stage {name!r} needs {', '.join(growing)}, which can grow; read its results of record instead"
        )
    data = {
        data: {split: context.images(data, split).description for split in ("train", "test")}
        for data in stage.data_sets()
    }
    fields = dataclasses.asdict(stage)
    for each in dataclasses.fields(stage):
        if each.metadata == ADDED and fields[each.name] == each.default:
            del fields[each.name]
    extent = {field.name: fields.pop(field.name) for field in dataclasses.fields(stage) if field.metadata == GROWS}
    extent |= stage.replaceable_inputs(context)
    config = {
        "stage": type(stage).__name__,
        "settings": fields,
        "needs": {need: earlier[need]["fingerprint"] for need in stage.needs},
        "data": data | stage.other_inputs() | ({"smoke": True} if context.smoke else {}),
    }
    plain = _as_recorded(_plain(config), stage, context.out / name)
    return plain | {"fingerprint": _fingerprint(plain), "extent": _plain(extent)}


def _as_recorded(config: dict[str, Any], stage: Stage, folder: Path) -> dict[str, Any]:
    """Returns a configuration with the fields that inform as its folder has them, if that is of the same stage."""
    informing = {field.name for field in dataclasses.fields(stage) if field.metadata == INFORMS}
    if not informing or not (folder / STAGE_CONFIG).exists():
        return config
    found = read_config(folder)
    settings = found.get("settings")
    kept = {key: settings[key] for key in informing & settings.keys()} if isinstance(settings, dict) else {}
    recorded = config | {"settings": config["settings"] | kept}
    return recorded if _fingerprint(recorded) == found.get("fingerprint") else config


def _fingerprint(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Returns a value as it is read back from JSON."""
    return json.loads(json.dumps(value))
