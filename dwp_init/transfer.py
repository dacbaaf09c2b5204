"""One transfer from the Hub: bounded in bytes and in time, and filed only where the cache may file it."""

import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from dwp_init.access import Access, Address
from dwp_init.errors import PriorDownloadError, is_offline, mark_rejected_token
from dwp_init.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.utils.tqdm import tqdm


class _Client(TypedDict):
    library_name: str
    library_version: str


CLIENT: _Client = {"library_name": "dwp_init", "library_version": __version__}  # what requests say that they come from
SECONDS, BYTES_A_SECOND = 60.0, 50_000  # how long a transfer may last; longer for large files
_NAME = re.compile(r"[A-Za-z0-9_-][\w.-]{0,254}", re.ASCII)  # of a file in the cache
_Result = TypeVar("_Result")


def ask(file: str, address: Address, access: Access) -> "tuple[HfFileMetadata | None, Access]":
    """Asks the Hub how large a file is, and of which commit; without the token, if the Hub rejects it.

    Args:
        file: Its name.
        address: Its repository.
        access: How the Hub is reached.

    Returns:
        Its ``size`` in bytes and ``commit_hash``; None if the Hub was not asked, or fails: the client will say why. And
        how the Hub answered: as it was given, or without the token.

    Raises:
        PriorDownloadError: The Hub files it under a name, its ETag, that would leave the folder of the cache.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if access.local_files_only or is_offline():
        return None, access

    def metadata(token: str | bool | None) -> "tuple[HfFileMetadata, str | bool | None]":
        url = hf_hub_url(address.repo, file, revision=address.revision, endpoint=access.endpoint)
        return within(SECONDS, lambda: get_hf_file_metadata(url, token=token, endpoint=access.endpoint)), token

    try:
        found, token = without_a_rejected_token(metadata, access.token)
    except Warning:  # the one of a rejected token, if warnings are errors
        raise
    except Exception:
        return None, access
    if found.etag is not None and not _NAME.fullmatch(found.etag):
        raise PriorDownloadError(
            f"the Hub files {file} of {address} under {found.etag[:80]!r}, which is no digest and could be anywhere; "
            "nothing was downloaded: check the endpoint"
        )
    return found, replace(access, token=token)


def without_a_rejected_token(call: Callable[[str | bool | None], _Result], token: str | bool | None) -> _Result:
    """Calls with the token, and without one if the Hub rejects it: public files need no token, so not a valid one."""
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
            mark_rejected_token(second)
            raise
        warnings.warn("the Hub rejects the configured token, which may have expired; continuing without", stacklevel=2)
        return result


class OversizedError(ValueError):
    """A transfer that was ended because more bytes came than the file may have."""


def bounded(most: int, seconds: float, owner: str) -> "type[tqdm]":
    """Returns a progress bar that ends a download by HTTP after a number of bytes or a time, whatever the Hub said.

    Xet, by which the client may transfer large files, ignores what the bar raises; the size of those is known before.

    Args:
        most: Bytes that may come; the download may be over by one block, and by 1 % for what the protocol adds.
        seconds: From now.
        owner: How the error calls the file.

    Raises:
        OversizedError: In the download.
        TimeoutError: In the download.
    """
    from huggingface_hub.utils.tqdm import tqdm

    until = time.monotonic() + seconds

    class Bounded(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
            self._come = options.get("initial", 0)  # self.n stays where bars are disabled

        def update(self, n: float | None = 1) -> bool | None:
            self._come += n or 0
            if self._come > 1.01 * most:
                raise OversizedError(f"{owner} has more than the {most:,} bytes that it may have: check the prior")
            if time.monotonic() > until:
                raise TimeoutError(f"it took longer than {seconds:.0f} seconds")
            return super().update(n)

    return Bounded


def check_place(path: Path, file: str, address: Address) -> None:
    """Raises ``PriorDownloadError`` if a file of the cache is not in its repository's folder or in the shared blobs."""
    place = path.resolve()
    if not any(place.is_relative_to(folder.resolve()) for folder in (path.parents[2], path.parents[3] / "blobs")):
        raise PriorDownloadError(f"{file} of {address} is outside of the cache, at {place}; check the endpoint")


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """Returns what a call returns, or raises its error, but waits for a bounded time only.

    Raises:
        TimeoutError: It lasts longer; it then goes on in a thread that ends with the process, or by :func:`bounded`.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"it took longer than {seconds:.0f} seconds")
    return results[0]


def transfer(file: str, address: Address, access: Access, most: int, again: bool = False, size: int = 0) -> Path:
    """Returns the path of a file in the cache, where the client of the Hub puts it if it is not there.

    Args:
        file: Its name.
        address: Its repository.
        access: How the Hub is reached.
        most: Bytes that it may have.
        again: Whether to download it in any case.
        size: Bytes that it has; 0 if this is not known.
    """
    from huggingface_hub import hf_hub_download

    seconds = SECONDS + size / BYTES_A_SECOND
    bar = bounded(most, seconds, f"{file} of {address}")
    path = within(
        seconds,
        lambda: hf_hub_download(
            address.repo,
            file,
            revision=address.revision,
            cache_dir=access.cache_dir,
            endpoint=access.endpoint,
            token=access.token,
            local_files_only=access.local_files_only,
            force_download=again,
            tqdm_class=bar,
            **CLIENT,
        ),
    )
    return Path(path)
