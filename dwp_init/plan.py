"""The plan of a call: which layer takes which prior and what becomes of its scale, and why others are skipped."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dwp_init.chain import Rectified
from dwp_init.layers import Layer
from dwp_init.passing import passed_on, passes_on
from dwp_init.report import IDENTITY, OWN_WEIGHTS
from dwp_init.resample import Fitting
from dwp_init.rules import Rule


class Choice(NamedTuple):
    """A layer, the prior that it takes, and how the prior's kernels become those of the layer.

    Attributes:
        layer: The layer.
        rule: The prior.
        fitting: How the kernels change their size.
        may_pass: Whether the layer may pass its inputs on: its set of priors says so, and where it stands allows it.
        normalised: Whether it may because its outputs are normalised, at any scale.
        own: Whether the layer keeps its own kernels, and only their scale or its first channels change.
        fits: Whether the prior has kernels for the layer; if not, it is one of the set that rescales the layer.
        raised: Whether it takes He's response by default.
        passing: Whether it passes its inputs on.
        unchanged: Whether an earlier call has left it as this one would.
    """

    layer: Layer
    rule: Rule
    fitting: Fitting
    may_pass: bool = False
    normalised: bool = False
    own: bool = False
    fits: bool = True
    raised: bool = False
    passing: bool = False
    unchanged: bool = False

    @property
    def is_left(self) -> bool:
        """Whether the set of priors leaves the layer as it is, because its kernels are smaller than the prior's."""
        return self.rule.only_larger and self.fitting.is_reduced

    def is_drawn(self) -> bool:
        """Whether the weight looks as an earlier draw does that is not random in all of its channels."""
        if self.passes_on():
            return True
        prior = self.rule.prior_for(self.layer, self.layer.depth)
        return prior.drew(self.layer.filters(self.layer.weight.read()))

    def passes_on(self) -> bool:
        """Whether the layer may pass its inputs on, and does so."""
        return self.may_pass and passes_on(self.layer, exactly=not self.normalised)

    @property
    def draws(self) -> bool:
        """Whether kernels of the prior are drawn."""
        return not (self.own or (self.passing and self.passes_all))

    @property
    def prior_text(self) -> str:
        """Names the prior and what is done with its kernels, as in :class:`dwp_init.report.Drawn`."""
        if self.passing and self.passes_all:
            return IDENTITY
        copies = f"{passed_on(self.layer)} of {self.layer.shape[0]} channels identity" if self.passing else ""
        drawn = (OWN_WEIGHTS,) if self.own else (self.rule.name, str(self.fitting))
        return ", ".join(filter(None, (*drawn, copies)))

    @property
    def passes_all(self) -> bool:
        """Whether no output channel is left to draw if the layer passes its inputs on."""
        return passed_on(self.layer) == self.layer.shape[0]


class Skip(NamedTuple):
    """Why a layer is skipped, whether the caller wanted it, and of a layer that a set leaves its prior for it."""

    reason: str
    wanted: bool = True
    rule: Rule | None = None


@dataclass(frozen=True)
class Plan:
    """What ``apply_`` will do to a model.

    Attributes:
        convolutions: All convolutions of the model, in the order of its modules.
        choices: The layers that take a prior, in the same order.
        skipped: All other layers with parameters, by name.
        unused: Names of the priors that no layer takes.
        chain: The plain chain of the model, if the scale depends on that.
    """

    convolutions: list[Layer]
    choices: list[Choice]
    skipped: dict[str, Skip]
    unused: list[str]
    chain: Rectified = field(default_factory=Rectified)

    @property
    def layers(self) -> list[Layer]:
        """The layers that take a prior."""
        return [choice.layer for choice in self.choices]

    @property
    def kept(self) -> list[Layer]:
        """The layers that a set leaves as they are, though it has a prior for them."""
        kept = {name for name, skip in self.skipped.items() if skip.rule}
        return [layer for layer in self.convolutions if layer.name in kept]

    @property
    def reasons(self) -> dict[str, str]:
        """Why each of the other layers is skipped, by name."""
        return {name: skip.reason for name, skip in self.skipped.items()}

    @property
    def spatial(self) -> dict[str, int]:
        """Numbers of weights of the convolutions with kernels larger than 1×1 that the caller asked for, by name.

        A number is 0 if it is not known. Layers that share the weight of a drawn one are left out.
        """
        drawn = {choice.layer.place: choice.layer for choice in self.choices}
        asked = (layer for layer in self.convolutions if layer.is_spatial and layer.asked)
        return {layer.name: layer.weights for layer in asked if drawn.get(layer.place, layer) is layer}
