"""Sets of priors: one for each kind of convolution that a network may have."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwp_init.layers import KINDS
from dwp_init.priors import Prior


@dataclass(frozen=True)
class PriorSet:
    """Names the priors that each kind of convolution takes, where kernels of one size differ by kind.

    A layer's kind is *depthwise* where each of its input channels is a group of its own; *stem* where it is the model's
    first convolution with kernels larger than 1×1 and has one group; and *dense* otherwise. A stem that no prior for
    stems fits takes one for dense layers.

    Args:
        stem: Names, folders or priors, of all input channels jointly, such as ``(3, k, k)`` for colour images; a stem
            with other channels takes none of these.
        dense: The same for dense layers, grouped ones included.
        depthwise: The same for depthwise layers.
        orthogonal: Whether ``apply_`` makes output channels orthogonal, where it is not told otherwise.
        name: What it is called.
    """

    stem: tuple[str | Path | Prior, ...] = ()
    dense: tuple[str | Path | Prior, ...] = ()
    depthwise: tuple[str | Path | Prior, ...] = ()
    orthogonal: bool = False
    name: str = "PriorSet"

    def __post_init__(self) -> None:
        for kind in KINDS:
            given = getattr(self, kind)
            if not isinstance(given, (tuple, list)):
                raise TypeError(f"{kind}= takes a tuple of names, folders or priors; got {given!r}")
        if not isinstance(self.orthogonal, bool):
            raise TypeError(f"orthogonal= is True or False; got {self.orthogonal!r}")
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name= is what the set is called, a str; got {self.name!r}")
        if not any(self):
            raise ValueError(f"a PriorSet needs a prior for one kind at least: {', '.join(KINDS)}")

    def __iter__(self) -> Iterator[tuple[str, str | Path | Prior]]:
        """Yields each prior with its kind, those for stems first."""
        return ((kind, like) for kind in KINDS for like in getattr(self, kind))


_NATURAL = PriorSet(
    stem=("tinyimagenet-stem-7x7",),
    dense=("tinyimagenet-3x3", "tinyimagenet-5x5", "tinyimagenet-7x7"),
    depthwise=("tinyimagenet-dw3x3", "tinyimagenet-dw7x7"),
    orthogonal=True,
    name="natural",
)
SETS: dict[str, PriorSet] = {prior_set.name: prior_set for prior_set in (_NATURAL,)}
