"""Which repository on the Hugging Face Hub holds a prior, and how the Hub is reached."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Access:
    """The options with which priors are loaded; all but the first are as in ``huggingface_hub.hf_hub_download``.

    Args:
        revision: The tag, branch or commit of a repository, if its name does not say it.
        cache_dir: Folder of the downloads, ``HF_HUB_CACHE`` by default.
        token: ``None`` for the token that is logged in, ``False`` for none.
        local_files_only: Whether to use the cache only.
        endpoint: URL of the Hub, ``HF_ENDPOINT`` or the public one by default.

    Raises:
        TypeError: ``revision`` is not a string.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.revision is not None and not isinstance(self.revision, str):
            raise TypeError(f"revision must be a str, such as 'v1'; got {self.revision!r}")

    def check_token(self) -> None:
        """Raises ``ValueError`` if ``token`` cannot be a token; it does not matter as long as nothing is loaded."""
        if isinstance(self.token, str) and not re.fullmatch(r"[!-~]+", self.token):
            raise ValueError(
                "token is empty, or contains characters that no token has, such as a space or a line break; strip it"
            )


@dataclass(frozen=True)
class Address:
    """A repository at a revision.

    Args:
        repo: ``user/name``.
        revision: A tag, a branch or a commit.
        sha256: The digest of each file, by name, if the address is pinned.
    """

    repo: str
    revision: str = "main"
    sha256: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a full commit, whose files never change."""
        return _COMMIT.fullmatch(self.revision) is not None
