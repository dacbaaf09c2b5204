"""The templates under ``model_cards/``: all prose and tables of the cards and pages, and filters for their numbers."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.engine.records import ROOT
from training.experiments.paired import half_width_from
from training.publish.details import inert, plain

CARDS = ROOT / "model_cards"


def _fixed(value: Any, digits: int) -> str:
    return f"{float(value):.{digits}f}"


def _signed(value: Any, digits: int | None = None) -> str:
    return f"{float(value):+}" if digits is None else f"{float(value):+.{digits}f}"


FILTERS: dict[str, Callable[..., str]] = {  # numbers may be strings, as the cells of a CSV file are
    "fixed": _fixed,  # with so many decimals: 1.5 → 1.50
    "short": lambda value, digits=6: f"{float(value):.{digits}g}",  # 0.0010 → 0.001
    "signed": _signed,  # 1.5 → +1.5
    "thousands": lambda value: f"{int(value):,}",  # 1234 → 1,234
    "about": lambda value: f"{float(f'{value:.3g}'):,.0f}",  # to three significant digits: 4096 → 4,100
    "mean": lambda value, error, digits: f"{_fixed(value, digits)} ± {_fixed(error, digits)}",
    "lead": lambda value, error, digits: f"{_signed(value, digits)} ± {_fixed(error, digits)}",  # a difference
    "half_width": lambda sd, n: f"{half_width_from(float(sd), int(n))}",  # of the 95 % interval of a mean of n
    "plain": plain,
    "inert": inert,
}


def render(template: str, **values: Any) -> str:
    """Renders a template."""
    return _environment(CARDS).get_template(template).render(values)


def render_macro(template: str, macro: str, **values: Any) -> str:
    """Renders one macro without arguments of a template."""
    text: str = getattr(_environment(CARDS).get_template(template).make_module(values), macro)()
    return text


@functools.cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment
