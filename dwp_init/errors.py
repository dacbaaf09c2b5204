"""The errors of the Hub: what went wrong with a prior there, and what a user can do about it."""

import errno
import re
from urllib.parse import urlsplit

from dwp_init.access import Access, Address
from dwp_init.folder import CONFIG, MODEL

_REJECTED_TOKEN = "rejected_token"
_SECRETS = {r"Bearer \S+": "Bearer …", r"//[^/@\s]+@": "//…@", r"(://[^\s?#]*)\?[^\s#'\"<>]+": r"\1?…"}
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class PriorError(RuntimeError):
    """A prior could not be loaded from the Hub."""


class PriorNotFoundError(PriorError):
    """The Hub has no such repository, revision or file, or does not show it without a token."""


class PriorDownloadError(PriorError):
    """The Hub cannot be reached, or the cache cannot be written, and the cache does not hold the prior."""


class PriorCorruptError(PriorError):
    """A file does not have the expected digest, and downloading it again did not help."""


def explain(error: Exception, file: str, address: Address, access: Access) -> PriorError:
    """Turns a failure of the client into the error that a user sees.

    Args:
        error: What the client raised.
        file: The file that was asked for.
        address: Where it was looked for.
        access: How.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    if missing := _explain_missing(error, file, address):
        return missing
    away = (
        f"run `dwp-init pull {address}` where there is a network and use the same cache, or `hf download "
        f"{address.repo} {CONFIG} {MODEL} --revision {address.revision} --local-dir FOLDER` and pass the folder"
    )
    if isinstance(error, LocalEntryNotFoundError) and (access.local_files_only or is_offline()):
        return PriorDownloadError(
            f"{file} of {address} is not in the cache, and local_files_only or HF_HUB_OFFLINE is set: {away}"
        )
    if is_unwritable(error):
        return PriorDownloadError(
            f"{file} of {address} cannot be written: {without_secrets(str(error), access)}; pass cache_dir= or set "
            "HF_HUB_CACHE to a folder that is writable and has room"
        )
    here = "" if address.sha256 is not None else f"{address.repo!r} is not a folder here, and "
    return PriorDownloadError(
        f"{here}{file} of {address} could not be downloaded: {cause(error, access)}; try again later, or {away}"
    )


def _explain_missing(error: Exception, file: str, address: Address) -> PriorNotFoundError | None:
    """Returns the error for a repository, revision or file that the Hub does not have or show."""
    from huggingface_hub import errors

    repo, token = address.repo, "log in with `hf auth login` or pass token="
    if isinstance(error, errors.GatedRepoError):
        return PriorNotFoundError(f"{repo!r} is gated: accept its terms on its page on the Hub, and {token}")
    if isinstance(error, errors.RepositoryNotFoundError):
        rejected = "; the configured token was rejected" if getattr(error, _REJECTED_TOKEN, False) else ""
        return PriorNotFoundError(
            f"{repo!r} is not a folder here, and the Hub shows no such repository{rejected}: check the name or, if it "
            f"is private, {token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return PriorNotFoundError(f"{repo!r} has no revision {address.revision!r}; its page on the Hub lists its tags")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return PriorNotFoundError(
            f"{address} has no {file}, so it is not a dwp_init prior, which has {CONFIG} and {MODEL}; other files, "
            "such as pickles, are never read"
        )
    return None


def mark_rejected_token(error: Exception) -> None:
    """Notes on an error that it was raised without the configured token, which the Hub had rejected."""
    setattr(error, _REJECTED_TOKEN, True)


def without_secrets(text: str, access: Access | None = None) -> str:
    """Removes tokens, and the users and queries of addresses, from a text that a server, a client or a user wrote."""
    for secret in _secrets(access or Access()):
        text = text.replace(secret, "…")
    for pattern, shown in _SECRETS.items():
        text = re.sub(pattern, shown, text)
    return text


def chainable(error: BaseException, access: Access | None = None) -> BaseException | None:
    """Returns an error to chain to another; None if a traceback of it would show a secret."""
    each: BaseException | None = error
    while each is not None:
        if without_secrets(str(each), access) != str(each):
            return None
        each = each.__cause__ or each.__context__
    return error


def _secrets(access: Access) -> list[str]:
    from huggingface_hub import constants, get_token

    token = get_token() if access.token is None else access.token
    password = urlsplit(access.endpoint or constants.ENDPOINT).password
    return [secret for secret in (token, password) if isinstance(secret, str) and secret]


def is_unwritable(error: Exception) -> bool:
    """Whether an error says that the cache cannot be written."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE


def cause(error: BaseException, access: Access | None = None) -> str:
    """Returns the kind and the first line of the original error, without any secret in it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = without_secrets(str(error), access).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
