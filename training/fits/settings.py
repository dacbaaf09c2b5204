"""Settings of a fit as they are recorded with a prior: any JSON, because priors come from anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

LARGEST_NUMBER = 1e15


def has_form(settings: Mapping[str, Any], **kinds: type) -> bool:
    """Whether recorded settings have these keys, with values of these types.

    Args:
        settings: The settings.
        kinds: By key ``int``, ``float`` (integers too) or ``list`` for one or more numbers.
    """
    return all(_is(settings.get(key), kind) for key, kind in kinds.items())


def either(values: Sequence[float]) -> str:
    """Lists the values that were tried, such as ``6 or 8``."""
    return " or ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, (list, tuple)) and bool(value) and all(_is(number, float) for number in value)
    return type(value) in (int, kind) and abs(value) < LARGEST_NUMBER
