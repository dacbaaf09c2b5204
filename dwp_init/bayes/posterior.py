"""A posterior and its file: a network with Bayesian layers as safetensors, checked when saved and when loaded."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from dwp_init.bayes.convert import bayesian_layers, bayesianize_, reason_not_bayesian
from dwp_init.bayes.layers import BayesConv2d, RelativeBayesConv2d, bayes_layers
from dwp_init.names import buffer_names, joined, named_modules, names_of, state_names
from dwp_init.shards import is_sharded
from dwp_init.storage import is_sealed, largest_file, make_folder, sealed_safetensors, write_bytes
from dwp_init.tensors import wide
from dwp_init.text import brief, few

POSTERIOR_FORMAT = 1
_SEAL, _VERSION, _LAYERS = "file_sha256", "dwp_init.posterior", "layers"  # keys of the metadata
_SCALE = "log_variance"
_KINDS = {kind.__name__: kind for kind in (BayesConv2d, RelativeBayesConv2d)}


def save_posterior(model: nn.Module, path: str | Path) -> Path:
    """Saves a model with Bayesian layers, all its parameters and buffers, as one safetensors file; returns its path.

    The file is written whole or not at all, and holds its own digest. The priors are no part of it. Its names are those
    without wrappers, such as ``torch.compile`` and DDP, so a model need not be wrapped as the saved one was.

    Args:
        model: The model, with at least one layer of :func:`bayesianize_`.
        path: The file, such as ``posterior.safetensors``; its folder is created if it does not exist.

    Raises:
        ValueError: The model has no Bayesian layer, or one of a class that is not known; a parameter is NaN or
            infinite; the scale of a posterior is 0 or its square infinite; or a part of the state is no dense tensor
            with memory, such as an extra state.
        OSError: The file cannot be written.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model)
        >>> bayes.save_posterior(model, "posterior.safetensors").name
        'posterior.safetensors'
    """
    layers, path = bayesian_layers(model), Path(path)
    kinds = {name: type(layer).__name__ for name, layer in layers.items()}
    if strange := [name for name, kind in kinds.items() if kind not in _KINDS]:
        raise ValueError(f"{strange[0]!r} is a {kinds[strange[0]]}; only {' and '.join(_KINDS)} can be saved")
    tensors = _state(model)
    metadata = {_VERSION: str(POSTERIOR_FORMAT), _LAYERS: json.dumps(kinds)}
    content = sealed_safetensors(tensors, metadata, _SEAL)
    _check_finite(tensors, _checked(model, tensors), "the model")
    _check_scales(tensors, {name: _KINDS[kind] for name, kind in kinds.items()}, "the model")
    make_folder(path.parent)
    write_bytes(path, content)
    return path


def load_posterior(model: nn.Module, path: str | Path) -> nn.Module:
    """Loads a posterior into a model of the same architecture, in place, and returns the model.

    Its convolutions become Bayesian as in the file, unless they are already. Nothing changes unless all of the file
    fits: its digest, the names, shapes and dtypes of its tensors, and their values.

    Args:
        model: The model, as it was before :func:`bayesianize_`, or after it.
        path: The file of :func:`save_posterior`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is larger than the model's posterior can be, or is corrupt, of a newer format or of another
            model. The model is unchanged.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model)
        >>> path = bayes.save_posterior(model, "posterior.safetensors")
        >>> again = bayes.load_posterior(nn.Sequential(nn.Conv2d(1, 8, 5)), path)
        >>> torch.equal(again[0].log_variance, model[0].log_variance)
        True
    """
    path = Path(path)
    limit = 2 * largest_file({name: tensor.to("meta") for name, tensor in _state(model).items()})  # a scale a weight
    if path.stat().st_size > limit:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, and a posterior of this model at most {limit:,}; check both"
        )
    content = path.read_bytes()
    found, kinds = _parse(content, path)
    wanted = _expected(model, kinds, path)
    _check_fit(found, wanted, path)
    _check_ties(found, model, path)
    _check_finite(found, _checked(model, found), path)
    _check_scales(found, kinds, path)
    present = bayes_layers(model)
    for kind in dict.fromkeys(kinds.values()):
        if new := [name for name, each in kinds.items() if each is kind and name not in present]:
            bayesianize_(model, new, kind=kind)
    names = state_names(model)
    own: dict[str, Tensor] = {key: value for key, value in model.state_dict().items() if key not in names}
    model.load_state_dict({**own, **{key: found[name] for key, name in names.items()}})
    return model


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a model by names without wrappers; raises ``ValueError`` if a file cannot hold it."""
    state: dict[str, object] = model.state_dict()
    found: dict[str, Tensor] = {}
    for key, name in state_names(model).items():
        value = state[key]
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} of the model is a {type(value).__name__}, and a posterior's file holds tensors only"
            )
        if is_sharded(value):
            raise ValueError(f"{name} of the model is sharded; a posterior's file holds whole tensors: gather it first")
        if value.is_meta:
            raise ValueError(f"{name} of the model is on the meta device; give it values first")
        found[name] = value
    return found


def _checked(model: nn.Module, tensors: Iterable[str]) -> list[str]:
    """Returns the names of the tensors that must be finite, all but buffers: masks of attention have infinite ones."""
    buffers = buffer_names(model)
    return [name for name in tensors if name not in buffers]


def _check_ties(found: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Raises ``ValueError`` if what is one tensor in the model has different values in the file."""
    first: dict[int, str] = {}
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    for key, name in state_names(model).items():
        other = first.setdefault(id(state[key]), name)
        if other != name and not torch.equal(found[name], found[other]):
            raise ValueError(f"{path} is of another model: {other} and {name} are one tensor here, and differ there")


def _parse(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, type[BayesConv2d]]]:
    """Returns the tensors of a file, and the classes of the Bayesian layers by name."""
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); get it again") from error
    metadata: Mapping[str, str] = header.get("__metadata__", {})
    version = metadata.get(_VERSION)
    if version is None:
        raise ValueError(f"{path} is no posterior: its metadata lack {_VERSION!r}; save_posterior writes one")
    if version != str(POSTERIOR_FORMAT):
        raise ValueError(f"{path} has format {brief(version)}, and this dwp_init reads {POSTERIOR_FORMAT}; upgrade it")
    if not is_sealed(content, metadata.get(_SEAL)):
        raise ValueError(f"{path} differs from what was saved, by its {_SEAL}; get it again")
    kinds = _layers_of(metadata, path)
    if unknown := [kind for kind in kinds.values() if kind not in _KINDS]:
        known = " and ".join(_KINDS)
        raise ValueError(f"{path} has layers of {brief(unknown[0])}, and this dwp_init knows {known}; upgrade it")
    return tensors, {name: _KINDS[kind] for name, kind in kinds.items()}


def _layers_of(metadata: Mapping[str, str], path: Path) -> dict[str, str]:
    """Returns the names of the classes of a file's Bayesian layers by name."""
    try:
        kinds: object = json.loads(metadata.get(_LAYERS, "null"))
    except (ValueError, RecursionError):
        kinds = None
    listed = cast(dict[str, object], kinds) if isinstance(kinds, dict) else {}
    if not listed or not all(isinstance(kind, str) for kind in listed.values()):
        raise ValueError(
            f"{path} is no posterior: {_LAYERS!r} in its metadata is {brief(metadata.get(_LAYERS))}, and it should map "
            "layers to classes; save_posterior writes one"
        )
    return cast(dict[str, str], listed)


def _expected(model: nn.Module, kinds: Mapping[str, type[BayesConv2d]], path: Path) -> dict[str, Tensor]:
    """Returns tensors, on the meta device, like those that a model's file must have."""
    modules = {named.name: named.module for named in named_modules(model)}
    wanted: dict[str, Tensor] = {name: tensor.to("meta") for name, tensor in _state(model).items()}
    for name, kind in kinds.items():
        layer = modules.get(name)
        if not isinstance(layer, nn.Conv2d):
            what = "no such layer" if layer is None else f"a {type(layer).__name__} there"
            raise ValueError(f"{path} has a Bayesian layer {name!r}, but the model has {what}; build the saved model")
        if isinstance(layer, BayesConv2d) and type(layer) is not kind:
            raise ValueError(f"{path} has a {kind.__name__} {name!r}, but the model's is a {type(layer).__name__}")
        if not isinstance(layer, BayesConv2d) and (reason := reason_not_bayesian(layer, model)):
            raise ValueError(f"{path} has a Bayesian layer {name!r}, which the model's cannot become: {reason}")
        scale = layer.weight.detach().to("meta")
        present = [place for place in names_of(model, layer) if joined(place, "weight") in wanted]
        wanted |= {joined(place, _SCALE): scale for place in present}
    if more := [name for name in bayes_layers(model) if name not in kinds]:
        raise ValueError(f"{path} has no posterior for {few(more)}, which the model has; leave it out of bayesianize_")
    return wanted


def _check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        lacks, more = few(missing) or "nothing", few(unknown) or "nothing"
        raise ValueError(f"{path} is of another model: it lacks {lacks}, and has {more} that the model has not")
    for name, tensor in wanted.items():
        ours, theirs = ((each.dtype, tuple(each.shape)) for each in (tensor, found[name]))
        if ours != theirs:
            raise ValueError(f"{path} is of another model: {name} is {theirs[0]} {theirs[1]}, here {ours[0]} {ours[1]}")


def _check_finite(tensors: Mapping[str, Tensor], checked: Iterable[str], owner: object) -> None:
    for name in checked:
        if wrong := (~tensors[name].isfinite()).sum().item():
            count = tensors[name].numel()
            raise ValueError(f"{name} of {owner} has {wrong} NaN or infinite values of {count}; train again")


def _check_scales(tensors: Mapping[str, Tensor], kinds: Mapping[str, type[BayesConv2d]], owner: object) -> None:
    """Raises ``ValueError`` if the scales of a posterior are 0, or their squares infinite, in float32 at least."""
    for name, kind in kinds.items():
        weight, log_variance = (wide(tensors[joined(name, leaf)]) for leaf in ("weight", _SCALE))
        scale = kind.posterior(weight, log_variance).scale
        if not ((scale > 0) & scale.square().isfinite()).all():
            least, most = log_variance.min().item(), log_variance.max().item()
            raise ValueError(
                f"{joined(name, _SCALE)} of {owner} is from {least:.4g} to {most:.4g}: {scale.dtype} cannot hold such "
                "a variance; train it again"
            )
