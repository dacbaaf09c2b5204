"""What ``apply_`` did or would do, layer by layer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dwp_init.text import aligned


@dataclass(frozen=True)
class Drawn:
    """One initialised layer.

    Attributes:
        layer: Name of the layer in the model.
        kind: Class of the layer and shape of its weight.
        prior: Name of the prior and, if the draws were resampled, their original size.
        depth: Position among the model's convolutions with kernels larger than 1×1: 0 is the first, 1 the last. It is
            also 0 for a 1×1 convolution.
        rms_before: Root mean square of the weight before.
        rms_after: Root mean square of the weight after; ``None`` in a dry run.
    """

    layer: str
    kind: str
    prior: str
    depth: float
    rms_before: float
    rms_after: float | None


@dataclass(frozen=True)
class Report:
    """The layers that ``apply_`` initialised, and the layers that it skipped.

    Attributes:
        drawn: One entry for each initialised layer, in the order of the model's modules.
        skipped: For every other layer with parameters, by name, the reason why it was skipped.
        unused: Names of the priors that no layer took.
        dry_run: Whether the model was left unchanged.
    """

    drawn: list[Drawn]
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    unused: list[str] = field(default_factory=list[str])
    dry_run: bool = False

    @property
    def initialized(self) -> list[str]:
        """Names of the initialised layers; in a dry run, of those that would be initialised."""
        return [row.layer for row in self.drawn]

    def __str__(self) -> str:
        rows = [("layer", "kind", "prior", "depth", "rms before", "rms after"), *map(_cells, self.drawn)]
        lines = [aligned(rows), *(f"skipped: {line}" for line in by_reason(self.skipped))]
        if self.unused:
            lines.append(f"no layer took: {', '.join(self.unused)}")
        return "\n".join(lines)


def by_reason(skipped: Mapping[str, str]) -> list[str]:
    """Returns one line for each reason, with the names of the first three layers that were skipped for it."""
    lines: list[str] = []
    for reason, count in Counter(skipped.values()).items():
        names = [layer_text(name) for name, why in skipped.items() if why == reason]
        lines.append(", ".join(names[:3]) + (f", … {count - 3} more" if count > 3 else "") + f": {reason}")
    return lines


def layer_text(name: str) -> str:
    """Returns what messages call a layer; the model itself, whose name is empty, is ``(model)``."""
    return name or "(model)"


def size_text(shape: Sequence[int]) -> str:
    """Formats the shape of a kernel or a weight, such as ``7×7`` (also for ``(1, 7, 7)``), ``3×7×7``, ``64×3×7×7``."""
    return "×".join(map(str, shape[1:] if len(shape) == 3 and shape[0] == 1 else shape))


def _cells(row: Drawn) -> tuple[str, ...]:
    after = "(dry run)" if row.rms_after is None else f"{row.rms_after:.4g}"
    return layer_text(row.layer), row.kind, row.prior, f"{row.depth:.2f}", f"{row.rms_before:.4g}", after
