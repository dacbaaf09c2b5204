"""Checks of options, for values from callers without a type checker."""

from collections.abc import Sequence


def check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ``ValueError`` unless an option has one of the values allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raises ``TypeError`` unless an option is ``True`` or ``False``; numbers are not accepted."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")


def check_flags(**flags: object) -> None:
    """Raises ``TypeError`` unless each option is ``True`` or ``False``."""
    for name, flag in flags.items():
        check_flag(name, flag)


def check_instance(name: str, value: object, kind: type, kind_text: str) -> None:
    """Raises ``TypeError`` unless an option is of a class, called ``kind_text`` in the message."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind_text}; got {type(value).__name__}")
