"""The bound of Eq. 3 for one network, with a divergence from a prior for each Bayesian layer."""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.bayes.kl import KL
from dwp_init.bayes.layers import BayesConv2d, bayes_layers
from dwp_init.priors.checks import check_count
from dwp_init.priors.latent import Normal
from dwp_init.tensors import wide, wide_dtype
from dwp_init.text import few

_NO_LABEL = torch.iinfo(torch.int64).min  # a label that is ignored; torch's default, -100, would hide a mistake


class Terms(NamedTuple):
    """The parts of the negative evidence lower bound, in nats.

    Attributes:
        nll: The part of the data, ``()``.
        kl: The divergence of each layer, ``(layers,)``.
    """

    nll: Tensor
    kl: Tensor


class Objective(nn.Module):
    """-L = -Σ E log p(y|x, w) + Σ KL(q(w) ‖ p(w)), or the upper bound on it for priors defined through latents.

    In training mode the estimator of the layers draws their outputs, see :class:`BayesConv2d`. With ``"flipout"`` the
    first part is an unbiased estimate of the expectation, unless images depend on each other, as in batch norm. With
    ``"local"``, as in the paper, it is that of a network which averages more noise away, over positions, than those of
    :func:`dwp_init.bayes.sample_network` do: with global pooling it may be far lower, and the scales that it leads to
    wider. In evaluation mode the first part is that of the mean weights. The expectation itself is the mean over drawn
    networks of ``Objective(sample_network(network)).nll(...)``.

    Args:
        network: A network with Bayesian layers, or without any for deterministic training. It is not copied.
        terms: The divergences. Each Bayesian layer takes a copy of the first one that fits it, so one ``NormalKL()`` is
            for all layers, and a :class:`dwp_init.bayes.PriorKL` for those of its kernel size, whose kernels of several
            channels are for layers of as many. A mapping names the layer of each, such as
            :meth:`dwp_init.bayes.LayerPriors.terms`; there the layer's channels may be a multiple.
        kernels: Maximum number of random kernels of a layer used in a step. Their sum is scaled up to all kernels, so
            it stays unbiased, and time and memory of a step are bounded. ``None`` for all.
        augmented: Whether batches are ``(batch, copies, c, h, w)``: augmented copies of each image, the mean of whose
            likelihoods is that of the image, which counts once. In training mode each copy has noise of its own, so
            that the mean is over draws of the outputs too.

    Attributes:
        layers: Names of the Bayesian layers.

    Raises:
        TypeError: A term is no divergence.
        ValueError: A Bayesian layer has no term, so its divergence would silently be 0, a term has no layer, or terms
            are trained whose gradients ``DistributedDataParallel`` inside the objective would not reduce.
    """

    def __init__(
        self,
        network: nn.Module,
        terms: KL | Iterable[KL] | Mapping[str, KL] = (),
        kernels: int | None = None,
        *,
        augmented: bool = False,
    ) -> None:
        super().__init__()
        if kernels is not None:
            check_count(kernels=kernels)
        self.network, self.kernels, self.augmented = network, kernels, augmented
        found = bayes_layers(network)
        self.layers: list[str] = list(found)
        if isinstance(terms, Mapping):
            given = cast(Mapping[str, KL], terms)
            _check_divergences(given.values())
            chosen = _check_named(found, given)
        else:
            every = [terms] if isinstance(terms, KL) else list(terms)
            _check_divergences(every)
            chosen = _match(found, every)
        self.terms = nn.ModuleList(copy.deepcopy(chosen[name]) for name in self.layers)
        _check_reduced(network, self.terms)
        weight = next(network.parameters(), None)
        if weight is None:
            raise ValueError(f"the network, a {type(network).__name__}, has no parameters to train")
        self.terms.to(weight.device, wide_dtype(weight.dtype))  # densities need its range

    def extra_repr(self) -> str:
        return f"kernels={self.kernels}, augmented={self.augmented}, layers={self.layers}"

    def forward(self, images: Tensor, labels: Tensor, count: int) -> Terms:
        """Estimates both parts from a minibatch.

        Args:
            images: ``(batch, c, h, w)``, or what else the network takes; ``(batch, copies, c, h, w)`` if ``augmented``.
            labels: ``(batch,)``.
            count: Number of images in the training set, to which the minibatch is scaled up.
        """
        return Terms(self.nll(images, labels, count), self.kl())

    def nll(self, images: Tensor, labels: Tensor, count: int) -> Tensor:
        """Returns the first part ``()``; the arguments are those of :meth:`forward`."""
        labels = _checked_labels(labels)
        if not self.augmented:
            return _cross_entropy(logits_of(self.network, images), labels, "mean") * count
        if images.dim() < 5 or len(images) != len(labels) or images.shape[1] < 1:
            raise ValueError(
                f"images of an augmented objective are (batch, copies, c, h, w) for {len(labels)} labels; got "
                f"{tuple(images.shape)}: give copies, or leave out augmented=True"
            )
        copies = images.shape[1]
        logits = logits_of(self.network, images.flatten(0, 1))
        each = -_cross_entropy(logits, labels.repeat_interleave(copies), "none").view(-1, copies)
        return (math.log(copies) - each.logsumexp(1)).mean() * count

    def kl(self) -> Tensor:
        """Returns the divergence of every layer ``(layers,)``, in nats, from at most ``kernels`` of its kernels."""
        parts = [self._layer_kl(layer, term) for layer, term in self.pairs()]
        return torch.stack(parts) if parts else next(self.network.parameters()).new_zeros(0)

    def _layer_kl(self, layer: BayesConv2d, term: KL) -> Tensor:
        q = kernels_of(layer, term)
        count = len(q.loc)
        if self.kernels is None or self.kernels >= count:
            every: Tensor = term(q)
            return every.sum()
        picked = torch.rand(count, device=q.loc.device).argsort()[: self.kernels]
        some: Tensor = term(Normal(q.loc[picked], q.scale[picked]))
        return some.sum() * (count / self.kernels)

    def pairs(self) -> list[tuple[BayesConv2d, KL]]:
        """Returns each Bayesian layer with its term; raises ``ValueError`` if the network has other ones by now."""
        found = bayes_layers(self.network)
        if list(found) != self.layers:
            raise ValueError(
                f"the network had the Bayesian layers {few(self.layers)}, and has {few(list(found)) or 'none'} now; "
                "make its Objective again"
            )
        return list(zip(found.values(), cast(Iterable[KL], self.terms), strict=True))


def _check_divergences(terms: Iterable[object]) -> None:
    for term in terms:
        if not isinstance(term, KL):
            kind = type(term).__name__
            raise TypeError(
                f"terms are divergences; got a {kind}: give priors.terms() of what bayesianize_ returns, or "
                "bayes.kl_from(prior)"
            )


def _check_reduced(network: nn.Module, terms: nn.Module) -> None:
    wrapped = any(isinstance(each, nn.parallel.DistributedDataParallel) for each in network.modules())
    if wrapped and any(each.requires_grad for each in terms.parameters()):
        raise ValueError(
            "the terms are trained, and DistributedDataParallel around the network does not reduce their gradients: "
            "wrap the Objective instead"
        )


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Returns a network's output in float32 at least; raises ``ValueError`` unless it is a tensor."""
    found: object = network(images)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the network returns a {type(found).__name__}, and logits must be a tensor (batch, classes): wrap it in a "
            "module that returns them, or add objective.kl() to a loss of your own"
        )
    return wide(found)


def _checked_labels(labels: object) -> Tensor:
    """Returns labels as int64; raises unless they are one whole number for each image."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor (batch,) of class numbers; got {type(labels).__name__}")
    if labels.dim() != 1:
        raise ValueError(f"labels are one class for each image, (batch,); got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are class numbers from 0 on; got {labels.dtype}: convert them with labels.long()")
    return labels.long()


def _cross_entropy(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Returns the negative log likelihood of the labels; raises ``ValueError`` if one is no class of the logits."""
    try:
        return F.cross_entropy(logits, labels, reduction=reduction, ignore_index=_NO_LABEL)
    except IndexError as error:
        raise ValueError(
            f"labels must be from 0 to {logits.shape[1] - 1}, as the network returns {logits.shape[1]} logits; got "
            f"labels from {labels.min()} to {labels.max()}"
        ) from error


def kernels_of(layer: BayesConv2d, term: KL) -> Normal:
    """Returns q of a layer's kernels, each part ``(n, c, k, k)`` with the term's c, or 1; in float32 at least."""
    return Normal(*(part.reshape(-1, _channels(term), *layer.kernel_size) for part in layer.wide_q))


def _check_named(layers: dict[str, BayesConv2d], terms: Mapping[str, KL]) -> dict[str, KL]:
    for name in terms:
        if name not in layers:
            there = ", ".join(layers) or "none"
            raise ValueError(f"terms has a divergence for {name!r}, which is no Bayesian layer; there are {there}")
    for name, layer in layers.items():
        if name not in terms or not terms[name].fits(layer):
            raise ValueError(_without_term(name, layer, [terms[name]] if name in terms else []))
    return {name: terms[name] for name in layers}


def _match(layers: dict[str, BayesConv2d], terms: list[KL]) -> dict[str, KL]:
    chosen: dict[str, KL] = {}
    for name, layer in layers.items():
        fitting = [term for term in terms if term.fits(layer) and _channels(term) in (1, layer.weight.shape[1])]
        if not fitting:
            raise ValueError(_without_term(name, layer, terms))
        chosen[name] = fitting[0]
    for term in terms:
        if not any(term is used for used in chosen.values()):
            there = ", ".join(
                f"{name} {'×'.join(map(str, layer.weight.shape))}, which takes {_describe(chosen[name])}"
                for name, layer in layers.items()
            )
            raise ValueError(f"no Bayesian layer takes {_describe(term)}; the network has {there or 'none'}")
    return chosen


def _channels(term: KL) -> int:
    """Returns the number of input channels that a term's kernels join."""
    return 1 if term.kernel_shape is None else term.kernel_shape[0]


def _without_term(name: str, layer: BayesConv2d, terms: list[KL]) -> str:
    """Says that a layer has no term of those given."""
    given = ", ".join(map(_describe, terms)) or "none"
    return (
        f"layer {name!r}, a {type(layer).__name__} of {'×'.join(map(str, layer.weight.shape))}, has no divergence from "
        f"a prior that fits ({given}): its KL would be 0. Give one, by the layer's name if its kernels join other "
        "channels than all of the layer's, or leave the layer out of bayesianize_"
    )


def _describe(term: KL) -> str:
    size = "" if term.kernel_shape is None else f" of {'×'.join(map(str, term.kernel_shape))} kernels"
    return type(term).__name__ + size
