"""The client of the Hugging Face Hub: fetches the two files of one prior, of one commit, and searches for priors.

``huggingface_hub`` is imported inside the functions, so that ``HF_*`` variables set after ``import dwp_init`` count.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dwp_init.access import Access, Address
from dwp_init.config import build_prior, config_damage, parse_config
from dwp_init.errors import (
    PriorCorruptError,
    PriorDownloadError,
    PriorError,
    cause,
    chainable,
    explain,
    is_unwritable,
)
from dwp_init.files import model_size
from dwp_init.folder import CONFIG, MAX_BYTES, MODEL, check_size, read_bounded
from dwp_init.storage import remove
from dwp_init.transfer import CLIENT, OversizedError, ask, check_place, transfer, without_a_rejected_token

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo


TAG = "dwp-prior"  # marks the repositories that hold a prior


@dataclass(frozen=True)
class Files:
    """The files of a prior, read and checked.

    Args:
        folder: The folder that holds them.
        contents: Their contents, by name.
        name: What the prior is called, unless its configuration says so.
        owner: How messages of errors call their place.
        commit: The commit that they belong to; empty unless they come from the Hub.
    """

    folder: Path
    contents: dict[str, bytes]
    name: str
    owner: str
    commit: str = ""


@dataclass(frozen=True)
class Listing:
    """A repository that a search found.

    Args:
        repo: ``user/name``.
        kernel: The kernel size of its tags, such as ``7x7``; empty if there is none.
        family: The family of its tags; empty if there is none.
        size: Bytes that the repository stores, all revisions together, or None if the Hub does not say.
        downloads: In the last 30 days, as the Hub counts.
        updated: The day of the last commit, such as ``2026-11-25``; empty if the Hub does not say.
    """

    repo: str
    kernel: str
    family: str
    size: int | None
    downloads: int
    updated: str


def fetch(address: Address, access: Access) -> Files:
    """Fetches a prior's ``config.json`` and ``model.safetensors``, both of one commit, and nothing else.

    A full commit that the cache holds needs no request. A tag or a branch needs one; if the Hub cannot be reached, the
    last cached commit is used. The configuration is read first, so no weights are downloaded from a repository that is
    not a prior. Each file is compared with its pin or, without a pin, with the digest under which the Hub filed it. A
    cache without symbolic links does not keep that digest: there the configuration is compared with the digest that it
    holds, and the weights with the one that it states. A file that differs is fetched once more, and is never used as
    long as it differs.

    Args:
        address: The repository and its revision; the revision of ``access`` is not used.
        access: How the Hub is reached.

    Raises:
        PriorNotFoundError: There is no such repository, revision or file, or it is private or gated.
        PriorDownloadError: The Hub cannot be reached, or the cache cannot be written, and the cache lacks a file.
        PriorCorruptError: A file stays damaged.
        ValueError: The token cannot be one, the repository's name is malformed, or its configuration is not that of a
            prior.
    """
    access.check_token()
    path, content = _checked(CONFIG, address, access, lambda size: MAX_BYTES[CONFIG], config_damage)
    config = parse_config(content, f"{address}/{CONFIG}")

    def most(size: int) -> int:
        return model_size(build_prior(config, f"{address}/{CONFIG}", size))

    found = replace(address, revision=path.parent.name)
    exact = found if found.is_commit else address
    _, model = _checked(
        MODEL, exact, access, most, lambda content: _differs([_sha256(content)], config.get("model_sha256"))
    )
    contents = {CONFIG: content, MODEL: model}
    return Files(path.parent, contents, name=address.repo, owner=str(address), commit=exact.revision)


def search(access: Access) -> list[Listing]:
    """Finds the repositories that are tagged as priors, sorted by name.

    Raises:
        PriorDownloadError: The Hub cannot be reached.
        ValueError: The token cannot be one.
    """
    from huggingface_hub import HfApi

    access.check_token()

    def models(token: str | bool | None) -> list[Listing]:
        found = HfApi(endpoint=access.endpoint, token=token, **CLIENT).list_models(
            filter=TAG, expand=["downloads", "lastModified", "tags", "usedStorage"]
        )
        return sorted((_listing(model) for model in found), key=lambda listing: listing.repo)

    try:
        return without_a_rejected_token(models, access.token)
    except Warning:  # the one of a rejected token, if warnings are errors
        raise
    except Exception as error:  # transport errors belong to httpx or httpx2, which this code should not name
        raise PriorDownloadError(
            f"the Hub could not be searched: {cause(error, access)}; list_priors() names the priors known without a "
            "network"
        ) from chainable(error, access)


def _checked(
    file: str, address: Address, access: Access, most: Callable[[int], int], own: Callable[[bytes], str]
) -> tuple[Path, bytes]:
    """Returns a file's path and its content, which has the expected digest.

    Args:
        file: Its name.
        address: Its repository.
        access: How the Hub is reached.
        most: Maps its size, as the Hub says, to the size that it may have; raises ``ValueError`` if it fits nothing.
        own: Says how it differs from what the prior states of it; empty if it does not.
    """
    pinned = None if address.sha256 is None else address.sha256[file]
    path = _locate(file, address, access, most)
    content = read_bounded(path, file)
    if damage := _damage(path, content, pinned, own):
        try:
            if not path.is_symlink() and not access.local_files_only:
                remove(path)  # in a cache without links the client would not replace it
            path = _locate(file, address, access, most, again=True)
        except (PriorError, OSError) as error:
            raise PriorCorruptError(
                f"{file} of {address} in the cache is corrupt ({damage}), and could not be fetched again: {error}; or "
                f"remove {path}"
            ) from error
        content = read_bounded(path, file)
        if damage := _damage(path, content, pinned, own):
            raise PriorCorruptError(
                f"{file} of {address} is corrupt ({damage}), also after a second download, so it was not used; try "
                f"another network, or tell the owner of {address.repo}"
            )
    return path, content


def _damage(path: Path, content: bytes, pinned: str | None, own: Callable[[bytes], str]) -> str:
    """Says how a file differs from what was expected; empty if it does not.

    Without a pin the expected digest is the name of the blob that the snapshot's link points to: SHA-256 for a file in
    large file storage, git's blob id for another (or its plain SHA-1, on mirrors). Other names say nothing. In a cache
    without links the prior itself states the digest.
    """
    git_blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if pinned is not None:
        return _differs([_sha256(content)], pinned)
    if not path.is_symlink():
        return own(content)
    blob = path.readlink().name  # the blob may be a link too, to a store that repositories share
    known = {40: [git_blob, hashlib.sha1(content).hexdigest()], 64: [_sha256(content)]}
    return _differs(known.get(len(blob), []), blob)


def _differs(known: list[str], expected: object) -> str:
    """Says that a file with these digests has not the expected one, if that is a digest; otherwise empty."""
    if not isinstance(expected, str) or not re.fullmatch(r"[0-9a-f]+", expected) or not known or expected in known:
        return ""
    return f"its digest is {known[0]}, expected {expected}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _locate(file: str, address: Address, access: Access, most: Callable[[int], int], again: bool = False) -> Path:
    """Returns the path of a file in the cache; downloads it if it is not there, or in any case with ``again``."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    path = None if again else _cached(file, address, access)
    asked, access = (None, access) if path and address.is_commit else ask(file, address, access)
    if path and (address.is_commit or (asked and asked.commit_hash == path.parent.name)):
        check_place(path, file, address)
        return path
    size = (asked.size if asked else None) or 0  # if it is not known
    allowed = most(size or MAX_BYTES[file])
    check_size(size, file, f"{file} of {address}", allowed)
    try:
        path = without_a_rejected_token(
            lambda token: transfer(file, address, replace(access, token=token), allowed, again, size), access.token
        )
    except HFValidationError as error:
        raise ValueError(f"{address.repo!r} is not a valid name of a repository: {error}") from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise explain(error, file, address, access) from chainable(error, access)
    except (Warning, OversizedError):  # the former is that of a rejected token, if warnings are errors
        raise
    except Exception as error:  # transport errors belong to httpx or httpx2, which this code should not name
        if again or is_unwritable(error):
            raise explain(error, file, address, access) from chainable(error, access)
        try:
            path = transfer(file, address, replace(access, token=False, local_files_only=True), allowed)
        except Exception:
            raise explain(error, file, address, access) from chainable(error, access)
        why = cause(error, access)
        warnings.warn(f"the Hub cannot be reached ({why}); using the cached {file} of {address}", stacklevel=2)
    check_place(path, file, address)
    return path


def _cached(file: str, address: Address, access: Access) -> Path | None:
    """Returns the path of a file that the cache holds, of the last commit that it knows of a tag or a branch."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(address.repo, file, revision=address.revision, cache_dir=access.cache_dir)
    except HFValidationError:  # the client says so
        return None
    return Path(found) if isinstance(found, str) else None


def _listing(model: "ModelInfo") -> Listing:
    tags: list[str] = model.tags or []
    updated = model.last_modified
    return Listing(
        repo=model.id,
        kernel=_tagged(tags, r"kernel-((?:up-to-)?\d+(?:x\d+)*)"),
        family=_tagged(tags, r"family-([\w-]+)"),
        size=getattr(model, "used_storage", None) or getattr(model, "usedStorage", None),
        downloads=model.downloads or 0,
        updated="" if updated is None else f"{updated:%Y-%m-%d}",
    )


def _tagged(tags: list[str], pattern: str) -> str:
    return next((match[1] for tag in tags if (match := re.fullmatch(pattern, tag))), "")
