"""Which layers the caller asks for: the argument ``layers`` of ``apply_``."""

from collections.abc import Callable, Iterable
from typing import cast

from torch import nn

from dwp_init.convolutions import named_convolutions
from dwp_init.names import Named
from dwp_init.report import there_text

Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]


def selector(layers: Layers | None, model: nn.Module) -> tuple[Callable[[Named], bool], set[str]]:
    """Returns the argument ``layers`` of ``apply_`` as a predicate, and the exact names in it."""
    if layers is None:
        return lambda named: True, set()
    if callable(layers) and not isinstance(layers, (nn.Module, type)):
        return lambda named: layers(named.name, named.module), set()
    patterns = _patterns(layers)
    found = named_convolutions(model)
    for pattern in patterns:
        if not any(named.matches(pattern) for named in found):
            there = there_text(pattern, [named.name for named in found])
            raise ValueError(f"layers={pattern!r} matches no convolution; {there}")
    return lambda named: any(map(named.matches, patterns)), set(patterns)


def reusable(layers: Layers | None) -> Layers | None:
    """Returns the argument ``layers`` of ``apply_`` such that it can be read more than once, also an iterator."""
    return layers if layers is None or isinstance(layers, str) or callable(layers) else _patterns(layers)


def _patterns(layers: object) -> list[str]:
    expected = "layers is a pattern, several, or a predicate of name and module"
    if isinstance(layers, nn.Module):
        raise TypeError(f"{expected}; got a {type(layers).__name__}: give its name, as in layers='layer1.*'")
    if not isinstance(layers, Iterable):
        raise TypeError(f"{expected}; got {layers!r}")
    patterns = [layers] if isinstance(layers, str) else list(cast(Iterable[object], layers))
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{expected}; got {pattern!r} in it")
    return cast(list[str], patterns)
