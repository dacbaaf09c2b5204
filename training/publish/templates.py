"""The templates under ``model_cards/``: all prose and tables of the cards and pages, and filters for their numbers."""

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.engine.records import ROOT
from training.publish.details import inert, plain

CARDS = ROOT / "model_cards"
Number = float | str  # a cell of a CSV file is a string


def render(template: str, **values: Any) -> str:
    """Renders a template."""
    return _environment(CARDS).get_template(template).render(values)


def render_macro(template: str, macro: str, **values: Any) -> str:
    """Renders one macro without arguments of a template."""
    text: str = getattr(_environment(CARDS).get_template(template).make_module(values), macro)()
    return text


def fixed(value: Number, digits: int) -> str:
    """Renders a number with ``digits`` decimals: 1.5 → ``1.50``."""
    return f"{float(value):.{digits}f}"


def short(value: Number, digits: int = 6) -> str:
    """Renders a number with at most ``digits`` significant digits: 0.0010 → ``0.001``."""
    return f"{float(value):.{digits}g}"


def signed(value: Number, digits: int | None = None) -> str:
    """Renders a number with its sign, and with ``digits`` decimals if they are given: 1.5 → ``+1.5``."""
    return f"{float(value):+}" if digits is None else f"{float(value):+.{digits}f}"


def thousands(value: Number) -> str:
    """Renders a whole number: 1234 → ``1,234``."""
    return f"{int(value):,}"


def about(value: float) -> str:
    """Renders a number to three significant digits: 4096 → ``4,100``."""
    return f"{float(f'{value:.3g}'):,.0f}"


def mean(value: Number, error: Number, digits: int) -> str:
    """Renders a mean and its error: ``1.5 ± 0.2``."""
    return f"{fixed(value, digits)} ± {fixed(error, digits)}"


def lead(value: Number, error: Number, digits: int) -> str:
    """Renders a difference and its error: ``+1.5 ± 0.2``."""
    return f"{signed(value, digits)} ± {fixed(error, digits)}"


@functools.cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (fixed, short, signed, thousands, about, mean, lead, plain, inert)
    environment.filters |= {each.__name__: each for each in filters}
    return environment
