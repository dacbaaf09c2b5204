"""What a start draws from and by which edition of its law, in twelve digits: what a finished run stands for."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.starts.base import check_starts
from training.starts.priors import bundled_digests


def source_of(start: str, priors: Sequence[str], folder: Path | None) -> str:
    """Returns a digest of the bundled priors, the files and the edition of a start; empty if all this is plain.

    Args:
        start: Name of the start.
        priors: Names of bundled priors or sets, for starts that have none of their own.
        folder: Where the files are looked for.

    Raises:
        ValueError: The start is unknown or lacks what it draws from, or a file has other contents.
        FileNotFoundError: A file is missing.
    """
    given = {"learned": True, "batch": True, "again": True, "files": folder is not None}
    (record,) = check_starts((start,), priors=bool(priors), **given)
    parts: dict[str, Any] = bundled_digests(*(record.priors or priors)) if "priors" in record.needs else {}
    for file in record.files:
        file.find(folder or Path())
        parts[file.name] = file.sha256
    if record.edition > 1:
        parts["edition"] = record.edition
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12] if parts else ""
