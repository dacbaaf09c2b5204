"""Reads a prior's untrusted ``details`` once, into typed values for its card.

``details`` can be any JSON. The fields below are called as the pipeline calls them there; one that is missing or has
another type keeps its default. All text is inert Markdown: nothing of the details is markup, a link or a mention.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dwp_init import Prior
from training.fits.base import LARGEST_NUMBER
from training.kernels.kernelset import PARTS

LONGEST = 300
Form = TypeVar("Form")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~$])")
_LINK = re.compile(r"([\w./:@+%=~?-]*(?:://|www\.|@)[\w./:@+%=~?-]*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RecordedOrigin:
    """What a manifest said of a checkpoint, see :class:`training.kernels.manifest.Origin`."""

    license: str = ""
    attribution: str = ""
    trained_on: str = ""
    accuracy: str = ""
    domain: str = ""


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """What kernels a prior was fitted to.

    Args:
        checkpoint: A checkpoint of others that was turned into a prior.
        checkpoints: Trained networks that existed already.
        origins: What is known of them by name; a name is any text.
        file: A file of the prior's maker.
        given_filters: Number of filters that others found in trained networks, around which a prior was made.
        fitted_images: Number of images that a prior was fitted to instead of kernels.
        kind: The kind of their layers, such as ``"depthwise"``.
        kernels: Their numbers by part.
        kept: The share of its kernels that a layer kept, or that each of several layers kept.
        held_out_networks: Numbers of networks held out by part, such as ``test``, if they were held out whole.
        held_out_families: Of a harvest, names of families of checkpoints held out by part, if they were held out whole.
    """

    checkpoint: str = ""
    checkpoints: tuple[Any, ...] = ()
    origins: Mapping[str, RecordedOrigin] = field(default_factory=dict)
    file: str = ""
    given_filters: int = 0
    fitted_images: int = 0
    kind: str = ""
    kernels: Mapping[str, int] = field(default_factory=dict)
    kept: float | tuple[float, ...] = ()
    held_out_networks: Mapping[str, int] | None = None
    held_out_families: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """The first of these fields that is recorded, ``images`` for ``fitted_images``; or ``unknown``."""
        if self.fitted_images:
            return "images"
        names = ("checkpoint", "checkpoints", "file", "given_filters")
        return next((name for name in names if getattr(self, name)), "unknown")

    @property
    def total(self) -> int | None:
        """Number of kernels; None unless those of all parts are known."""
        return sum(self.kernels[part] for part in PARTS) if self.kernels.keys() >= set(PARTS) else None

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares kept, one for each layer; empty where one of them is not a share."""
        shares = self.kept if isinstance(self.kept, tuple) else (self.kept,)
        return shares if all(1e-4 <= share <= 1 for share in shares) else ()


@dataclass(frozen=True, kw_only=True)
class TrainedNetworks(KernelSource):
    """Kernels of networks that the pipeline trained.

    Args:
        network: The kind of network, ``"mnist"`` for the paper's.
        layer: Name of the layer, or names of several.
        init_scale: Factor of the usual initial scale of spatial kernels.
        min_norm: Share of a quantile of the norms below which kernels were left out.
        norm_threshold: The norm that this amounts to, where there is one layer.
        made_with: What they were trained with: ``torch`` and ``processor``.
    """

    dataset: str
    images: int
    network: Any = "mnist"
    filters: tuple[Any, ...]
    networks: int
    layer: str | tuple[Any, ...]
    epochs: int
    batch_size: int
    lr: float
    l2: float
    precision: str
    init_scale: float = 1.0
    test_accuracy_mean: float
    made_with: Mapping[str, str] = field(default_factory=dict)
    min_norm: float | None = None
    norm_threshold: float | None = None

    @property
    def form(self) -> str:
        return "networks"

    @property
    def layers(self) -> tuple[Any, ...]:
        """The names of several layers; empty where a single one is named."""
        return self.layer if isinstance(self.layer, tuple) else ()


@dataclass(frozen=True, kw_only=True)
class SampleStatistics:
    """What kernels of one origin are like, see :mod:`training.fits.statistics`."""

    rms: float
    norm_5_50_95: tuple[Any, ...]
    roughness: float | None = None
    frechet: float
    accuracy: float | None = None
    fidelity: float | None = None
    fidelity_noise: float | None = None
    fidelity_interpolated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Mean log p of held-out kernels, in nats per kernel; next to it a Gaussian's, and both where the depth is known.

    That of white noise is at the root mean square of the kernels of the fit.

    Args:
        kernels: Number of held-out kernels.
        kind: ``"bound"`` where the prior's log p is a lower bound.
        log_prob_by_depth: Log p at each of the prior's depths.
        samples: What kernels are like: those held out (``real``), draws (``drawn``) and draws without noise (``mean``).
    """

    log_prob: float | None = None
    gaussian_log_prob: float | None = None
    white_noise_log_prob: float | None = None
    log_prob_at_depth: float | None = None
    gaussian_log_prob_at_depth: float | None = None
    log_prob_by_depth: tuple[float, ...] = ()
    kernels: int | None = None
    kind: str = ""
    samples: Mapping[str, SampleStatistics] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a prior's details say.

    Args:
        name: Its name, and ``license`` its licence: as they are, on one line; empty where there is none.
        data: The id of the data set, as it is.
        synthetic: Whether the prior was made under ``--smoke``, from synthetic images.
        recorded: All that is recorded of a source that the pipeline did not train.
        fit: The settings of the fit, as they are.
        bound: Whether the prior's held-out log p is a lower bound.
    """

    name: str
    license: str
    data: str
    synthetic: bool
    source: KernelSource
    recorded: Mapping[str, str]
    fit: Mapping[str, Any]
    metrics: Metrics
    bound: bool

    @classmethod
    def of(cls, prior: Prior) -> "Details":
        """Reads the details of a prior."""
        source = section(prior.details, "source")
        name, license, data = prior.details.get("name"), prior.details.get("license"), source.get("dataset")
        found = read_form(TrainedNetworks, source) or read_form(KernelSource, source) or KernelSource()
        shown = source if not isinstance(found, TrainedNetworks) else {}
        own_rows = {"origins", "held_out_families", *(["kernels"] if found.total is not None else [])}
        metrics = read_form(Metrics, section(prior.details, "metrics")) or Metrics()
        return cls(
            name=single_line(name) if isinstance(name, str) else "",
            license=single_line(license) if isinstance(license, str) else "",
            data=data if isinstance(data, str) else "",
            synthetic=bool(source.get("synthetic", False)),
            source=found,
            recorded={plain(key): plain(value) for key, value in shown.items() if key not in own_rows},
            fit=section(prior.details, "fit"),
            metrics=metrics,
            bound=not prior.exact or metrics.kind == "bound",
        )


def read_form(form: type[Form], values: Mapping[str, Any]) -> Form | None:
    """Reads a JSON object into a dataclass; None where a field without a default is missing or has another type."""
    hints, found = get_type_hints(form), {}
    for each in dataclasses.fields(form):  # type: ignore[arg-type]
        value = _as(hints[each.name], values[each.name]) if each.name in values else None
        if value is not None:
            found[each.name] = value
        elif each.default is MISSING and each.default_factory is MISSING:
            return None
    return form(**found)


def section(values: object, *path: str) -> Mapping[str, Any]:
    """Returns an object within JSON objects, such as ``metrics``, ``samples``; empty where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def number(value: object) -> float | None:
    """Returns a finite number of JSON as it is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < LARGEST_NUMBER else None


def plain(value: object, longest: int = LONGEST) -> str:
    """Renders any JSON value as one line of inert Markdown, with at most ``longest`` characters before escapes."""
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    text = single_line(text)
    return inert(text if len(text) <= longest else text[: longest - 1] + "…")


def inert(text: str) -> str:
    """Escapes Markdown and HTML; text that renderers turn into links or mentions becomes code."""
    parts = _LINK.split(text)  # every second part is a link
    return "".join(f"`{part}`" if i % 2 else _MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))


def single_line(text: str) -> str:
    """Replaces line breaks and other characters that cannot be printed by single spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _as(kind: Any, value: object) -> Any:
    """Returns a JSON value as a field's type has it; None where it is not of that type."""
    if isinstance(kind, UnionType):
        return next((found for each in get_args(kind) if (found := _as(each, value)) is not None), None)
    if get_origin(kind) is tuple:
        found = [_as(get_args(kind)[0], each) for each in value] if isinstance(value, list) else [None]
        return None if None in found else tuple(found)
    if get_origin(kind) is Mapping and isinstance(value, dict):
        of = get_args(kind)[1]
        return {key: found for key, each in value.items() if (found := _as(of, each)) is not None}
    if kind is Any:
        return plain(value)
    if kind is str:
        return plain(value) if isinstance(value, str) else None
    if kind is int:  # all whole numbers are counts
        return value if type(value) is int and 0 <= value < LARGEST_NUMBER else None
    if kind is float:
        return number(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return read_form(kind, value)
    return None
