"""Checks that the results of record, the bundled priors and every page are those of this commit."""

import hashlib
from pathlib import Path

from dwp_init.storage import write_bytes
from training.engine.records import ROOT
from training.publish.pages import pages

MANIFEST = ROOT / "training" / "results.sha256"
GUARDED = ("training/results", "dwp_init/bundled", "dwp_init/registry.json")


def faults() -> list[str]:
    """Returns what differs: records and bundled files from their digests, pages from what is rendered now.

    The manifest is in the format of ``sha256sum``, so ``sha256sum --check training/results.sha256`` reads it too.
    """
    known, found = _read_manifest(), _digests()
    changed = [f"{name} has changed" for name in sorted(known.keys() & found.keys()) if known[name] != found[name]]
    missing = [f"{name} is missing" for name in sorted(known.keys() - found.keys())]
    added = [f"{name} is not in {MANIFEST.name}" for name in sorted(found.keys() - known.keys())]
    stale = [
        f"{path.relative_to(ROOT)} differs from what is rendered now"
        for path, text in pages().items()
        if not path.exists() or path.read_bytes() != text.encode()
    ]
    return [*changed, *missing, *added, *stale]


def check() -> None:
    """Raises ``ValueError`` that lists :func:`faults`, if there are any."""
    if found := faults():
        raise ValueError(
            "; ".join(found) + ". Restore the files. If the change is intended, run python -m training cards and "
            "python -m training check --update"
        )


def update() -> Path:
    """Writes the digests of the files as they are into the manifest."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests().items())]
    write_bytes(MANIFEST, "".join(lines).encode())
    return MANIFEST


def _read_manifest() -> dict[str, str]:
    lines = MANIFEST.read_text(encoding="utf-8").splitlines() if MANIFEST.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _digests() -> dict[str, str]:
    places = [ROOT / place for place in GUARDED]
    found = [path for place in places for path in (place, *place.rglob("*"))]
    files = [path for path in found if path.is_file() and path.name != "__init__.py" and path.name[0] != "."]
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
