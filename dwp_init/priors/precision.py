"""Full precision: ``torch.autocast`` has no effect on what is computed with a prior."""

from collections.abc import Generator
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
