"""From a name to a prior: the registry, the priors bundled with the package, folders, and the Hub."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dwp_init import hub
from dwp_init.files import parse_prior, read_files
from dwp_init.hub import Access, Address, Files
from dwp_init.priors import Prior
from dwp_init.sets import SETS

_PACKAGE = Path(__file__).parent
REGISTRY = _PACKAGE / "registry.json"
BUNDLED = _PACKAGE / "bundled"
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def list_priors(remote: bool = False, *, token: str | bool | None = None, endpoint: str | None = None) -> list[str]:
    """Returns the names of priors, sorted.

    Args:
        remote: ``False`` names those that come with this version, and needs no network; ``True`` those that anyone has
            published on the Hugging Face Hub, as ``user/name``: the repositories tagged ``dwp-prior``.
        token: As in ``huggingface_hub``, for what is private.
        endpoint: Another Hub than ``HF_ENDPOINT`` or the public one.

    Raises:
        PriorDownloadError: The Hub cannot be asked.
    """
    if not remote:
        return sorted(registry())
    return [found.repo for found in hub.search(Access(token=token, endpoint=endpoint))]


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Returns ``registry.json``: by name the kernel shape, family, source, licence, log p and the files' sha256.

    An entry that is on the Hub has its ``repo`` and the commit, ``revision``, too.
    """
    return json.loads(REGISTRY.read_text())


def load_prior(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Prior:
    """Loads a prior, in evaluation mode on the CPU.

    A registered name stands for one commit and for the digests of its files: the bundled copy is taken where it has
    these, else the cached one, without any request, else the Hub's. Only ``config.json`` and ``model.safetensors`` are
    ever read, and nothing is executed.

    Args:
        name_or_folder: A name from :func:`list_priors`, a folder that :func:`dwp_init.save_prior` wrote, or a
            repository on the Hugging Face Hub, each of the names with ``@revision`` or without. A registered name wins
            over a folder of that name, and a folder over a repository; write ``./name`` for a folder. A ``Path`` is
            always a folder.
        revision: A tag, branch or commit of the repository, like ``@revision``; ``main`` by default, and for a
            registered name its pinned commit.
        cache_dir: As in ``huggingface_hub``: where downloads are kept, ``HF_HUB_CACHE`` by default.
        token: As in ``huggingface_hub``: ``None`` for the one logged in with, ``False`` for none. One that the Hub
            rejects is left out, with a warning.
        local_files_only: As in ``huggingface_hub``: whether to make do with what is cached.
        endpoint: As in ``huggingface_hub``: another Hub than ``HF_ENDPOINT`` or the public one.

    Returns:
        The prior; ``details["name"]`` says what it is called.

    Raises:
        ValueError: There is no such prior, its files are corrupt or of a newer format, or ``revision`` is given twice
            or for a folder.
        FileNotFoundError: The folder lacks one of the files.
        PriorNotFoundError: The Hub shows no such repository, revision or file.
        PriorDownloadError: The Hub cannot be reached, or the cache not be written, and the cache lacks a file.
        PriorCorruptError: A download is damaged, and stays so when repeated.
        TypeError: The argument is neither a string nor a path.
    """
    files = obtain(find(name_or_folder, revision), Access(cache_dir, token, local_files_only, endpoint))
    prior = parse_prior(files.contents, files.owner)
    prior.details.setdefault("name", files.name)
    return prior


def find(name_or_folder: str | Path, revision: str | None = None) -> Path | str | Address:
    """Returns where a prior is: a folder, a registered name that stands for its pin, or a repository on the Hub.

    Touches neither the cache nor the network.

    Raises:
        ValueError: There is nothing of that name, or ``revision`` is given twice or for a folder.
        TypeError: An argument has the wrong type.
    """
    if not isinstance(name_or_folder, (str, Path)):
        raise TypeError(f"a prior's name or folder is a str or a Path; got {type(name_or_folder).__name__}")
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"revision is a str, such as 'v1'; got {revision!r}")
    if isinstance(name_or_folder, Path) or (os.path.isdir(name_or_folder) and name_or_folder not in registry()):
        return _folder(name_or_folder, revision)
    name, at, wanted = name_or_folder.partition("@")
    if name not in registry() and not _REPO.fullmatch(name):
        raise _unknown(name_or_folder)
    if at and revision is not None:
        raise ValueError(f"{name_or_folder!r} has a revision, and revision={revision!r} is given too; leave one out")
    if (at and not wanted) or revision == "":
        raise ValueError(f"{name_or_folder!r} lacks the revision, such as {name}@v1")
    revision = wanted or revision
    return _registered(name, revision) if name in registry() else Address(name, revision or "main")


def obtain(place: Path | str | Address, access: Access) -> Files:
    """Returns a prior's files from where :func:`find` found it; raises as :func:`load_prior` does."""
    if isinstance(place, Path):
        return Files(place, read_files(place), name=place.resolve().name, owner=str(place))
    if isinstance(place, Address):
        return hub.fetch(place, access)
    entry, copy = registry()[place], BUNDLED / place
    try:
        contents = read_files(copy)
        _check_sha256(contents, entry["sha256"], copy)
        return Files(copy, contents, name=place, owner=str(copy))
    except (FileNotFoundError, ValueError):
        if "repo" not in entry:
            raise
    return hub.fetch(Address(entry["repo"], entry["revision"], entry["sha256"]), access)


def _folder(folder: str | Path, revision: str | None) -> Path:
    if not os.path.isdir(folder):
        raise _unknown(folder)
    if revision is not None:
        raise ValueError(f"{str(folder)!r} is a folder, which has no revisions; leave out revision={revision!r}")
    return Path(folder)


def _registered(name: str, revision: str | None) -> str | Address:
    entry = registry()[name]
    if revision in (None, entry.get("revision")):
        return name
    if "repo" not in entry:
        raise ValueError(f"{name!r} comes with this version and has no revision {revision!r}; leave the revision out")
    return Address(entry["repo"], revision)


def _check_sha256(contents: Mapping[str, bytes], sha256: Mapping[str, str], folder: Path) -> None:
    for file, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != sha256[file]:
            raise ValueError(
                f"{folder / file} is corrupt: its sha256 is {found}, expected {sha256[file]}; install dwp_init anew"
            )


def _unknown(name_or_folder: str | Path) -> Exception:
    name, names = str(name_or_folder), list_priors()
    if name in SETS:
        members = ", ".join(str(like) for _, like in SETS[name])
        return ValueError(f"{name!r} is a set of priors, which apply_ takes by that name; its priors are {members}")
    if isinstance(name_or_folder, Path) and name in names:
        return ValueError(f"no folder is called {name!r}, but a registered prior is: pass the str {name!r}, not a Path")
    if isinstance(name_or_folder, Path) and _REPO.fullmatch(name.partition("@")[0]):
        return ValueError(
            f"no folder is called {name!r}; for a repository on the Hub pass the str {name!r}, not a Path"
        )
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], [*names, *SETS], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(names) or 'none'}"
    return ValueError(f"no prior and no folder is called {name!r}; {hint}; a repository on the Hub is user/name")
