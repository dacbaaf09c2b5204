"""Converts a network to a Bayesian one, in place, and back."""

import copy
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training.bayes.layers import BayesConv2d


def bayesianize_(
    model: nn.Module,
    layers: str | Iterable[str] = "*",
    *,
    kind: type[BayesConv2d] = BayesConv2d,
    scale: float | None = None,
) -> list[str]:
    """Replaces a model's convolutions by Bayesian ones, in place, with each posterior centred at the present weight.

    To start from a prior, draw the weights first: ``dwp_init.apply_(model, priors, scale="prior")``. The parameters
    are kept, and so are the training modes and everything except the chosen ``nn.Conv2d`` modules. Make an optimiser
    afterwards, because it needs the new ``log_variance`` parameters too.

    Args:
        model: The model, which must not itself be a convolution.
        layers: Shell patterns of layer names (``"features.*"``), case-sensitive; all convolutions by default.
        kind: :class:`BayesConv2d`, or :class:`RelativeBayesConv2d`.
        scale: Standard deviation at the start; by default that of ``kind``.

    Returns:
        The names of the layers replaced.

    Raises:
        TypeError: ``model`` is not a module or is itself a convolution, or ``kind`` is another class.
        ValueError: A pattern matches no convolution; a chosen layer is of a subclass, is parametrized or has hooks; or
            ``scale`` is wrong. The model is unchanged.
    """
    if not isinstance(model, nn.Module) or isinstance(model, nn.Conv2d):
        raise TypeError(f"model must be a module that holds convolutions; got {type(model).__name__}: wrap it in one")
    named = dict(model.named_modules())
    there = {name: module for name, module in named.items() if isinstance(module, nn.Conv2d)}
    if not (isinstance(kind, type) and issubclass(kind, BayesConv2d)):
        raise TypeError(f"kind must be BayesConv2d or RelativeBayesConv2d; got {kind!r}")
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns:
        raise ValueError(f"layers={layers!r} names no layer; give a pattern, or leave it out for all")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in there):
            raise ValueError(f"layers={pattern!r} matches no Conv2d; the model has {', '.join(there) or 'none'}")
    chosen = {name: conv for name, conv in there.items() if any(fnmatchcase(name, p) for p in patterns)}
    for name, conv in chosen.items():
        if reason := _reason_against(conv):
            raise ValueError(f"{name} cannot be made Bayesian: {reason}; leave it out with layers=")
    _replace(model, {conv: kind.of(conv, scale) for conv in chosen.values()})
    return list(chosen)


def posterior_mean_(model: nn.Module) -> nn.Module:
    """Turns a model's Bayesian convolutions back into ordinary ones with the posterior's mean, in place; returns it.

    Raises:
        TypeError: The model is itself such a layer.
        ValueError: It has none.
    """
    if isinstance(model, BayesConv2d):
        raise TypeError("a layer cannot be replaced in itself; use layer.plain(layer.weight)")
    return _made_plain_(model, lambda layer: layer.weight)


def sample_network(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Returns a copy of a model, in evaluation mode, with ordinary convolutions whose weights are drawn from q(w).

    Args:
        model: The model, which is not changed.
        generator: Source of randomness on the device of the weights; PyTorch's global one by default.

    Raises:
        ValueError: It has no Bayesian convolution.
    """
    return _made_plain_(copy.deepcopy(model), lambda layer: layer.draw_weight(generator)).eval()


def bayesian_layers(model: nn.Module) -> dict[str, BayesConv2d]:
    """Returns a model's Bayesian convolutions by name.

    Raises:
        ValueError: It has none.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, BayesConv2d)}
    if not found:
        raise ValueError("the model has no Bayesian convolution; call bayesianize_(model) first")
    return found


@torch.no_grad()
def _made_plain_(model: nn.Module, weight: Callable[[BayesConv2d], Tensor]) -> nn.Module:
    found = bayesian_layers(model)
    if "" in found:
        return found[""].plain(weight(found[""]))
    _replace(model, {layer: layer.plain(weight(layer)) for layer in found.values()})
    return model


def _replace(model: nn.Module, new: Mapping[Any, nn.Module]) -> None:
    """Replaces modules wherever they are registered."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])


def _reason_against(conv: nn.Conv2d) -> str | None:
    if type(conv) is not nn.Conv2d:
        return f"it is a {type(conv).__name__}, not a plain Conv2d"
    if parametrize.is_parametrized(conv) or "weight" not in conv._parameters:
        return "its weight is made from others (a parametrization)"
    hooks = (conv._forward_hooks, conv._forward_pre_hooks, conv._backward_hooks, conv._backward_pre_hooks)
    return "it has hooks, which would be lost" if any(hooks) else None
