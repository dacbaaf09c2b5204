"""Checks of arguments, which may come from the configuration of a downloaded prior and so be any JSON."""

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import SupportsIndex, TypeGuard, cast

import torch

from dwp_init.options import check_instance

MAX_SIZE = 2**20


def whole_number(value: object, name: str) -> int:
    """Returns an int, or what converts to one without loss, such as numpy's ints.

    Raises:
        TypeError: It is anything else, including ``True``.
    """
    if is_int(value):  # first, because a check against a protocol is slow
        return value
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            return operator.index(value)
    except TypeError:  # a tensor that is not of one integer
        pass
    raise TypeError(f"{name} must be an int; got {value!r}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is an int or a float, and not a bool."""
    return type(value) in (int, float)


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is an int, and not a bool."""
    return type(value) is int


def is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, also one of numpy's, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def checked_depth(depth: object, or_none: str = "") -> float:
    """Returns a relative depth; raises ``ValueError`` unless it is from 0 to 1. ``or_none`` is put into the message."""
    if not (is_real(depth) and 0 <= depth <= 1):
        raise ValueError(f"depth must be {or_none}a number from 0, the first layer, to 1, the last; got {depth!r}")
    return float(depth)


def check_generator(generator: object) -> None:
    """Raises ``TypeError`` unless a source of randomness is ``None`` or a generator of PyTorch."""
    if generator is not None:
        check_instance("generator", generator, torch.Generator, "torch.Generator")


def check_count(**counts: object) -> None:
    """Raises ``ValueError`` if an argument is not a whole number from 1 to ``MAX_SIZE``."""
    for name, count in counts.items():
        if not (is_int(count) and 1 <= count <= MAX_SIZE):
            raise ValueError(f"{name} must be a whole number from 1 to {MAX_SIZE}; got {count!r}")


def check_positive(**numbers: object) -> None:
    """Raises ``ValueError`` if an argument is not a number above 0 and below 1,000,000."""
    for name, number in numbers.items():
        if not (is_number(number) and 0 < number < 1e6):
            raise ValueError(f"{name} must be a number above 0 and below 1,000,000; got {number!r}")


def check_dropout(dropout: object) -> None:
    """Raises ``ValueError`` if a share of units to drop is not a number from 0 to below 1."""
    if not (is_number(dropout) and 0 <= dropout < 1):
        raise ValueError(f"dropout must be a number from 0 to below 1; got {dropout!r}")


def checked_shape(kernel_shape: object) -> tuple[int, ...]:
    """Returns a kernel's shape as a tuple; raises ``ValueError`` if it is not one, or is too large."""
    shape = tuple(cast(Sequence[object], kernel_shape)) if isinstance(kernel_shape, (tuple, list)) else ()
    sizes = [size for size in shape if is_int(size) and size > 0]
    if len(shape) != len(sizes) or not 2 <= len(shape) <= 4:
        raise ValueError(
            f"kernel_shape must be (channels, *size) with 1 to 3 sizes, each 1 or more; got {kernel_shape!r}"
        )
    if math.prod(sizes) > MAX_SIZE:
        raise ValueError(f"kernel_shape must hold at most {MAX_SIZE} numbers; got {kernel_shape!r}")
    return tuple(sizes)
