"""A prior and its two files, ``config.json`` and ``model.safetensors``; both are checked when saved and when loaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dwp_init.config import OWN_KEYS, TENSORS, build_prior, check_name, config_bytes, parse_config
from dwp_init.folder import CONFIG, MAX_BYTES, MODEL, check_size, write_prior
from dwp_init.priors import FAMILIES, Prior
from dwp_init.priors.precision import full_precision
from dwp_init.priors.whitening import AffineWhitening
from dwp_init.storage import largest_file, safetensors_bytes
from dwp_init.text import brief, few


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
        >>> dwp_init.save_prior(dwp_init.load_prior("natural-dw3x3"), "priors/mine").name
        'mine'
    """
    if not isinstance(prior, Prior):
        raise TypeError(f"save_prior needs a dwp_init Prior; got {type(prior).__name__}")
    _check_registered(type(prior))
    _check_parameters(prior, "this prior")
    check_name(prior.details, "details")
    if taken := sorted(set(prior.details) & OWN_KEYS):
        raise ValueError(f"details uses {', '.join(taken)}, which are keys of the configuration itself; rename them")
    model = safetensors_bytes(prior.state_dict())
    config = config_bytes(prior, model)
    try:
        parse_prior({CONFIG: config, MODEL: model}, "this prior")
    except ValueError as error:
        raise ValueError(f"load_prior could not rebuild this prior: {error}") from error
    write_prior(Path(folder), config, model)
    return Path(folder)


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
    prior.details = {key: value for key, value in config.items() if key not in OWN_KEYS}
    return prior.eval().requires_grad_(False)


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
        if isinstance(module, (Prior, AffineWhitening)):
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
    found, expected = hashlib.sha256(content).hexdigest(), config.get(TENSORS)
    if expected is not None and found != expected:
        said = brief(expected, quoted=False)
        raise ValueError(
            f"{path} does not fit {CONFIG}: its sha256 is {found}, expected {said}; get both files from one place"
        )
