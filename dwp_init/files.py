"""A prior and its two files, ``config.json`` and ``model.safetensors``; both are checked when saved and when loaded."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dwp_init.folder import CONFIG, MAX_BYTES, MODEL, check_size, write_prior
from dwp_init.priors import FAMILIES, Prior
from dwp_init.priors.bounds import Bounded
from dwp_init.priors.checks import checked_shape, is_int
from dwp_init.priors.precision import full_precision
from dwp_init.priors.whitening import RasterWhitening, Whitening
from dwp_init.storage import is_sealed, largest_file, safetensors_bytes, sealed_json
from dwp_init.text import brief, few

FORMAT_VERSION = 2
LIBRARY = "dwp_init"
_SEAL, _TENSORS = "config_sha256", "model_sha256"  # digests, which format 1 has not, or need not have
_REQUIRED = ("format_version", "family", "kernel_shape", "arguments")
_OWN = {"library_name", _SEAL, _TENSORS, *_REQUIRED}


@full_precision()
def save_prior(prior: Prior, folder: str | Path) -> Path:
    """Saves a prior in a folder, which is created if it does not exist, and returns the folder.

    A kill, a full disk or a loss of power leaves the old prior or the new one, and others load one of the two at every
    moment, see :func:`dwp_init.folder.write_prior`. The configuration holds digests of the tensors and of itself.

    Args:
        prior: The prior; its ``details`` are saved with it.
        folder: The folder of ``config.json`` and ``model.safetensors``.

    Raises:
        TypeError: ``prior`` is not a prior, or its class is not registered with :func:`dwp_init.register`.
        ValueError: A parameter is NaN, infinite, not float32 or without memory, the parameters do not describe a
            density, the class does not rebuild the prior from its ``arguments()`` and ``state_dict()``, ``details`` is
            not JSON, uses one of the configuration's own keys or has a name that is not a printable string, or a file
            would be larger than :data:`dwp_init.folder.MAX_BYTES`.
        OSError: The files cannot be written.

    Examples:
        >>> save_prior(dwp_init.load_prior("natural-dw3x3"), "priors/mine").name
        'mine'
    """
    if not isinstance(prior, Prior):
        raise TypeError(f"save_prior needs a dwp_init Prior; got {type(prior).__name__}")
    _check_registered(type(prior))
    _check_parameters(prior, "this prior")
    _check_name(prior.details, "details")
    if taken := sorted(set(prior.details) & _OWN):
        raise ValueError(f"details uses {', '.join(taken)}, which are keys of the configuration itself; rename them")
    model = safetensors_bytes(prior.state_dict())
    config = _config_bytes(prior, model)
    try:
        parse_prior({CONFIG: config, MODEL: model}, "this prior")
    except ValueError as error:
        raise ValueError(f"load_prior could not rebuild this prior: {error}") from error
    write_prior(Path(folder), config, model)
    return Path(folder)


def _config_bytes(prior: Prior, model: bytes) -> bytes:
    config = {
        "library_name": LIBRARY,
        "format_version": FORMAT_VERSION,
        "family": prior.family,
        "kernel_shape": list(prior.kernel_shape),
        "arguments": prior.arguments(),
        _TENSORS: hashlib.sha256(model).hexdigest(),
        **prior.details,
    }
    try:
        return sealed_json(config, _SEAL)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"details and arguments() must be JSON, without NaN: {error}; convert or drop that entry"
        ) from error


def _check_registered(kind: type[Prior]) -> None:
    known = FAMILIES.get(getattr(kind, "family", ""))
    if known is not kind:
        replaced = known is not None and known.__qualname__ == kind.__qualname__ and known.__module__ == kind.__module__
        raise TypeError(
            f"{kind.__name__} was defined again after this prior was made; make the prior again"
            if replaced
            else f"{kind.__name__} is not a registered family, so load_prior could not rebuild it; give the class a "
            "family name of its own and decorate it with @dwp_init.register"
        )


@full_precision()
def parse_prior(contents: Mapping[str, bytes], owner: object) -> Prior:
    """Makes a prior from the contents of its two files, in evaluation mode on the CPU.

    Args:
        contents: The contents of ``config.json`` and ``model.safetensors``, by name.
        owner: Their folder or repository, for the messages of errors.

    Raises:
        ValueError: A file is corrupt, or the files do not fit each other or this version.
    """
    model = f"{owner}/{MODEL}"
    check_size(len(contents[MODEL]), MODEL, model)
    config = parse_config(contents[CONFIG], f"{owner}/{CONFIG}")
    prior = build_prior(config, f"{owner}/{CONFIG}", len(contents[MODEL]))
    tensors = _parse_tensors(contents[MODEL], model)
    _check_fit(tensors, prior, model)
    prior.load_state_dict(tensors, assign=True)
    _check_all_saved(prior, model)
    _check_parameters(prior, model)
    _check_digest(config, contents[MODEL], model)
    prior.details = {key: value for key, value in config.items() if key not in _OWN}
    return prior.eval().requires_grad_(False)


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
        parsed: object = json.loads(content, object_pairs_hook=_without_twins)
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
    _check_name(config, path)
    return config


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON; raises ``ValueError`` if it has a key twice, of which each reader takes another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {brief(next(key for key in keys if keys.count(key) > 1))} twice")
    return found


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
    if not is_sealed(content, config.get(_SEAL)) or not isinstance(config.get(_TENSORS), str):
        raise ValueError(
            f"{path} differs from what was saved, by its {_SEAL}; get the prior's folder again. If it was edited, set "
            f"format_version to 1, remove {_SEAL}, and save what load_prior then gives by save_prior"
        )


def _check_name(details: Mapping[str, Any], owner: object) -> None:
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


def model_size(prior: Prior) -> int:
    """Returns how large the file of a prior's tensors can be, in bytes: their values, and a header."""
    return min(largest_file(prior.state_dict()), MAX_BYTES[MODEL])


def _parse_tensors(content: bytes, path: str) -> dict[str, Tensor]:
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}); get the prior's folder again"
        ) from error


def _check_parameters(prior: Prior, owner: object) -> None:
    for name, tensor in prior.state_dict().items():
        if tensor.is_meta:
            raise ValueError(f"{name} of {owner} is on the meta device; give it values first")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"{name} of {owner} is {tensor.dtype}, expected torch.float32; call .float() on the prior")
        wrong = (~tensor.isfinite()).sum().item()
        if wrong:
            raise ValueError(
                f"{name} of {owner} has {wrong} NaN or infinite values of {tensor.numel()}; all must be finite"
            )
    for name, module in prior.named_modules():
        if isinstance(module, (Prior, Whitening, RasterWhitening)):
            try:
                module.check()
            except ValueError as error:
                what = f"{name} of {owner} is not valid" if name else f"{owner} is not a density"
                raise ValueError(f"{what}: {error}; fit the prior again") from error


def _check_all_saved(prior: Prior, path: str) -> None:
    """Raises ``ValueError`` if a module holds a tensor that is not in its ``state_dict()``, so has no values."""
    for module in prior.modules():
        for name, value in [*module.named_buffers(recurse=False), *vars(module).items()]:
            if isinstance(value, Tensor) and value.is_meta:
                raise ValueError(f"{path} does not hold {name} of {type(module).__name__}; make it a persistent buffer")


def _check_fit(tensors: dict[str, Tensor], prior: Prior, path: str) -> None:
    expected = prior.state_dict()
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit {CONFIG}: tensors missing: {few(missing) or 'none'}; "
            f"unknown: {few(unknown) or 'none'}; get both files from one place"
        )
    for name, tensor in expected.items():
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ValueError(
                f"{path} does not fit {CONFIG}: {name} is {found.dtype} {tuple(found.shape)}, "
                f"expected {tensor.dtype} {tuple(tensor.shape)}; get both files from one place"
            )
        fixed = not tensor.is_floating_point() and not tensor.is_meta  # masks and orders: the architecture
        if fixed and not torch.equal(found, tensor):
            raise ValueError(
                f"{path} does not fit {CONFIG}: {name}, which its arguments fix, has "
                f"{(found != tensor).sum()} other values of {tensor.numel()}; get both files from one place"
            )


def _check_digest(config: dict[str, Any], content: bytes, path: str) -> None:
    found, expected = hashlib.sha256(content).hexdigest(), config.get(_TENSORS)
    if expected is not None and found != expected:
        said = brief(expected, quoted=False)
        raise ValueError(
            f"{path} does not fit {CONFIG}: its sha256 is {found}, expected {said}; get both files from one place"
        )
