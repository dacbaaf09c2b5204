"""From a name to a prior: the registry, the priors bundled with the package, folders, and the Hub."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dwp_init import hub
from dwp_init.access import Access, Address
from dwp_init.files import parse_prior
from dwp_init.folder import read_files
from dwp_init.hub import Files
from dwp_init.priors import Prior
from dwp_init.report import kernel_text
from dwp_init.sets import SETS
from dwp_init.text import NameTable, few

_PACKAGE = Path(__file__).parent
REGISTRY = _PACKAGE / "registry.json"
BUNDLED = _PACKAGE / "bundled"
_HUB_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/(?!datasets/|spaces/)([^/]+/[^/?#]+)")
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def list_priors(remote: bool = False, *, token: str | bool | None = None, endpoint: str | None = None) -> list[str]:
    """Returns the names of priors, sorted; the list prints as a table with what is known of each.

    Sets of priors, such as ``"natural"``, are the keys of ``dwp_init.SETS``.

    Args:
        remote: ``False`` lists the priors that come with this version, which needs no network; ``True`` lists those
            published by anyone on the Hugging Face Hub, as ``user/name``: the repositories tagged ``dwp-prior``.
        token: As in ``huggingface_hub``, for private repositories.
        endpoint: URL of the Hub; ``HF_ENDPOINT`` or the public one by default.

    Raises:
        PriorDownloadError: The Hub cannot be reached.

    Examples:
        >>> "notmnist-7x7" in dwp_init.list_priors()
        True
    """
    if remote:
        return listed_priors(hub.search(Access(token=token, endpoint=endpoint)))
    rows: dict[str, tuple[str, ...]] = {}
    for name, entry in sorted(registry().items()):
        log_prob = "-" if entry.get("log_prob") is None else f"{entry['log_prob']:.1f}"
        known = (str(entry.get(key, "-")) for key in ("family", "source"))
        rows[name] = entry.get("kernels") or kernel_text(entry["kernel_shape"]), *known, log_prob
    return NameTable(rows, ("name", "kernel", "family", "source", "log p"), rows)


def listed_priors(found: Sequence[hub.Listing]) -> list[str]:
    """Returns the names of repositories that a search found; the list prints as a table."""
    rows: dict[str, tuple[str, ...]] = {}
    for listing in found:
        kernel, family = listing.kernel.replace("x", "×") or "-", listing.family or "-"
        size = "-" if listing.size is None else f"{listing.size / 1e6:.2f} MB"
        rows[listing.repo] = kernel, family, size, str(listing.downloads), listing.updated or "-"
    return NameTable(rows, ("repository", "kernel", "family", "size", "downloads", "updated"), rows)


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Returns ``registry.json``: by name the kernel shape, family, source, licence, log p and the files' sha256.

    The entry of a prior on the Hub also has its ``repo`` and its commit, ``revision``.
    """
    entries: dict[str, dict[str, Any]] = json.loads(REGISTRY.read_bytes())
    return entries


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

    A registered name is pinned to the digests of its files and, if it has a repository on the Hub, to a commit of it.
    The bundled copy is used if it has these digests; otherwise the cached copy, without any request; otherwise the
    files are downloaded. Only
    ``config.json`` and ``model.safetensors`` are ever read, and nothing in them is executed.

    Args:
        name_or_folder: A name from :func:`list_priors`, a folder that :func:`dwp_init.save_prior` wrote, or a
            repository on the Hugging Face Hub; names and repositories may end in ``@revision``. A registered name has
            precedence over a folder of that name, and a folder over a repository; write ``./name`` for the folder. A
            ``Path`` is always a folder.
        revision: A tag, branch or commit of the repository, like ``@revision``; by default ``main`` or, for a
            registered name of the Hub, its pinned commit.
        cache_dir: As in ``huggingface_hub``: the folder of the downloads, ``HF_HUB_CACHE`` by default.
        token: As in ``huggingface_hub``: ``None`` for the token that is logged in, ``False`` for none. A token that
            the Hub rejects is not used, and a warning says so.
        local_files_only: As in ``huggingface_hub``: whether to use the cache only.
        endpoint: As in ``huggingface_hub``: URL of the Hub, ``HF_ENDPOINT`` or the public one by default.

    Returns:
        The prior; ``details["name"]`` says what it is called.

    Raises:
        ValueError: There is no such prior, its files are corrupt or of a newer format, or ``revision`` is given twice
            or for a folder.
        FileNotFoundError: The folder lacks one of the files.
        PriorNotFoundError: The Hub shows no such repository, revision or file.
        PriorDownloadError: The Hub cannot be reached, or the cache cannot be written, and the cache lacks a file.
        PriorCorruptError: A download is damaged, also when it is repeated.
        TypeError: ``name_or_folder`` is neither a string nor a path, or ``revision`` is not a string.

    Examples:
        >>> prior = dwp_init.load_prior("notmnist-7x7")
        >>> kernels = prior.sample(64)
        >>> kernels.shape, prior.log_prob(kernels).shape
        (torch.Size([64, 1, 7, 7]), torch.Size([64]))
    """
    access = Access(
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        endpoint=endpoint,
    )
    return load_with(name_or_folder, access)


def load_with(name_or_folder: str | Path, access: Access) -> Prior:
    """Loads a prior as :func:`load_prior` does, with its options in one object."""
    files = obtain(find(name_or_folder, access.revision), access)
    prior = parse_prior(files.contents, files.owner)
    prior.details.setdefault("name", files.name)
    return prior


def find(name_or_folder: str | Path, revision: str | None = None) -> Path | str | Address:
    """Returns where a prior is: a folder, a registered name, or a repository on the Hub at a commit or a revision.

    Uses neither the cache nor the network.

    Raises:
        ValueError: There is nothing of that name, or ``revision`` is given twice or for a folder.
        TypeError: ``name_or_folder`` has the wrong type.
    """
    if not isinstance(name_or_folder, (str, Path)):
        raise TypeError(f"a prior's name or folder must be a str or a Path; got {type(name_or_folder).__name__}")
    if isinstance(name_or_folder, Path) or (os.path.isdir(name_or_folder) and name_or_folder not in registry()):
        return _folder(name_or_folder, revision)
    name, at, wanted = name_or_folder.partition("@")
    if name not in registry() and not _REPO.fullmatch(name):
        raise _unknown(name_or_folder)
    if at and revision is not None:
        raise ValueError(f"{name_or_folder!r} has a revision, but revision={revision!r} is given too; drop one")
    if (at and not wanted) or revision == "":
        raise ValueError(f"{name_or_folder!r} lacks a revision; write for example {name}@v1")
    revision = wanted or revision
    return _registered(name, revision) if name in registry() else Address(name, revision or "main")


def obtain(place: Path | str | Address, access: Access) -> Files:
    """Returns a prior's files from the place that :func:`find` returned; raises what :func:`load_prior` does."""
    access.check_token()
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
        raise ValueError(f"{str(folder)!r} is a folder, which has no revisions; drop revision={revision!r}")
    return Path(folder)


def _registered(name: str, revision: str | None) -> str | Address:
    entry = registry()[name]
    if revision in (None, entry.get("revision")):
        return name
    if "repo" not in entry:
        raise ValueError(f"{name!r} comes with this version and has no revision {revision!r}; drop the revision")
    return Address(entry["repo"], revision)


def _check_sha256(contents: Mapping[str, bytes], sha256: Mapping[str, str], folder: Path) -> None:
    for file, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != sha256[file]:
            raise ValueError(
                f"{folder / file} is corrupt: its sha256 is {found}, expected {sha256[file]}; install dwp_init again"
            )


def _unknown(name_or_folder: str | Path) -> Exception:
    name, names = str(name_or_folder), list_priors()
    if name in SETS and isinstance(name_or_folder, Path):
        return ValueError(f"no folder is called {name!r}, but a set of priors is: pass the str {name!r}, not a Path")
    if name in SETS:
        members = few([repr(str(like)) for _, like in SETS[name]], 2)
        return ValueError(f"{name!r} is a set of priors, not one: a layer takes one of them, such as {members}")
    if isinstance(name_or_folder, Path) and name in names:
        return ValueError(f"no folder is called {name!r}, but a registered prior is: pass the str {name!r}, not a Path")
    if isinstance(name_or_folder, Path) and _REPO.fullmatch(name.partition("@")[0]):
        return ValueError(
            f"no folder is called {name!r}; for a repository on the Hub pass the str {name!r}, not a Path"
        )
    if (repo := _HUB_ADDRESS.match(name)) is not None:
        return ValueError(f"{name!r} is an address; for the repository pass {repo[1]!r}")
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], [*names, *SETS], n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        hint = f"there are {few(names) or 'none'}; a repository on the Hub is user/name"
    return ValueError(f"no prior and no folder is called {name!r}; {hint}")
