"""Full precision: ``torch.autocast`` has no effect on what is computed with a prior."""

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager

import torch

_DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps", "hpu", "privateuseone")


@contextmanager
def full_precision() -> Generator[None, None, None]:
    """Suspends ``torch.autocast`` on every device; a context manager, or with parentheses a decorator."""
    with ExitStack() as stack:
        for kind in _DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def in_full_precision(cls: type, names: Iterable[str]) -> None:
    """Suspends ``torch.autocast`` in the methods of these names that a class itself defines."""
    for name in names:
        if name in vars(cls):
            setattr(cls, name, full_precision()(vars(cls)[name]))
