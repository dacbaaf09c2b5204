"""A prior's ``config.json``: what it states, packed with its digest, parsed strictly, and built without values."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from dwp_init.folder import CONFIG, check_size
from dwp_init.priors import FAMILIES, Prior
from dwp_init.priors.bounds import Bounded
from dwp_init.priors.checks import checked_shape, is_int
from dwp_init.storage import is_sealed, json_bytes, sealed_json
from dwp_init.text import brief

FORMAT_VERSION = 2
LIBRARY = "dwp_init"
_SEAL, TENSORS = "config_sha256", "model_sha256"  # digests, which format 1 has not, or need not have
_REQUIRED = ("format_version", "family", "kernel_shape", "arguments")
OWN_KEYS = frozenset({"library_name", _SEAL, TENSORS, *_REQUIRED})
"""The keys that details may not use."""


def config_bytes(prior: Prior, model: bytes) -> bytes:
    """Packs the configuration of a prior, with digests of the tensors and of itself.

    Args:
        prior: The prior; its ``details`` use none of :data:`OWN_KEYS`.
        model: The content of the file of its tensors.

    Raises:
        ValueError: ``details`` or ``arguments()`` are not JSON.
    """
    config = {
        "library_name": LIBRARY,
        "format_version": FORMAT_VERSION,
        "family": prior.family,
        "kernel_shape": list(prior.kernel_shape),
        "arguments": prior.arguments(),
        TENSORS: hashlib.sha256(model).hexdigest(),
        **prior.details,
    }
    try:
        return sealed_json(config, _SEAL)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"details and arguments() must be JSON, without NaN: {error}; convert or drop that entry"
        ) from error


def parse_config(content: bytes, path: str) -> dict[str, Any]:
    """Parses a prior's configuration, and checks that this version reads it, and that it is as it was saved.

    Args:
        content: The content of ``config.json``.
        path: Its path, for the messages of errors.

    Raises:
        ValueError: It is too large, not JSON, not of ``dwp_init``, of a newer format, lacks an entry, or differs from
            its digest.
    """
    check_size(len(content), CONFIG, path)
    try:
        parsed: object = json.loads(
            content, object_pairs_hook=_without_twins, parse_float=_finite, parse_constant=_finite
        )
        json_bytes(parsed)  # text of JSON may be no Unicode, and could not be saved again
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); get the prior's folder again") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} holds a {type(parsed).__name__}, expected an object with {', '.join(_REQUIRED)}")
    config = cast(dict[str, Any], parsed)
    if config.get("library_name", LIBRARY) != LIBRARY:
        raise ValueError(
            f"{path} is the configuration of a model for {brief(config['library_name'])}, expected one for "
            f"{LIBRARY!r}; check the prior's name"
        )
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; a prior's config has {', '.join(_REQUIRED)}")
    _check_version(config["format_version"], path)
    _check_seal(config, content, path)
    check_name(config, path)
    return config


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON; raises ``ValueError`` if it has a key twice, of which each reader takes another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {brief(next(key for key in keys if keys.count(key) > 1))} twice")
    return found


def _finite(text: str) -> float:
    """Reads a number; raises ``ValueError`` if it is not finite, as then it could not be saved again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it has the number {brief(text, quoted=False)}, which is not finite")
    return number


def _check_version(version: object, path: str) -> None:
    if not is_int(version) or version < 1:
        raise ValueError(
            f"{path} has format_version {brief(version)}, expected a whole number from 1 to {FORMAT_VERSION}"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format_version {brief(version)}, this dwp_init reads up to {FORMAT_VERSION}; upgrade dwp_init"
        )


def _check_seal(config: Mapping[str, Any], content: bytes, path: str) -> None:
    """Checks the digest of a configuration, which format 1 has not; with it that of the tensors must be stated."""
    if config["format_version"] == 1 and _SEAL not in config:
        return
    if not is_sealed(content, config.get(_SEAL)) or not isinstance(config.get(TENSORS), str):
        raise ValueError(
            f"{path} differs from what was saved, by its {_SEAL}; get the prior's folder again. If it was edited, set "
            f"format_version to 1, remove {_SEAL}, and save what load_prior then gives by save_prior"
        )


def config_damage(content: bytes) -> str:
    """Says how a configuration is damaged, as far as it shows itself; empty if it is whole, or of another library."""
    try:
        parsed: object = json.loads(content)
    except (ValueError, RecursionError):
        return "it is not JSON"
    stated = cast(dict[str, object], parsed).get(_SEAL) if isinstance(parsed, dict) else None
    return "" if stated is None or is_sealed(content, stated) else "it differs from its own digest"


def check_name(details: Mapping[str, Any], owner: object) -> None:
    """Raises ``ValueError`` if details hold a name that is not a printable string."""
    name = details.get("name", "")
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"{owner} has the name {brief(name)}, expected a string of printable characters")


def build_prior(config: dict[str, Any], path: str, size: int) -> Prior:
    """Builds the prior that a configuration describes, on the meta device: without values, and without memory.

    Args:
        config: The configuration, as :func:`parse_config` returns it.
        path: Its path, for the messages of errors.
        size: Bytes of the file of its tensors, which bound the time and the memory of building.

    Raises:
        ValueError: It does not describe a prior, or a larger one than the file can hold.
    """
    family, arguments, shape = config["family"], config["arguments"], config["kernel_shape"]
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"{path} names the family {brief(family)}, but this dwp_init knows {', '.join(sorted(FAMILIES))}; upgrade "
            "dwp_init, or import the module that registers the family"
        )
    if not isinstance(arguments, dict) or not isinstance(shape, list):
        raise ValueError(
            f"{path}: arguments must be an object and kernel_shape a list; got {brief(config['arguments'])} and "
            f"{brief(config['kernel_shape'])}"
        )
    try:
        with torch.device("meta"), Bounded(size):
            kernel_shape = checked_shape(cast(list[object], shape))
            return FAMILIES[family](kernel_shape, **cast(dict[str, Any], arguments)).float()
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        said = brief(str(error), quoted=False)
        raise ValueError(f"{path} does not describe a {family} prior: {said}") from error
