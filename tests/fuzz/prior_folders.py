"""Folders of priors: damaged, or changed by somebody who also changes the digests."""

import inspect
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import load

from dwp_init import Prior, load_prior, save_prior
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL, read_files
from dwp_init.storage import safetensors_bytes, sealed_json
from tests.fuzz.mutations import ODD, changed_json, changed_tensors, one_damaged
from tests.fuzz.target import Differs, Outcome, Target
from tests.priors.families import PRIORS, fitted

KINDS = tuple(kind for kind in PRIORS if not kind.startswith("paper"))
_OWN = ("library_name", "format_version", "config_sha256", "model_sha256", "family", "kernel_shape", "arguments")
Files = Mapping[str, bytes | None]
Case = tuple[str, Files]


@cache
def saved(kind: str) -> dict[str, bytes]:
    """The two files of a small prior of a kind."""
    torch.manual_seed(0)
    prior = fitted(PRIORS[kind]()).eval()
    prior.details = {"name": "small", "source": {"networks": 8, "data": ["a", None]}, "metrics": {"log_prob": 1.5}}
    with tempfile.TemporaryDirectory() as scratch:
        return read_files(save_prior(prior, Path(scratch) / "prior"))


@cache
def undamaged(kind: str) -> Prior:
    """The prior that the undamaged files give."""
    return parse_prior(saved(kind), "here")


def same_values(prior: Prior, other: Mapping[str, torch.Tensor]) -> bool:
    found = prior.state_dict()
    return found.keys() == other.keys() and all(torch.equal(found[name], other[name]) for name in found)


def write(files: Files, folder: Path) -> Path:
    """Writes files into a folder of their own."""
    (folder / "prior").mkdir()
    for name, content in files.items():
        if content is not None:
            (folder / "prior" / name).write_bytes(content)
    return folder / "prior"


def load_damaged(case: Case, folder: Path) -> Outcome:
    """Loads a folder whose writer was honest: it is refused, or gives what was saved."""
    kind, files = case
    found, expected = load_prior(write(files, folder)), undamaged(kind)
    alike = found.arguments() == expected.arguments() and found.details == expected.details
    if not (type(found) is type(expected) and alike and found.kernel_shape == expected.kernel_shape):
        raise Differs(f"{found!r} with {found.arguments()} and {found.details} was loaded")
    if not same_values(found, expected.state_dict()):
        raise Differs("other tensors were loaded")
    return "same"


def load_stated(case: Case, folder: Path) -> Outcome:
    """Loads a folder whose writer states other things: it is refused, or is a prior that is what its files state."""
    kind, files = case
    place = write(files, folder)
    found = load_prior(place)
    stated, tensors = json.loads(files[CONFIG] or b""), load(files[MODEL] or b"")
    arguments = found.arguments()
    defaults = inspect.signature(type(found)).parameters
    given = {
        key: value
        for key, value in stated["arguments"].items()
        if value is not None or defaults[key].default is not None
    }
    other = {key: value for key, value in given.items() if arguments.get(key) != value}
    if other or list(found.kernel_shape) != stated["kernel_shape"] or found.family != stated["family"]:
        raise Differs(f"{arguments} over {found.kernel_shape} was loaded where {stated} is stated")
    details = {key: value for key, value in stated.items() if key not in _OWN}
    if found.details != details | {"name": found.details["name"]} or not same_values(found, tensors):
        raise Differs(f"the details or tensors are not those of the files: {found.details}")
    _check_usable(found, folder)
    return "same" if files == saved(kind) else "as stated"


def _check_usable(prior: Prior, folder: Path) -> None:
    """Raises :class:`Differs` unless draws have the shape that was stated, and a second folder gives the same prior."""
    draws = prior.sample(3, generator=torch.Generator().manual_seed(0))
    if draws.shape != (3, *prior.kernel_shape):
        raise Differs(f"draws are {tuple(draws.shape)} where {prior.kernel_shape} is stated")
    again = load_prior(save_prior(prior, folder / "again"))
    if again.arguments() != prior.arguments() or not same_values(again, prior.state_dict()):
        raise Differs("saved and loaded again, it is another prior")


def _sealed(config: Any, model: bytes, version: int) -> bytes:
    """The configuration with the digests that fit it; of format 1, which has none of itself."""
    if not isinstance(config, dict) or version == 1:
        return json.dumps(config).encode(errors="replace")
    plain = {key: value for key, value in config.items() if key != "config_sha256"}
    try:
        return sealed_json(plain | {"model_sha256": sha256(model).hexdigest()}, "config_sha256", allow_nan=True)
    except ValueError:  # text that is not Unicode
        return json.dumps(plain).encode()


def _config_cases() -> SearchStrategy[Case]:
    @cache  # a strategy takes longer to make than an input
    def of(kind: str) -> SearchStrategy[Case]:
        files = saved(kind)
        config = json.loads(files[CONFIG])
        shapes = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(lambda shape: config | {"kernel_shape": shape})
        argument = st.sampled_from(sorted(config["arguments"]) or ["none"])
        arguments = st.tuples(argument, ODD).map(lambda new: config | {"arguments": config["arguments"] | dict([new])})
        changed = st.one_of(changed_json(config), shapes, arguments)
        versions = st.sampled_from([1, 2, 2])

        def packed(config: Any, version: int) -> Case:
            if isinstance(config, dict) and version == 1:
                config = {**config, "format_version": 1}
                config = {key: value for key, value in config.items() if key not in ("config_sha256", "model_sha256")}
            return kind, {CONFIG: _sealed(config, files[MODEL], version), MODEL: files[MODEL]}

        return st.builds(packed, changed, versions)

    return st.sampled_from(KINDS).flatmap(of)


def _tensor_cases() -> SearchStrategy[Case]:
    @cache  # a strategy takes longer to make than an input
    def of(kind: str) -> SearchStrategy[Case]:
        files = saved(kind)
        config = json.loads(files[CONFIG])

        def packed(tensors: dict[str, torch.Tensor]) -> Case:
            model = safetensors_bytes(tensors)
            return kind, {CONFIG: _sealed(config, model, 2), MODEL: model}

        return changed_tensors(load(files[MODEL])).map(packed)

    return st.sampled_from(KINDS).flatmap(of)


def _damaged_cases() -> SearchStrategy[Case]:
    @cache
    def of(kind: str) -> SearchStrategy[Case]:
        return one_damaged(saved(kind)).map(lambda files: (kind, files))

    return st.sampled_from(KINDS).flatmap(of)


REFUSALS = (ValueError, FileNotFoundError)
TARGETS = (
    Target("prior folders, damaged bytes", _damaged_cases, load_damaged, REFUSALS, tries=300),
    Target("prior folders, other configurations", _config_cases, load_stated, REFUSALS, tries=300),
    Target("prior folders, other tensors", _tensor_cases, load_stated, REFUSALS, tries=200),
)
