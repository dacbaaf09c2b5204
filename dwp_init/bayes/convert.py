"""Converts a network to a Bayesian one, in place, and back."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init.access import Access
from dwp_init.bayes.layer_priors import LayerPriors, Without, layer_priors, normal_prior
from dwp_init.bayes.layers import BayesConv2d, Estimator, RelativeBayesConv2d, bayes_layers
from dwp_init.convolutions import find_layers, layer_of, named_convolutions
from dwp_init.draw import Scale
from dwp_init.modules import only_holds
from dwp_init.names import named_modules
from dwp_init.registry import registry
from dwp_init.response import root_mean_square
from dwp_init.rules import PriorsByPattern
from dwp_init.sets import SETS, PriorSet
from dwp_init.shards import is_sharded
from dwp_init.text import few

_NAME_IT = "give its exact name in layers= to make it Bayesian"


def bayesianize_(
    model: nn.Module,
    layers: str | Iterable[str] = "*",
    *,
    prior: PriorsByPattern | None = None,
    prior_scale: Scale = "auto",
    without: Without = "fixed",
    kind: type[BayesConv2d] = BayesConv2d,
    scale: float | None = None,
    estimator: Estimator = "flipout",
    access: Access | None = None,
) -> LayerPriors:
    """Replaces a model's convolutions by Bayesian ones, in place, with each posterior centred at the present weight.

    To start from a prior, draw the weights first: ``dwp_init.apply_(model, prior)``. The parameters are kept, and so
    are the training modes and everything except the chosen ``nn.Conv2d`` modules, which are replaced: a reference that
    is kept elsewhere, as in a plain list, is to the old one. Make an optimiser afterwards, because
    it needs the new ``log_variance`` parameters too. The priors that it returns give the divergences, as
    ``Objective(model, priors.terms())``; an objective may have others.

    Args:
        model: The model, which must not itself be a convolution.
        layers: Shell patterns of layer names (``"features.*"``), case-sensitive; all ``nn.Conv2d`` by default, but for
            frozen ones, which need their exact name.
        prior: Which layers become Bayesian, and under which prior: those that take a prior of these, by kernel size,
            kind and depth, see :func:`layer_priors`. ``None`` makes all layers Bayesian, each under a normal prior of
            independent weights at the layer's scale.
        prior_scale: Scale of the priors, the argument ``scale`` of :func:`layer_priors`.
        without: What becomes of layers that no prior fits, see :func:`layer_priors`; ``"fixed"`` ones stay as they are.
        kind: :class:`BayesConv2d`, or :class:`RelativeBayesConv2d`.
        scale: Standard deviation at the start; by default that of ``kind``.
        estimator: How outputs are drawn in training mode, see :class:`BayesConv2d`. The paper has ``"local"``, which
            suits networks that do not average over positions, as global pooling does.
        access: How the Hub is reached.

    Returns:
        The priors of the layers replaced, by name, and the reasons why others stay deterministic. A note says which
        layers have weights that are smaller than the posterior's standard deviation, so that they start as noise.

    Raises:
        TypeError: ``model`` is not a module or is itself a convolution, or ``kind`` is another class.
        ValueError: A pattern matches no convolution; without ``prior`` a chosen layer cannot be made Bayesian, and with
            it none of them can, because it is of a subclass, is parametrized, has hooks or a forward of its own, or its
            weight is sharded or another module's too; the model is in ``DistributedDataParallel``; or ``scale``
            or ``estimator`` is wrong. The model is unchanged.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))
        >>> report = dwp_init.apply_(model, "natural", seed=0)
        >>> priors = bayes.bayesianize_(model, prior="natural")
        >>> bayes.Objective(model, priors.terms()).layers
        ['0', '3']
    """
    _check_model(model)
    _check_kind(kind)
    if isinstance(layers, (nn.Module, PriorSet)):
        raise TypeError(
            f"layers are patterns of names, such as 'features.*'; got a {type(layers).__name__}: give the names of a "
            "module's layers, and a prior as prior="
        )
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns:
        raise ValueError(f"layers={layers!r} names no layer; give a pattern, or leave it out for all")
    if prior is None and (prior_scale, without) != ("auto", "fixed"):
        raise ValueError(f"prior_scale={prior_scale!r}, without={without!r} have no effect without prior; remove them")
    if prior is None:
        given = _normal_priors(model, patterns)
    else:
        found = layer_priors(model, prior, layers=patterns, scale=prior_scale, without=without, access=access)
        given = _bayesian(found, model)
    convolutions = [cast(nn.Conv2d, each.layer.module) for each in given.values()]
    layers_of = {conv: kind.of(conv, scale, estimator) for conv in convolutions}
    given = replace(given, notes=(*given.notes, *_notes(given, kind, scale)))
    _replace(model, layers_of)
    return given


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, nn.Conv2d):
        raise TypeError(f"model must be a module that holds convolutions; got {type(model).__name__}: wrap it in one")
    if any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules()):
        raise ValueError(
            "DistributedDataParallel would not see the gradients of new parameters: call bayesianize_ first, and wrap "
            "the model afterwards, or its Objective, whose terms may be trained too"
        )


def _check_kind(kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, BayesConv2d)):
        raise TypeError(f"kind must be BayesConv2d or RelativeBayesConv2d; got {kind!r}")


def _normal_priors(model: nn.Module, patterns: list[str]) -> LayerPriors:
    """Returns normal priors of all layers whose names match; raises ``ValueError`` if one cannot be made Bayesian."""
    there = [named for named in named_modules(model) if isinstance(named.module, nn.Conv2d)]
    for pattern in patterns:
        if not any(named.matches(pattern) for named in there):
            names = few([named.name for named in there]) or "none"
            meant = f"did you mean prior={pattern!r}? " if pattern in {*SETS, *registry()} else ""
            raise ValueError(f"layers={pattern!r} matches no Conv2d; {meant}the model has {names}")
    matching = [named for named in there if any(named.matches(pattern) for pattern in patterns)]
    frozen = [each for each in matching if not _may_change(each.module) and each.name not in patterns]
    chosen = {each.name: cast(nn.Conv2d, each.module) for each in matching if each not in frozen}
    if not chosen:
        raise ValueError(f"the weights of {few([each.name for each in frozen])} are frozen; {_NAME_IT}")
    for name, conv in chosen.items():
        if reason := reason_not_bayesian(conv, model):
            raise ValueError(f"{name} cannot be made Bayesian: {reason}; leave it out with layers=")
    depths = {layer.name: layer.depth for layer in find_layers(model, lambda named: named.name in chosen)}
    layers = {name: layer_of(conv, name, depth=depths.get(name, 0.0)) for name, conv in chosen.items()}
    skipped = {each.name: f"its weight is frozen; {_NAME_IT}" for each in frozen}
    others = [each for each in named_convolutions(model) if each.name not in {*chosen, *skipped}]
    skipped |= {each.name: "not asked for" if each in there else _not_plain(each.module) for each in others}
    return LayerPriors({name: normal_prior(layer) for name, layer in layers.items()}, skipped)


def _may_change(conv: nn.Module) -> bool:
    weight = vars(conv)["_parameters"].get("weight")
    return weight is None or weight.requires_grad  # without a weight of its own it is refused anyway


def _not_plain(module: nn.Module) -> str:
    return f"it is a {type(module).__name__}, not a plain Conv2d"


def _bayesian(given: LayerPriors, model: nn.Module) -> LayerPriors:
    """Returns the priors of the layers that can be made Bayesian, and the reasons why others cannot."""
    against = {name: reason_not_bayesian(each.layer.module, model) for name, each in given.items()}
    reasons = {name: f"cannot be made Bayesian: {reason}" for name, reason in against.items() if reason}
    if len(reasons) == len(given):
        listed = "; ".join(f"{name} {reason}" for name, reason in [*given.skipped.items(), *reasons.items()])
        raise ValueError(f"no layer with a prior can be made Bayesian: {listed or 'the model has no convolution'}")
    kept = {name: each for name, each in given.items() if name not in reasons}
    return replace(given, priors=kept, skipped={**given.skipped, **reasons})


def _notes(given: LayerPriors, kind: type[BayesConv2d], scale: float | None) -> tuple[str, ...]:
    """Says in which layers the noise of the posterior is larger than its mean at the start."""
    if issubclass(kind, RelativeBayesConv2d):
        return ()
    scale = kind.default_scale if scale is None else scale
    rms = {name: root_mean_square(each.layer.weight.read()) for name, each in given.items()}
    noisy = {name: found for name, found in rms.items() if found < scale}
    return (
        f"layers {few(list(noisy))} start as noise: the root mean square of their weights is "
        f"{min(noisy.values(), default=0):.2g} or more, and the posterior's standard deviation {scale:.2g}; give a "
        "smaller scale, or call start_at_optimal_scales_",
    ) * bool(noisy)


def posterior_mean_(model: nn.Module) -> nn.Module:
    """Turns a model's Bayesian convolutions back into ordinary ones with the posterior's mean, in place; returns it.

    Their parameters are new: make an optimiser afterwards.

    Raises:
        TypeError: The model is itself such a layer.
        ValueError: It has none, or one has a forward of its own, which would be lost.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model)
        >>> bayes.posterior_mean_(model)[0]
        Conv2d(1, 8, kernel_size=(5, 5), stride=(1, 1))
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

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5))
        >>> priors = bayes.bayesianize_(model)
        >>> drawn = bayes.sample_network(model, torch.Generator().manual_seed(0))
        >>> torch.equal(drawn[0].weight, model[0].weight)
        False
    """
    return _made_plain_(copy.deepcopy(model), lambda layer: layer.draw_weight(generator)).eval()


def bayesian_layers(model: nn.Module) -> dict[str, BayesConv2d]:
    """Returns a model's Bayesian convolutions by name.

    Raises:
        ValueError: It has none.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> priors = bayes.bayesianize_(model, "2")
        >>> list(bayes.bayesian_layers(model))
        ['2']
    """
    found = bayes_layers(model)
    if not found:
        raise ValueError("the model has no Bayesian convolution; call bayesianize_(model) first")
    return found


@torch.no_grad()
def _made_plain_(model: nn.Module, weight: Callable[[BayesConv2d], Tensor]) -> nn.Module:
    found = bayesian_layers(model)
    for name, layer in found.items():
        if "forward" in vars(layer):
            raise ValueError(f"{name or 'the layer'} has a forward of its own, which would be lost: take it off first")
    new: dict[nn.Module, nn.Module] = {layer: layer.plain(weight(layer)) for layer in found.values()}
    _replace(model, new)
    return new.get(model, model)


def _replace(model: nn.Module, new: Mapping[Any, nn.Module]) -> None:
    """Replaces modules wherever they are registered, with the attributes and hooks that the old ones have."""
    for old, module in new.items():
        own = cast(dict[str, object], vars(old))
        kept = {name: value for name, value in own.items() if name not in vars(module) or "hook" in name}
        kept.pop("_compiled_call_impl", None)  # which calls the old one
        vars(module).update(kept)
    for parent in list(model.modules()):
        children: dict[str, nn.Module | None] = vars(parent)["_modules"]  # named_children() names a shared one once
        for name, child in list(children.items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])


def reason_not_bayesian(conv: nn.Module, model: nn.Module) -> str | None:
    """Says why a convolution of a model cannot be made Bayesian; ``None`` if it can."""
    if type(conv) is not nn.Conv2d:
        return _not_plain(conv)
    own: dict[str, Any] = vars(conv)
    if parametrize.is_parametrized(conv) or "weight" not in own["_parameters"]:
        return "its weight is made from others (a parametrization)"
    if is_sharded(conv.weight):
        return "its weight is sharded: call bayesianize_ first, and shard the model afterwards"
    if any(value for name, value in own.items() if name.endswith("_hooks")):
        return "it has hooks, which would be lost"
    if lost := _lost(conv):
        return f"it has a {lost} of its own, which would be lost"
    return f"it shares its weight with {other}" if (other := _other_owner(conv, model)) else None


def _lost(conv: nn.Conv2d) -> str | None:
    """Returns the name of a method, parameter, buffer or module that a convolution has and its class has not."""
    own, plain = (vars(each) for each in (conv, nn.Conv2d(1, 1, 1, device="meta")))
    methods = [name for name in own if name not in plain and hasattr(nn.Conv2d, name)]
    parts = [name for part in ("_parameters", "_buffers", "_modules") for name in own[part] if name not in plain[part]]
    return next(iter([*methods, *parts]), None)


def _other_owner(conv: nn.Conv2d, model: nn.Module) -> str | None:
    """Returns the name of another module that has the weight of a convolution."""
    for named in named_modules(model):
        if only_holds(named.module):
            continue
        parameters: dict[str, Tensor | None] = vars(named.module)["_parameters"]
        if named.module is not conv and any(value is conv.weight for value in parameters.values()):
            return named.name
    return None
