"""Publishes a release: one commit of a repository on the Hugging Face Hub, and a tag.

A release is checked without a network (:func:`training.publish.release.prepare`), compared with what is there
(:func:`look_up`), and only then sent (:func:`push`): all files in one commit on the head that was seen, and a tag that
never moves; then the release is downloaded as users will download it. Steps that are already done are skipped, so that
the same command resumes an interrupted publication.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import CommitOperationAdd, HfApi, errors

from dwp_init import PriorError
from dwp_init.access import Access, Address
from dwp_init.config import parse_config
from dwp_init.errors import chainable, without_secrets
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL
from dwp_init.hub import fetch
from dwp_init.transfer import CLIENT
from training.publish.release import Release

Result = TypeVar("Result")


@dataclass(frozen=True)
class State:
    """What a repository holds.

    Args:
        exists: Whether there is such a repository, and the token shows it.
        head: The commit of ``main``.
        tagged: The commit of the release's tag, if it is taken.
        committed: Whether the tag, or else the head, holds the release's files unchanged, possibly next to others.
        replaced: Names of files at the head that the release replaces.
        others: Names of other files at the head; they stay.
    """

    exists: bool = False
    head: str | None = None
    tagged: str | None = None
    committed: bool = False
    replaced: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def look_up(release: Release, private: bool = False) -> State:
    """Asks the Hub what the repository holds.

    Raises:
        ValueError: The tag is on other files, or is a branch; the repository holds another model; or it is public,
            and ``private`` was asked for.
        OSError: The Hub cannot be asked, or rejects the token.
    """
    api, repo, tag = _api(), release.repo, release.tag
    try:
        refs = _asked(lambda: api.list_repo_refs(repo))
    except errors.RepositoryNotFoundError:
        return State()
    if private and not _asked(lambda: api.model_info(repo)).private:
        raise ValueError(f"{repo} is public already, so --private has no effect; nothing was sent")
    branches = {branch.name: branch.target_commit for branch in refs.branches}
    head, tagged = branches.get("main"), next((found.target_commit for found in refs.tags if found.name == tag), None)
    if tag in branches:
        raise ValueError(f"{repo} has a branch called {tag!r}, which would move: choose another --tag")
    commit = tagged or head
    if commit is None:
        return State(exists=True)
    there = _asked(lambda: _digests(api, repo, commit))
    ours = {name: _digest_as(there.get(name, ""), content) for name, content in release.files.items()}
    differing = [name for name, digest in ours.items() if there.get(name) != digest]
    if tagged is not None and differing:
        raise ValueError(
            f"{repo} has the tag {tag!r} already, at {tagged}, with other {', '.join(differing)}; tags are never "
            f"moved: publish as {release.next_tag!r}, with --tag"
        )
    replaced = tuple(name for name in differing if name in there)
    if {CONFIG, MODEL} & set(replaced):
        _check_is_a_prior(api, repo, commit)
    others = sorted(set(there) - set(release.files) - {".gitattributes"})
    return State(True, head, tagged, not differing, replaced, tuple(others))


def plan(release: Release, state: State, private: bool = False) -> list[str]:
    """Says what :func:`push` will do, one line for each step."""
    repo, size = release.repo, sum(map(len, release.files.values()))
    if state.tagged:
        return [f"nothing to send: {repo}@{release.tag} holds exactly these files, at {state.tagged}"]
    lines = [] if state.exists else [f"create the {'private' if private else 'public'} repository {repo}"]
    if state.committed:
        lines.append(f"send no files: {state.head} holds exactly these already")
    else:
        after = f"after {state.head}" if state.head else "the first"
        lines.append(f"send {len(release.files)} files, {size / 1e6:.2f} MB, in one commit, {after}:")
        lines += [f"  {name} ({len(content):,} bytes)" for name, content in release.files.items()]
    if state.replaced:
        lines.append(f"replace these files: {', '.join(state.replaced)}")
    if state.others:
        lines.append(f"leave unchanged: {', '.join(state.others)}")
    return [*lines, f"set the tag {release.tag}, which is never moved"]


def push(release: Release, state: State, private: bool = False) -> str:
    """Does what :func:`plan` says, reads the release back as a user would, and returns the commit.

    The token of ``huggingface_hub`` needs the right to write.

    Args:
        release: From :func:`prepare`.
        state: From :func:`look_up`.
        private: Whether a repository that is created now is private.

    Raises:
        OSError: The Hub refuses, or cannot be reached; the message says how far it came, and the same command resumes.
        PriorError: What was read back is not what was sent.
    """
    commit = state.tagged or (state.head if state.committed else None) or _commit(release, state, private)
    if state.tagged is None:
        taken = (
            f"somebody else has set the tag {release.tag!r} of {release.repo} meanwhile, and tags never move; the "
            f"files are there, at {commit}: publish them as {release.next_tag!r}, with --tag"
        )
        _asked(lambda: _api().create_tag(release.repo, tag=release.tag, revision=commit), refused={409: taken})
    read_back(release, commit)
    return commit


def read_back(release: Release, commit: str) -> None:
    """Loads a published release into an empty cache, and checks that its draws are those of the folder's prior.

    Raises:
        PriorError: It cannot be loaded, or differs.
    """
    with tempfile.TemporaryDirectory() as cache:
        for revision in (commit, release.tag):
            files = fetch(Address(release.repo, revision, release.sha256), Access(cache_dir=cache))
            priors = parse_prior(files.contents, files.owner), release.prior
            ours, theirs = (prior.sample(8, torch.Generator().manual_seed(0)) for prior in priors)
            if files.commit != commit or not torch.equal(ours, theirs):
                raise PriorError(
                    f"{release.repo}@{revision} is not what was published: commit {files.commit}, expected {commit}"
                )


def _check_is_a_prior(api: Any, repo: str, commit: str) -> None:
    """Raises ValueError if a repository holds a model that is not a prior; a release would replace it."""
    with tempfile.TemporaryDirectory() as cache:
        try:
            path = _asked(lambda: api.hf_hub_download(repo, CONFIG, revision=commit, cache_dir=cache))
            parse_config(Path(path).read_bytes(), f"{repo}/{CONFIG}")
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{repo} holds a model that is not a prior, and publishing would replace it ({error})"
            ) from error


def _api() -> Any:
    return HfApi(**CLIENT)


def _digests(api: Any, repo: str, commit: str) -> dict[str, str]:
    """Returns the digest of each file at a commit: SHA-256 of large files, git's blob id of others."""
    tree = api.list_repo_tree(repo, revision=commit, recursive=True)
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in tree if hasattr(file, "blob_id")}


def _digest_as(theirs: str, content: bytes) -> str:
    """Returns a content's digest, of the kind that another one is."""
    if len(theirs) == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit(release: Release, state: State, private: bool) -> str:
    """Sends all files in one commit on the head that was seen, and returns the commit."""
    api, repo, head = _api(), release.repo, state.head
    if not state.exists:
        _asked(lambda: api.create_repo(repo, private=private, exist_ok=not private))
    if head is None:
        head = _asked(lambda: api.model_info(repo)).sha
    operations = [CommitOperationAdd(name, content) for name, content in release.files.items()]
    oid: str = _asked(
        lambda: api.create_commit(
            repo, operations=operations, commit_message=f"Publish {release.tag}", parent_commit=head
        ),
        refused={412: f"somebody else has changed {repo} meanwhile: look at it, then publish again; nothing was sent"},
    ).oid
    return oid


def _asked(call: Callable[[], Result], refused: dict[int | None, str] | None = None) -> Result:
    """Calls the Hub; raises OSError with a way out if it refuses, but passes on the error for a missing repository."""
    try:
        return call()
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise
    except Exception as error:  # transport errors are of httpx or httpx2, which no code of ours should name
        status: int | None = getattr(getattr(error, "response", None), "status_code", None)
        reasons: dict[int | None, str] = {
            401: "the Hub rejects the token: log in with `hf auth login`, or set HF_TOKEN to one that may write",
            403: "the token may not write there: use one that may, of the repository's owner",
            **(refused or {}),
        }
        said = getattr(error, "server_message", None) or next(iter(str(error).strip().splitlines()), "")
        said = without_secrets(said)
        what = reasons.get(status, f"{type(error).__name__}: {said}; the same command resumes what is left")
        raise OSError(what) from chainable(error)
