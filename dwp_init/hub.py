"""The Hugging Face Hub: the two files of one prior, of one commit, cached, pinned and checked; and a search for priors.

``huggingface_hub`` is imported inside the functions, so that ``HF_*`` variables set after ``import dwp_init`` count.
"""

import errno
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dwp_init.files import CONFIG, MODEL, build_prior, parse_config
from dwp_init.version import __version__

LIBRARY = {"library_name": "dwp_init", "library_version": __version__}
TAG = "dwp-prior"  # what a repository with a prior is tagged with, and found by
_COMMIT = re.compile(r"[0-9a-f]{40}")
Result = TypeVar("Result")
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class PriorError(RuntimeError):
    """A prior could not be had from the Hub."""


class PriorNotFoundError(PriorError):
    """The Hub has no such repository, revision or file, or does not show it without a token."""


class PriorDownloadError(PriorError):
    """The Hub could not be reached, or the cache not be written, and the cache does not hold the prior."""


class PriorCorruptError(PriorError):
    """A file has another digest than the one expected, and downloading it again did not mend it."""


@dataclass(frozen=True)
class Address:
    """A repository at a revision.

    Args:
        repo: ``user/name``.
        revision: A tag, a branch or a commit.
        sha256: The digest of each file, by name, where the address is pinned.
    """

    repo: str
    revision: str = "main"
    sha256: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision can never mean other files."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class Access:
    """How the Hub is reached; each field as in ``huggingface_hub.hf_hub_download``."""

    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.token, str) and not re.fullmatch(r"[!-~]+", self.token):
            raise ValueError(
                "token is empty, or has characters that no token has, such as white space: was a line's end read too?"
            )


@dataclass(frozen=True)
class Files:
    """The files of a prior, read and checked.

    Args:
        folder: Where they lie.
        contents: What they hold, by name.
        name: What the prior is called, unless its configuration says so.
        owner: What to call their place in messages of errors.
        commit: The commit that they are of; empty unless they come from the Hub.
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
        kernel: The kernel size that it is tagged with, such as ``7x7``; empty where it is not.
        family: The family that it is tagged with; empty where it is not.
        size: Bytes that the repository stores, all revisions together, or None where the Hub does not say.
        downloads: In the last 30 days, as the Hub counts.
        updated: The day of the last commit, such as ``2026-11-25``.
    """

    repo: str
    kernel: str
    family: str
    size: int | None
    downloads: int
    updated: str


def fetch(address: Address, access: Access) -> Files:
    """Fetches a prior's ``config.json`` and ``model.safetensors``, both of one commit, and nothing else.

    A full commit that the cache holds needs no request; a tag or a branch needs one, and is what the cache last knew it
    to be where the Hub cannot be asked. The configuration is read first: of a repository that is no prior, no weights
    are downloaded. Each file is compared with its pin or, where there is none, with the digest under which the Hub
    filed it. A cache without symbolic links does not keep that one: there the weights alone are compared, with the
    digest in the configuration. A file that differs is fetched once more, and otherwise never used.

    Raises:
        PriorNotFoundError: There is no such repository, revision or file, or it is private or gated.
        PriorDownloadError: The Hub cannot be reached, or the cache not be written, and the cache lacks a file.
        PriorCorruptError: A file stays damaged.
        ValueError: The repository's name is malformed, or its configuration is no prior's.
    """
    path, content = _checked(CONFIG, address, access)
    config = parse_config(content, f"{address}/{CONFIG}")
    build_prior(config, f"{address}/{CONFIG}")
    commit = path.parent.name if _COMMIT.fullmatch(path.parent.name) else address.revision
    stated = config.get("model_sha256")
    _, model = _checked(MODEL, Address(address.repo, commit, address.sha256), access, stated)
    contents = {CONFIG: content, MODEL: model}
    return Files(path.parent, contents, name=address.repo, owner=str(address), commit=commit)


def search(access: Access) -> list[Listing]:
    """Finds the repositories that are tagged as priors, by name.

    Raises:
        PriorDownloadError: The Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    def ask(token: str | bool | None) -> list[Listing]:
        models = HfApi(endpoint=access.endpoint, token=token, **LIBRARY).list_models(
            filter=TAG, expand=["downloads", "lastModified", "tags", "usedStorage"]
        )
        return sorted((_listing(model) for model in models), key=lambda found: found.repo)

    try:
        return _without_a_rejected_token(ask, access.token)
    except Warning:  # of a rejected token, where warnings are errors
        raise
    except Exception as error:  # transport errors are of httpx or httpx2, which no code of ours should name
        raise PriorDownloadError(
            f"the Hub could not be searched: {_cause(error)}; list_priors() names the priors known without a network"
        ) from error


def _checked(file: str, address: Address, access: Access, stated: object = None) -> tuple[Path, bytes]:
    """Returns where a file lies and what it holds, which has the digest expected; ``stated`` is the configuration's."""
    pinned = None if address.sha256 is None else address.sha256[file]
    path = _locate(file, address, access)
    content = path.read_bytes()
    if damage := _damage(path, content, pinned, stated):
        try:
            if not path.is_symlink() and not access.local_files_only:
                path.unlink()  # in a cache without links the client would not replace it
            path = _locate(file, address, access, again=True)
        except (PriorError, OSError) as error:
            raise PriorCorruptError(
                f"{file} of {address} in the cache is corrupt ({damage}), and could not be fetched again: {error}"
            ) from error
        content = path.read_bytes()
        if damage := _damage(path, content, pinned, stated):
            raise PriorCorruptError(
                f"{file} of {address} is corrupt ({damage}), and was so again when downloaded anew; it was not used. "
                f"Try another network, and tell the owner of {address.repo} if it stays so"
            )
    return path, content


def _damage(path: Path, content: bytes, pinned: str | None, stated: object) -> str:
    """Says how a file differs from what was expected; empty where it does not.

    Without a pin the expected digest is the name of the blob that the snapshot's link points to: SHA-256 of a file in
    large file storage, git's blob id of another (or its plain SHA-1, on mirrors). Other names tell nothing; in a cache
    without links it is the one stated.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    git_blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    expected, known = pinned, [sha256]
    if pinned is None and path.is_symlink():
        expected = path.resolve().name
        known = {40: [git_blob, hashlib.sha1(content).hexdigest()], 64: [sha256]}.get(len(expected), [])
    elif pinned is None:
        expected = stated
    if not isinstance(expected, str) or not re.fullmatch(r"[0-9a-f]+", expected) or not known or expected in known:
        return ""
    return f"its digest is {known[0]}, expected {expected}"


def _locate(file: str, address: Address, access: Access, again: bool = False) -> Path:
    """Returns the path of a file in the cache, downloaded if need be; with ``again`` downloaded in any case."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    if address.is_commit and not again:  # before any call of the client, which may ask the Hub even for a cached file
        cached = try_to_load_from_cache(address.repo, file, revision=address.revision, cache_dir=access.cache_dir)
        if isinstance(cached, str):
            return Path(cached)

    def get(token: str | bool | None, **changes: Any) -> Path:
        options = {"local_files_only": access.local_files_only, "force_download": again} | changes
        options |= {"cache_dir": access.cache_dir, "endpoint": access.endpoint, "token": token}
        return Path(hf_hub_download(address.repo, file, revision=address.revision, **options, **LIBRARY))

    try:
        return _without_a_rejected_token(get, access.token)
    except HFValidationError as error:
        raise ValueError(f"{address.repo!r} is no name of a repository: {error}") from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise _explained(error, file, address, access) from error
    except Warning:  # of a rejected token, where warnings are errors
        raise
    except Exception as error:  # transport errors are of httpx or httpx2, which no code of ours should name
        if again or _is_unwritable(error):
            raise _explained(error, file, address, access) from error
        try:
            path = get(False, local_files_only=True)
        except Exception:
            raise _explained(error, file, address, access) from error
        warnings.warn(
            f"the Hub cannot be reached ({_cause(error)}); using the cached {file} of {address}", stacklevel=2
        )
        return path


def _without_a_rejected_token(call: Callable[[str | bool | None], Result], token: str | bool | None) -> Result:
    """Calls with the token, and without one if the Hub rejects it: an expired token must not bar what is public."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        return call(token)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        if token is False or error.response.status_code != 401:
            raise
        try:
            result = call(False)
        except Exception as second:
            second.rejected_token = True
            raise
        warnings.warn("the Hub rejects the configured token, which may have expired; went on without it", stacklevel=2)
        return result


def _explained(error: Exception, file: str, address: Address, access: Access) -> PriorError:
    """Returns what a user needs to know of a failure of the client."""
    from huggingface_hub import errors

    repo, token = address.repo, "log in with `hf auth login` or pass token="
    if isinstance(error, errors.GatedRepoError):
        return PriorNotFoundError(f"{repo!r} is gated: accept its terms on its page on the Hub, and {token}")
    if isinstance(error, errors.RepositoryNotFoundError):
        rejected = "; the configured token was rejected" if getattr(error, "rejected_token", False) else ""
        return PriorNotFoundError(
            f"{repo!r} is no folder here, and the Hub shows no such repository{rejected}: check the name or, if it is "
            f"private, {token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return PriorNotFoundError(f"{repo!r} has no revision {address.revision!r}; its page on the Hub lists its tags")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return PriorNotFoundError(
            f"{address} has no {file}, so it is no dwp_init prior: one has {CONFIG} and {MODEL}, and nothing else is "
            "ever read, no pickle either"
        )
    away = (
        f"run `dwp-init pull {address}` where there is a network and use the same cache, or `hf download {repo} "
        f"{CONFIG} {MODEL} --revision {address.revision} --local-dir FOLDER` and pass the folder"
    )
    if isinstance(error, errors.LocalEntryNotFoundError) and (access.local_files_only or _offline()):
        return PriorDownloadError(
            f"{file} of {address} is not in the cache, and local_files_only or HF_HUB_OFFLINE is set: {away}"
        )
    if _is_unwritable(error):
        return PriorDownloadError(
            f"{file} of {address} cannot be kept: {error}; pass cache_dir= or set HF_HUB_CACHE to a folder that can be "
            "written and has room"
        )
    here = "" if address.sha256 is not None else f"{repo!r} is no folder here, and "
    return PriorDownloadError(
        f"{here}{file} of {address} could not be downloaded: {_cause(error)}; try again later, or {away}"
    )


def _is_unwritable(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cause(error: BaseException) -> str:
    """Returns kind and first line of what first went wrong, without a token that may be in it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"Bearer \S+", "Bearer …", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _listing(model: Any) -> Listing:
    tags = model.tags or []
    updated = model.last_modified
    return Listing(
        repo=model.id,
        kernel=_tagged(tags, r"kernel-(\d+x\d+)"),
        family=_tagged(tags, r"family-([\w-]+)"),
        size=getattr(model, "used_storage", None) or getattr(model, "usedStorage", None),
        downloads=model.downloads or 0,
        updated="" if updated is None else f"{updated:%Y-%m-%d}",
    )


def _tagged(tags: list[str], pattern: str) -> str:
    return next((match[1] for tag in tags if (match := re.fullmatch(pattern, tag))), "")
