"""Sets of priors: one for each kind of convolution that a network may have."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwp_init.layers import KINDS, Kind
from dwp_init.options import check_flag
from dwp_init.priors import Prior

SetMember = str | Path | Prior  # a prior's name, its folder or the object


@dataclass(frozen=True)
class PriorSet:
    """A set of priors in which each kind of convolution has its own.

    A layer is *depthwise* if each of its input channels is a group of its own. The *stem* reads the images: it is
    the first convolution with kernels larger than 1×1, one group, and at most 4 input channels that are fewer than its
    outputs or, without such a layer, the first of all. All other layers are *dense*. If no prior for stems fits the
    stem, it takes a prior for dense layers.

    Args:
        stem: Names, folders or priors for the stem. They model the kernels of all input channels jointly, such as
            ``(3, k, k)`` for colour images; a stem with another number of channels takes none of them.
        dense: Names, folders or priors for dense layers, grouped ones included.
        depthwise: Names, folders or priors for depthwise layers.
        orthogonal: Default of the argument ``orthogonal`` of ``apply_`` for layers that take a prior of this set.
        name: Name of the set in reports and messages.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The set is empty.
    """

    stem: tuple[SetMember, ...] = ()
    dense: tuple[SetMember, ...] = ()
    depthwise: tuple[SetMember, ...] = ()
    orthogonal: bool = False
    name: str = "PriorSet"

    def __post_init__(self) -> None:
        for kind in KINDS:
            given = getattr(self, kind)
            if not isinstance(given, (tuple, list)):
                raise TypeError(f"{kind} must be a tuple of names, folders or priors; got {given!r}")
        check_flag("orthogonal", self.orthogonal)
        _check_name(self.name)
        if not any(self):
            raise ValueError(f"a PriorSet needs at least one prior, for one of the kinds {', '.join(KINDS)}")

    def __iter__(self) -> Iterator[tuple[Kind, SetMember]]:
        """Yields each prior with the kind of layer that it is for, those for stems first."""
        return ((kind, prior) for kind in KINDS for prior in getattr(self, kind))


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a str that is not empty; got {name!r}")


_NATURAL = PriorSet(
    stem=("tinyimagenet-stem-7x7",),
    dense=("tinyimagenet-3x3", "tinyimagenet-5x5", "tinyimagenet-7x7"),
    depthwise=("tinyimagenet-dw3x3", "tinyimagenet-dw7x7"),
    orthogonal=True,
    name="natural",
)
SETS: dict[str, PriorSet] = {prior_set.name: prior_set for prior_set in (_NATURAL,)}
