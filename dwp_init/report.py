"""What `apply_` did, or would do, layer by layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Drawn:
    """One initialised layer.

    Args:
        layer: The layer's name in the model.
        kind: Its class, and shape of its weight.
        prior: Name of the prior, and the size that its draws were resampled from, if it has another.
        depth: How deep it lies among the model's convolutions with kernels larger than 1×1: 0 the first, 1 the last; 0
            too for one of 1×1.
        rms_before: Root mean square of the weight before.
        rms_after: Root mean square after; ``None`` in a dry run.
    """

    layer: str
    kind: str
    prior: str
    depth: float
    rms_before: float
    rms_after: float | None


@dataclass(frozen=True)
class Report:
    """Lists what `apply_` initialised and what it left alone.

    Attributes:
        drawn: One entry per initialised layer, in the model's order.
        skipped: Reason by name of every other layer with parameters.
        unused: Names of the priors that no layer took.
        dry_run: Whether nothing was changed.
    """

    drawn: list[Drawn]
    skipped: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def initialized(self) -> list[str]:
        """Names of the initialised layers (in a dry run, of those that would be)."""
        return [row.layer for row in self.drawn]

    def __str__(self) -> str:
        rows = [("layer", "kind", "prior", "depth", "rms before", "rms after")]
        for row in self.drawn:
            after = "(dry run)" if row.rms_after is None else f"{row.rms_after:.4g}"
            rows.append(
                (row.layer or "(model)", row.kind, row.prior, f"{row.depth:.2f}", f"{row.rms_before:.4g}", after)
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.extend(f"left alone: {line}" for line in by_reason(self.skipped))
        if self.unused:
            lines.append(f"no layer took: {', '.join(self.unused)}")
        return "\n".join(lines)


def by_reason(skipped: dict[str, str]) -> list[str]:
    """Returns a line for each reason, with the first three layers that it holds for."""
    lines = []
    for reason, count in Counter(skipped.values()).items():
        names = [name or "(model)" for name, why in skipped.items() if why == reason]
        lines.append(", ".join(names[:3]) + (f", … {count - 3} more" if count > 3 else "") + f": {reason}")
    return lines


def size_text(shape: Sequence[int]) -> str:
    """Writes a kernel's or a weight's shape: ``7×7``, also for ``(1, 7, 7)``; ``3×7×7``, ``64×3×7×7``."""
    return "×".join(map(str, shape[1:] if len(shape) == 3 and shape[0] == 1 else shape))
