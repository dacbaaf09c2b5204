"""Sets of priors: one for each kind of convolution that a network may have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from dwp_init.layers import KINDS, Kind
from dwp_init.options import check_flag
from dwp_init.priors import Prior

SetMember = str | Path | Prior  # a prior's name, its folder or the object


@dataclass(frozen=True)
class PriorSet:
    """A set of priors in which each kind of convolution has its own.

    A layer is *depthwise* if each of its input channels is a group of its own. The *stem* reads the images: it is
    the first convolution with kernels larger than 1×1, one group, and at most 4 input channels that are fewer than its
    outputs or, without such a layer, the first of all. So are others of that kind with as many input channels, as in a
    second encoder, unless another convolution is before them in an ``nn.Sequential``. All other layers are *dense*. If
    no prior for stems fits a stem, it takes a prior for dense layers, as one of these.

    Args:
        stem: Names, folders or priors for the stem. They model the kernels of all input channels jointly, such as
            ``(3, k, k)`` for colour images; a stem with another number of channels takes none of them. Those that
            draw the filters of a layer together take any 2-D stem of up to 3 channels whose size they can make.
        dense: Names, folders or priors for dense layers, grouped ones included.
        depthwise: Names, folders or priors for depthwise layers.
        orthogonal: Default of the argument ``orthogonal`` of ``apply_`` for layers that take a prior of this set: for
            all of them, or for those of some kinds.
        name: Name of the set in reports and messages.
        kept: Kinds whose layers keep their own kernels with ``scale="auto"``, unless ``layers`` contains their exact
            names, the model has no other convolution, or a prior of their size is given besides the set. In all plain
            chains they pass their inputs on if ``dirac`` says so and a prior of the set fits them. In plain chains
            without normalisation, those of PyTorch's default weights that a ReLU or the like follows are scaled to He's
            response, and so are such layers that no prior fits, 1×1 ones among them. The latter stay if the set has no
            prior for a kind that it keeps, with another scale, and where ``layers`` contains their exact names.
        only_larger: Kinds whose kernels ``resize=True`` resamples to larger sizes only: layers with smaller kernels
            stay as they are.
        dirac: Whether layers of plain chains pass their inputs on: as many of the first output channels as there are
            inputs become copies of these, but for the bias, as ``torch.nn.init.dirac_`` makes them, and only the others
            are draws, or kept. With as many outputs as inputs nothing is drawn, and the report names the prior
            ``identity``. These are layers between ReLUs whose weights are PyTorch's default, where nothing normalises;
            and layers that batch normalisation follows, where all copies are multiplied by one number, which gives them
            the response that the layer had, and every fourth of those that would pass on all in a row does not. All
            convolutions of the model are then in one chain, an ``nn.Sequential`` of PyTorch's modules or a module whose
            forward pass hands one tensor from call to call, or with batch normalisation in several of one parent, each
            of which takes as many channels as the one before returns. No module around a chain may add its outputs to
            its inputs. Only with ``scale="auto"``, and not the stem, depthwise and transposed layers, kernels of even
            size, layers with strides, or those with fewer outputs than inputs.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: The set is empty.
    """

    stem: tuple[SetMember, ...] = ()
    dense: tuple[SetMember, ...] = ()
    depthwise: tuple[SetMember, ...] = ()
    orthogonal: bool | tuple[Kind, ...] = False
    name: str = "PriorSet"
    kept: tuple[Kind, ...] = field(default=(), kw_only=True)
    only_larger: tuple[Kind, ...] = field(default=(), kw_only=True)
    dirac: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for kind in KINDS:
            given = getattr(self, kind)
            if not isinstance(given, (tuple, list)):
                raise TypeError(f"{kind} must be a tuple of names, folders or priors; got {given!r}")
            object.__setattr__(self, kind, tuple(cast(Sequence[SetMember], given)))  # a set can be hashed
        if not isinstance(self.orthogonal, bool):
            object.__setattr__(self, "orthogonal", _kinds("orthogonal", "True, False or ", self.orthogonal))
        for name in ("kept", "only_larger"):
            object.__setattr__(self, name, _kinds(name, "", getattr(self, name)))
        check_flag("dirac", self.dirac)
        _check_name(self.name)
        if not any(self):
            raise ValueError(f"a PriorSet needs at least one prior, for one of the kinds {', '.join(KINDS)}")

    def makes_orthogonal(self, kind: Kind | None) -> bool:
        """Whether output channels of layers of a kind are made orthogonal by default."""
        return self.orthogonal if isinstance(self.orthogonal, bool) else kind in self.orthogonal

    def __iter__(self) -> Iterator[tuple[Kind, SetMember]]:
        """Yields each prior with the kind of layer that it is for, those for stems first."""
        return ((kind, prior) for kind in KINDS for prior in getattr(self, kind))


def _kinds(name: str, others: str, given: object) -> tuple[Kind, ...]:
    """Returns the kinds that an argument names, which is a tuple or a list of these, or one of the ``others``."""
    kinds = cast(Sequence[object], given) if isinstance(given, (tuple, list)) else (None,)
    if not all(kind in KINDS for kind in kinds):
        raise TypeError(f"{name} must be {others}a tuple of the kinds {', '.join(KINDS)}; got {given!r}")
    return cast(tuple[Kind, ...], tuple(kinds))


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a str that is not empty; got {name!r}")


_DENSE = ("tinyimagenet-3x3", "tinyimagenet-5x5", "tinyimagenet-7x7")
_NATURAL = PriorSet(
    stem=("natural-stem",),
    dense=_DENSE,
    depthwise=("natural-dw7x7",),
    kept=("dense",),
    only_larger=("depthwise",),
    orthogonal=("dense",),
    dirac=True,
    name="natural",
)
_NATURAL_V1 = PriorSet(
    stem=("tinyimagenet-stem-7x7",),
    dense=_DENSE,
    depthwise=("tinyimagenet-dw3x3", "tinyimagenet-dw7x7"),
    orthogonal=True,
    name="natural-v1",
)
SETS: dict[str, PriorSet] = {prior_set.name: prior_set for prior_set in (_NATURAL, _NATURAL_V1)}
