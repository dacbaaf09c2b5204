"""What a file format says of its tensors, and the methods by which it is read."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

Operator = Literal["plain", "transposed", ""]
_SHORT = {"bfloat": "BF", "float": "F", "double": "F64", "uint": "U", "int": "I", "complex": "C"}
_WORD = re.compile(rf"q?({'|'.join(_SHORT)})(\d*)(.*)")


@dataclass(frozen=True)
class Entry:
    """A tensor as the header of its file describes it.

    Args:
        dtype: As safetensors writes it, such as ``BF16``.
        shape: Its shape.
        file: The file that holds it.
        layout: The operator of which it is the weight, ``"plain"`` or ``"transposed"`` convolution; empty where the
            format does not say.
        groups: Groups of that convolution; None where the format does not say.
        unused: Why it is no weight of a network, where the format says so.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    layout: Operator = ""
    groups: int | None = None
    unused: str = ""


class Format:
    """A file format: the same two methods for each.

    Attributes:
        suffixes: How its files end.
        ordered: Whether its entries are in the order of execution or of declaration.
    """

    suffixes: ClassVar[tuple[str, ...]]
    ordered: ClassVar[bool]

    def entries(self, path: Path) -> dict[str, Entry]:
        """Describes all tensors of a file, by name.

        Raises:
            ValueError: The file is broken, or cannot be read without running code.
        """
        raise NotImplementedError

    def open(self, path: Path) -> AbstractContextManager[Callable[[str], Tensor]]:
        """Opens a file; the context's value returns the tensor of a name.

        Raises:
            ValueError: As for :meth:`entries`.
        """
        raise NotImplementedError


def dtype_name(name: str) -> str:
    """Returns the name of a dtype as safetensors writes it: ``F32`` for ``torch.float32`` and ``FLOAT``."""
    word = name.removeprefix("torch.").lower()
    if not (match := _WORD.fullmatch(word)):
        return word.upper()
    kind, bits, rest = match.groups()
    bits = bits or {"float": "32", "double": "", "bfloat": "16"}.get(kind, "")
    return f"{_SHORT[kind]}{bits}{'_' if rest and rest[0] != '_' else ''}{rest}".upper()
