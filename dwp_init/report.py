"""What ``apply_`` did or would do, layer by layer."""

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dwp_init.text import aligned, few, html_table, printable

IDENTITY = "identity"
"""What a report calls the prior of a layer that passes all of its inputs on."""
OWN_WEIGHTS = "own weights"
"""What a report calls the prior of a layer that keeps kernels of its own."""
_COLUMNS = 120  # width of a terminal


@dataclass(frozen=True)
class Drawn:
    """One initialised layer.

    The gain of a weight is the factor by which it strengthens smooth inputs more than white noise of its root mean
    square would; ``rms · gain`` is the response of the layer.

    Attributes:
        layer: Name of the layer in the model.
        kind: Class of the layer and shape of its weight.
        prior: Name of the prior and, if the draws were resampled, their original size. ``identity`` if the layer passes
            all of its inputs on and nothing is drawn, and ``own weights`` if it keeps its own kernels but for their
            scale; then how many channels are copies of the inputs.
        depth: Position among the model's convolutions with kernels larger than 1×1: 0 is the first, 1 the last. It is
            also 0 for a 1×1 convolution.
        weights: Number of weights, without the bias.
        rms_before: Root mean square of the weight before; ``None`` if it could not be read.
        rms_after: Root mean square of the weight after; ``None`` in a dry run.
        gain_before: Gain of the weight before; ``None`` if it is not known.
        gain_after: Gain of the weight after; ``None`` in a dry run, or if it is not known.
    """

    layer: str
    kind: str
    prior: str
    depth: float
    weights: int
    rms_before: float | None
    rms_after: float | None
    gain_before: float | None = None
    gain_after: float | None = None

    @property
    def from_prior(self) -> str:
        """Name of the prior of which kernels were drawn; empty if none was."""
        name = self.prior.partition(",")[0]
        return "" if name in (IDENTITY, OWN_WEIGHTS) else name


@dataclass(frozen=True)
class Coverage:
    """How many of the convolutions with kernels larger than 1×1 were initialised.

    Attributes:
        layers: Number of those that were initialised; in a dry run, of those that would be.
        all_layers: Number of all that ``apply_`` was asked for.
        weights: Number of weights of the first.
        all_weights: Number of weights of all, as far as they are known.
        unknown: Number of layers whose number of weights is not known, such as lazy ones.
    """

    layers: int
    all_layers: int
    weights: int
    all_weights: int
    unknown: int = 0

    @property
    def layer_share(self) -> float:
        """Share of the layers in [0, 1]; 0 if there are none."""
        return self.layers / max(self.all_layers, 1)

    @property
    def weight_share(self) -> float:
        """Share of the weights in [0, 1]; 0 if none is known."""
        return self.weights / max(self.all_weights, 1)

    def __str__(self) -> str:
        if not self.all_layers:
            return "no spatial convolution"
        noun, whose = ("convolution", "its") if self.all_layers == 1 else ("convolutions", "their")
        text = f"{self.layers:,} of {self.all_layers:,} spatial {noun}"
        if not self.all_weights:
            return text
        bound = "at most " if self.unknown and self.weights else ""
        return f"{text}, {bound}{share_text(self.weights, self.all_weights)} of {whose} weights"


@dataclass(frozen=True)
class Report:
    """The layers that ``apply_`` initialised, and the layers that it skipped.

    Its length is the number of initialised layers. Notebooks show it as tables.

    Attributes:
        drawn: One entry for each initialised layer, in the order of the model's modules.
        skipped: For every other layer with parameters, by name, the reason why it was skipped.
        unused: Names of the priors that no layer took.
        dry_run: Whether the model was left unchanged.
        spatial: The number of weights of every convolution with kernels larger than 1×1 that ``apply_`` was asked for,
            drawn or skipped, by name; 0 if it is not known. Layers that share the weight of another are left out.
        notes: What was decided about scales, and what the caller may want to do otherwise.
    """

    drawn: list[Drawn]
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    unused: list[str] = field(default_factory=list[str])
    dry_run: bool = False
    spatial: dict[str, int] = field(default_factory=dict[str, int])
    notes: list[str] = field(default_factory=list[str])

    @property
    def initialized(self) -> list[str]:
        """Names of the initialised layers; in a dry run, of those that would be initialised."""
        return [row.layer for row in self.drawn]

    @property
    def coverage(self) -> Coverage:
        """How many of the convolutions with kernels larger than 1×1 were initialised, and of their weights."""
        drawn = [self.spatial[name] for name in self.initialized if name in self.spatial]
        known = [weights for weights in self.spatial.values() if weights]
        return Coverage(len(drawn), len(self.spatial), sum(drawn), sum(known), len(self.spatial) - len(known))

    def __len__(self) -> int:
        return len(self.drawn)

    def __str__(self) -> str:
        tables = [aligned(_wrapped(table)) for table in self._tables() if len(table) > 1]
        return "\n\n".join([self._summary, *tables, *map(printable, self._remarks)])

    def _repr_html_(self) -> str:
        """Returns the report as HTML, for notebooks."""
        lines = [f"<p><b>{escape(self._summary)}</b></p>"]
        lines += [html_table(table) for table in self._tables() if len(table) > 1]
        lines += [f"<p>{escape(printable(line))}</p>" for line in self._remarks]
        return "\n".join(lines)

    @property
    def _summary(self) -> str:
        """The coverage, and how many layers with 1×1 kernels were initialised too."""
        others = len(self) - self.coverage.layers
        more = f", and {others:,} of 1×1 kernels" if others else ""
        return f"{'would take ' if self.dry_run else ''}{self.coverage}{more}"

    @property
    def _remarks(self) -> list[str]:
        taken = "would take" if self.dry_run else "took"
        unused = [f"no layer {taken}: {', '.join(self.unused)}"] if self.unused else []
        return [*unused, *(f"note: {note}" for note in self.notes)]

    def _tables(self) -> list[list[tuple[str, ...]]]:
        """Returns the tables of the drawn and of the skipped layers; the first row of each is its head."""
        head = ("layer", "kind", "prior", "depth", "rms", "gain")
        return [[head, *map(_cells, self.drawn)], _skipped_table(self.skipped, self.spatial)]


def layer_text(name: str) -> str:
    """Returns what messages call a layer; the model itself, whose name is empty, is ``(model)``."""
    return name or "(model)"


def listed(names: Sequence[str], width: int = 32) -> str:
    """Names as many of the first three layers as fit into ``width`` characters, at least one, and counts the others."""
    shown = [layer_text(name) for name in names[:3]]
    while len(shown) > 1 and len(", ".join(shown)) > width:
        shown.pop()
    more = len(names) - len(shown)
    return ", ".join(shown) + (f", … {more:,} more" if more else "")


def there_text(pattern: str, names: list[str]) -> str:
    """Says which pattern may have been meant, and which layers there are."""
    inside = [f"{pattern}.*"] if any(name.startswith(f"{pattern}.") for name in names) else []
    near = inside or (difflib.get_close_matches(pattern, names, n=1) if pattern else [])
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}there are {few(list(map(layer_text, names)), 5) or 'none'}"


def shape_text(shape: Sequence[int]) -> str:
    """Formats the shape of a weight, such as ``64×3×7×7``."""
    return "×".join(map(str, shape))


def size_text(size: Sequence[int]) -> str:
    """Formats the size of a kernel, such as ``7×7``; that of a one-dimensional kernel is ``length-7``."""
    return f"length-{size[0]}" if len(size) == 1 else shape_text(size)


def kernel_text(kernel_shape: Sequence[int]) -> str:
    """Formats the shape ``(c, *size)`` of a prior's kernels, such as ``7×7`` for one channel, or ``3×7×7``."""
    channels, *size = kernel_shape
    return size_text(size) if channels == 1 else f"{channels}×{size_text(size)}"


def share_text(part: int, whole: int) -> str:
    """Formats a share in percent, such as ``13 %``; only none and all are written as 0 and 100 %."""
    if part and part * 200 < whole:
        return "under 1 %"
    if part < whole and part * 200 > whole * 199:
        return "over 99 %"
    return f"{100 * part / max(whole, 1):.0f} %"


def _cells(row: Drawn) -> tuple[str, ...]:
    rms = _change(row.rms_before, row.rms_after, "#.3g")
    gain = _change(row.gain_before, row.gain_after, ".2f")
    return layer_text(row.layer), row.kind, row.prior, f"{row.depth:.2f}", rms, gain


def _change(before: float | None, after: float | None, digits: str) -> str:
    """Formats a value before and, unless it is not known, after."""
    first, second = ("-" if value is None else format(value, digits) for value in (before, after))
    return first if after is None else f"{first} → {second}"


def _wrapped(table: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Breaks cells of the last column into lines, such that the table fits a terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    room = max(_COLUMNS - sum(widths) - 2 * len(widths), 40)
    rows: list[tuple[str, ...]] = []
    for *cells, last in table:
        first, *more = textwrap.wrap(last, room, break_on_hyphens=False) or [""]
        rows += [(*cells, first), *((*("" for _ in cells), line) for line in more)]
    return rows


def _skipped_table(skipped: Mapping[str, str], spatial: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Returns one row for each reason, that of the most weights of spatial convolutions first."""
    groups: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        groups.setdefault(reason, []).append(name)
    whole = sum(spatial.values())
    rows: list[tuple[int, int, tuple[str, ...]]] = []
    for reason, names in groups.items():
        concerned, weights = any(name in spatial for name in names), sum(spatial.get(name, 0) for name in names)
        share = share_text(weights, whole) if weights else "?" if concerned else "-"
        rows.append((concerned, weights, (str(len(names)), share, listed(names), reason)))
    rows.sort(key=lambda row: row[:2], reverse=True)
    return [("skipped", "weights", "layers", "reason"), *(cells for _, _, cells in rows)]
