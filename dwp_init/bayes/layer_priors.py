"""The law of each layer's weight under learned priors, at the scale of the layer: for MAP and for Bayesian networks."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwp_init.access import Access
from dwp_init.bayes.kl import KL, ScaledKL
from dwp_init.bayes.prior_kl import kl_from
from dwp_init.choice import NO_PRIOR, choose
from dwp_init.draw import Options, Scale, makes_orthogonal
from dwp_init.layers import Layer
from dwp_init.names import named_modules
from dwp_init.options import check_instance, check_one_of
from dwp_init.orthogonal import orthogonal_channels
from dwp_init.plan import Choice, Plan
from dwp_init.priors import Gaussian, KernelVAE, Prior
from dwp_init.refusals import check_patterns, check_plan
from dwp_init.report import layer_text, shape_text
from dwp_init.response import root_mean_square, strength
from dwp_init.rules import PriorsByPattern, load_rules
from dwp_init.selection import Layers
from dwp_init.shards import is_sharded
from dwp_init.tensors import wide_dtype
from dwp_init.text import aligned, few

Without = Literal["fixed", "normal"]
_NORMAL = "normal"  # name in reports of what stands in where no learned prior fits
_DRAWS = 2**14  # kernels by which the response of a prior's draws is measured


@dataclass(frozen=True, eq=False)
class LayerPrior:
    """The law of a layer's weight: its kernels are independent (Eq. 5), each ``scale`` times one of a prior.

    Attributes:
        layer: The layer.
        prior: The prior at the layer's depth, a copy with fixed parameters on the device of the weight.
        name: Name of the prior.
        scale: Factor from the prior's kernels k to those of the layer, w = scale · k, so that draws have the response
            of the weight that was there: see :mod:`dwp_init.response`. These are draws of ``apply_``, which are not
            independent in stems and where it makes the channels orthogonal.
    """

    layer: Layer
    prior: Prior
    name: str
    scale: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The shape of the weight, the name of the prior, the layer's depth and the scale, as text."""
        return shape_text(self.layer.shape), self.name, f"{self.layer.depth:.2f}", f"{self.scale:.3g}"

    def log_prob(self, weight: Tensor) -> Tensor:
        """Maps a weight of the layer to log p(w) ``()`` in nats, summed over kernels; differentiable.

        log p(w) = Σ log p(w / scale) - n · log scale, for n weights: the last term is the Jacobian's.
        """
        weight = weight.full_tensor() if is_sharded(weight) else weight
        if self.prior.device != weight.device:
            self.prior.to(weight.device)  # the model moved
        kernels = self.layer.filters(weight).reshape(-1, *self.prior.kernel_shape).to(self.prior.dtype)
        return self.prior.log_prob(kernels / self.scale).sum() - weight.numel() * math.log(self.scale)


@dataclass(frozen=True, eq=False, repr=False)
class LayerPriors(Mapping[str, LayerPrior]):
    """The priors of a model's layers by name, which :func:`layer_priors` and :func:`bayesianize_` return.

    Printed, it is a table of the layers with a prior and of those without, with the reason.

    Attributes:
        priors: The priors, in the order of the model's modules.
        skipped: Why each of the other convolutions has no prior, by name.
        notes: Which layers have priors at another scale than that of the weight that was there.
    """

    priors: Mapping[str, LayerPrior]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> LayerPrior:
        return self.priors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.priors)

    def __len__(self) -> int:
        return len(self.priors)

    def log_prob(self, model: nn.Module, *, bound: bool = False) -> Tensor:
        """Returns log p of a model's present weights ``()``, in nats, summed over the layers; differentiable.

        The posterior's mode (MAP) of n training images minimises the mean loss minus ``log_prob(model) / n``.

        Args:
            model: The model that the priors were chosen for, or a copy; wrappers such as DDP do not matter.
            bound: Whether the lower bound on log p of a VAE may stand in for log p. It is drawn again at each call.

        Raises:
            ValueError: A prior has no exact density and ``bound`` is ``False``, or is ``True`` without such a prior, or
                the model lacks one of the layers.
        """
        bounds = [name for name, given in self.items() if not given.prior.exact]
        if bounds and not bound:
            raise ValueError(
                f"{self[bounds[0]].name!r} in layer {layer_text(bounds[0])!r} has a lower bound on log p, not log p "
                "itself, and it is drawn again at each call; take an exact prior, such as a mixture, or bound=True"
            )
        if bound and not bounds:
            raise ValueError("bound=True has no effect: all priors have an exact log p; remove it")
        modules = {named.name: named.module for named in named_modules(model)}
        if missing := [name for name in self if name not in modules]:
            raise ValueError(f"the model has no layer {few(missing)}; choose its priors again with layer_priors")
        weights = {name: getattr(modules[name], "weight", None) for name in self}
        for name, weight in weights.items():
            if not isinstance(weight, Tensor) or weight.shape != self[name].layer.shape:
                found = shape_text(weight.shape) if isinstance(weight, Tensor) else "no weight"
                raise ValueError(
                    f"layer {layer_text(name)!r} has {found}, but its prior is for {shape_text(self[name].layer.shape)}"
                    "; choose the priors of this model with layer_priors"
                )
        parts = [given.log_prob(cast(Tensor, weights[name])) for name, given in self.items()]
        return torch.stack([part.to(parts[0].device) for part in parts]).sum()

    def terms(self, samples: int = 1, train_reverse: bool = True, draws: int | None = None) -> dict[str, KL]:
        """Returns the divergence from each layer's prior, for :class:`Objective`.

        Args:
            samples: As in :func:`kl_from`.
            train_reverse: As in :func:`kl_from`.
            draws: As in :func:`kl_from`; for the priors with latents alone.

        Raises:
            ValueError: ``draws`` is given and no prior has latents.
        """
        latent = {name for name, given in self.items() if isinstance(given.prior, KernelVAE)}
        if draws is not None and not latent:
            raise ValueError(f"draws={draws} has no effect: no prior has latents; remove it")
        return {
            name: ScaledKL(kl_from(given.prior, samples, train_reverse, draws if name in latent else None), given.scale)
            for name, given in self.items()
        }

    def __str__(self) -> str:
        head = ("layer", "weight", "prior", "depth", "scale")
        rows = [(layer_text(name), *given.cells) for name, given in self.items()]
        without = [f"{layer_text(name)}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([aligned([head, *rows]), *without, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__


def layer_priors(
    model: nn.Module,
    prior: PriorsByPattern,
    *,
    layers: Layers | None = None,
    scale: Scale = "auto",
    without: Without = "fixed",
    access: Access | None = None,
) -> LayerPriors:
    """Chooses a prior for each convolution of a model, by its kernel size, kind and depth, as ``apply_`` does.

    Layers whose kernels a set keeps, such as the dense ones of ``"natural"``, have their priors all the same.
    A layer's scale follows from the weight that is there, so call this at the start of training, where weights are the
    author's or drawn: ``dwp_init.apply_(model, prior, scale="keep")`` draws all of these layers. The model does not
    change. What an author set up, such as frozen weights, has no prior unless ``layers`` has its exact name. Layers
    that take the middle row or resampled kernels of a prior have none, because the density of these is not known, nor
    do those that pass their inputs on.

    Args:
        model: The model.
        prior: As in :func:`dwp_init.apply_`: a name, a folder, a prior, a set such as ``"natural"``, several, or a
            mapping from patterns of layer names to these.
        layers: As in :func:`dwp_init.apply_`.
        scale: As in :func:`dwp_init.apply_`: the response of draws from the prior. ``"prior"`` keeps the scale of the
            source networks, which a network without normalisation that was drawn with ``scale="prior"`` needs.
        without: What becomes of the layers that no prior fits: ``"fixed"`` leaves them without a prior, ``"normal"``
            gives them a normal prior of independent weights at the layer's scale.
        access: How the Hub is reached.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: No layer takes a prior, a pattern matches no layer, a prior is unknown or corrupt, or an option is.
        PriorError: A prior could not be loaded from the Hub.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3))
        >>> priors = bayes.layer_priors(model, "natural")
        >>> [given.name for given in priors.values()]
        ['natural-stem', 'tinyimagenet-3x3']
        >>> loss = -priors.log_prob(model) / 1000
    """
    check_instance("model", model, nn.Module, "torch.nn.Module")
    check_one_of("without", without, get_args(Without))
    options = Options(scale, True, None, None, None)
    rules = load_rules(prior, access or Access())
    plan = choose(model, rules, layers, False, scale, anywhere=True)
    normal = [layer for layer in plan.convolutions if without == "normal" and _is_misfit(plan, layer)]
    if normal:
        check_patterns(plan, rules)
    else:
        check_plan(plan, rules, strict=False)
    found = {layer.name: normal_prior(layer) for layer in normal}
    others = [layer.name for layer in plan.convolutions if layer.name in plan.skipped and layer.name not in found]
    skipped = {name: plan.reasons[name].partition("; resize=")[0] for name in others}
    for choice in plan.choices:
        if reason := _without_density(choice):
            skipped[choice.layer.name] = reason
        else:
            found[choice.layer.name] = _learned(choice, options)
    if not found:
        raise ValueError(f"no layer can have a prior: {few([f'{name}: {reason}' for name, reason in skipped.items()])}")
    names = [layer.name for layer in plan.convolutions if layer.name in found]
    raised = {choice.layer.name for choice in plan.choices if choice.raised and choice.layer.name in found}
    return LayerPriors({name: found[name] for name in names}, skipped, _notes(raised))


def _without_density(choice: Choice) -> str | None:
    """Says why the density of a layer's weight under its prior is not known, or cannot be followed by a gradient."""
    module = choice.layer.module
    if choice.fitting.is_sliced or choice.fitting.is_resized:
        return f"the density of the {choice.fitting} of {choice.rule.name} is not known"
    if choice.passes_on():
        return (
            f"its first output channels are copies of its inputs, which {choice.rule.name} does not draw; in a new "
            "model, scale='fan_in' of apply_ draws all channels"
        )
    if "weight" not in dict(module.named_parameters(recurse=False)) and not parametrize.is_parametrized(module):
        return "hooks make its weight in each forward pass; use torch.nn.utils.parametrizations"
    return None


def _notes(raised: set[str]) -> tuple[str, ...]:
    """Says which layers have a scale that differs from that of the weight that is there."""
    return (
        f"layers {few(sorted(raised))} have PyTorch's default scale in a chain without normalisation, and priors at "
        "He's: first call apply_ with the same prior and scale='fan_in', which draws them all, or give scale='keep'",
    ) * bool(raised)


def normal_prior(layer: Layer) -> LayerPrior:
    """Returns the law of a layer whose weights are independent and normal, with mean 0, at the layer's scale."""
    prior = Gaussian((1, *layer.size)).to(layer.weight.device, wide_dtype(layer.weight.dtype))
    return LayerPrior(layer, prior.requires_grad_(False).eval(), _NORMAL, _response(layer))


def _learned(choice: Choice, options: Options) -> LayerPrior:
    layer = choice.layer
    prior = copy.deepcopy(choice.rule.prior_for(layer, layer.depth)).eval()
    prior.to("cpu", wide_dtype(layer.weight.dtype))
    scale = 1.0
    if (by := options.scale_of(choice)) != "prior":
        wanted = layer.he_rms if by == "fan_in" else _response(layer)
        scale = wanted / _response_of_draws(layer, prior, makes_orthogonal(choice, options))
    return LayerPrior(layer, prior.requires_grad_(False).to(layer.weight.device), choice.rule.name, scale)


def _response(layer: Layer) -> float:
    """Returns the response of the weight that is there, or He's if it has none."""
    found = layer.measure(layer.weight.read()).response
    return found if math.isfinite(found) and found > 0 else layer.he_rms


def _response_of_draws(layer: Layer, prior: Prior, orthogonal: bool) -> float:
    """Returns the root mean square of a prior's kernels times the gain of a weight that ``apply_`` draws from it."""
    outputs = max(-(-_DRAWS * prior.kernel_shape[0] // layer.inputs), 1)
    if orthogonal or prior.joint:  # filters then depend on how many there are
        outputs = layer.shape.numel() // (layer.inputs * layer.size.numel())
    count = outputs * layer.inputs // prior.kernel_shape[0]
    kernels = prior.sample_layer(count, torch.Generator().manual_seed(0))
    own = root_mean_square(kernels)
    if orthogonal:
        kernels = orthogonal_channels(kernels.float(), layer.blocks, layer.inputs)
    filters = kernels.reshape(outputs, layer.inputs, *layer.size)
    return own * strength(filters, layer.correlations, layer.alike).gain


def _is_misfit(plan: Plan, layer: Layer) -> bool:
    """Whether no prior fits a layer that the caller asked for and whose weight could be drawn."""
    return layer.asked and layer.reason is None and plan.reasons.get(layer.name, "").startswith(NO_PRIOR)
