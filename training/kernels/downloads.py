"""Files from an index of Python packages and from the web: checked by digest, cached, and never executed."""

import hashlib
import html
import http.client
import io
import os
import re
import tarfile
import urllib.request
import zipfile
import zlib
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version
from tqdm import tqdm

from dwp_init.errors import chainable, without_secrets
from dwp_init.storage import make_folder, write_bytes

LARGEST_DOWNLOAD = 2**30  # bytes, of a download and of a file in an archive
INDEX_URL = "https://pypi.org/simple"
_CHUNK = 2**18
_HREF = re.compile(r"<a\s[^>]*?href\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
_DIGEST = re.compile(r"sha256=([0-9a-f]{64})")


def find_package(name: str, version: str) -> tuple[str, str]:
    """Finds the file of a package in an index of Python packages.

    The index is ``PIP_INDEX_URL``, by default that of PyPI; the configuration files of pip are not read. It is read in
    its simple form (PEP 503), which mirrors have too. A wheel for every machine comes before other wheels, and those
    before a source archive.

    Returns:
        Its address, with the user of the index if it has one, and its SHA-256 digest.

    Raises:
        FileNotFoundError: The index has no such package or version.
        OSError: The network failed.
        ValueError: The index gives no SHA-256 digest.
    """
    project = canonicalize_name(name)
    page = f"{os.environ.get('PIP_INDEX_URL', INDEX_URL).rstrip('/')}/{project}/"
    links = [urljoin(page, html.unescape(link)) for link in _HREF.findall(download(page).decode())]
    shown = without_secrets(page)
    found = {link: parsed for link in links if (parsed := _parse(link)) and parsed[0] == project}
    ranked = sorted((rank, link) for link, (_, known, rank) in found.items() if known == Version(version))
    if not ranked:
        versions = ", ".join(str(each) for each in sorted({known for _, known, _ in found.values()})[-5:])
        raise FileNotFoundError(f"{shown} has no file of {name} {version}; its last versions are {versions or 'none'}")
    address, fragment = urldefrag(ranked[0][1])
    if not (digest := _DIGEST.search(fragment)):
        raise ValueError(
            f"{shown} gives no SHA-256 digest of {without_secrets(address)}; set PIP_INDEX_URL to an index that does"
        )
    return address, digest[1]


def cached_file(address: str, sha256: str) -> Path:
    """Returns the file of an address from the cache, or downloads it; either way its digest is checked.

    Raises:
        OSError: The network failed.
        ValueError: The file is too large, or has another digest.
    """
    path = cache_folder() / sha256 / (Path(unquote(urlsplit(address).path)).name or "file")
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    content = download(address, progress=True)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{without_secrets(address)} has SHA-256 {found}, expected {sha256}; nothing was kept, try again"
        )
    make_folder(path.parent)
    write_bytes(path, content)
    return path


def unpack(archive: Path, member: str) -> Path:
    """Takes one file out of a wheel, a zip or a tar archive into a folder next to the archive.

    Args:
        archive: The archive.
        member: Path of the file in it, or the end of its path if no other file ends so.

    Raises:
        ValueError: It is no such archive, or not one file of it is meant, or the file is too large.
    """
    try:
        content = _read_member(archive, member)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{archive.name} is not a zip or tar archive that can be read ({error})") from error
    folder = archive.parent / hashlib.sha256(member.encode()).hexdigest()[:16]
    make_folder(folder)
    path = folder / Path(member).name
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
    return path


def download(address: str, progress: bool = False) -> bytes:
    """Downloads at most :data:`LARGEST_DOWNLOAD` bytes into memory.

    A user and a password in the address are sent by basic authentication, to that host alone. Messages show neither
    them nor a query, which may hold a token.

    Raises:
        OSError: The network failed.
        ValueError: There are more, or it is no address of the web.
    """
    content, request, shown = io.BytesIO(), _request(address), without_secrets(address)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            size = int(reply.headers.get("Content-Length") or 0)
            name = unquote(urlsplit(address).path.rsplit("/", 1)[-1])
            with tqdm(total=size or None, desc=name, unit="B", unit_scale=True, disable=not progress) as bar:
                while size <= LARGEST_DOWNLOAD and (chunk := reply.read(_CHUNK)):
                    bar.update(content.write(chunk))
                    size = max(size, content.tell())
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"could not fetch {shown}: {without_secrets(str(error))}; check the address and the network"
        ) from chainable(error)
    if size > LARGEST_DOWNLOAD:
        raise ValueError(f"{shown} has more than {LARGEST_DOWNLOAD:,} bytes; download it yourself and give its path")
    if content.tell() < size:
        raise OSError(f"could not fetch {shown}: it ended after {content.tell():,} of {size:,} bytes; try again")
    return content.getvalue()


def _request(address: str) -> urllib.request.Request:
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", address):
        raise ValueError(
            "an address begins with http:// or https:// and a host, and has no spaces; check PIP_INDEX_URL"
        )
    headers = {"User-Agent": "dwp-init", "Accept": "text/html, */*;q=0.5"}
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=headers)
    if user:
        pair = ":".join(map(unquote, user.partition(":")[::2]))
        request.add_unredirected_header("Authorization", f"Basic {b64encode(pair.encode()).decode()}")
    return request


def cache_folder() -> Path:
    """Returns the folder of downloads: ``dwp_init`` in ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dwp_init"


def _parse(link: str) -> tuple[str, Version, int] | None:
    """Returns name, version and rank of a package's file; None where it has no name of one."""
    file = unquote(urlsplit(link).path).rsplit("/", 1)[-1]
    try:
        if file.endswith(".whl"):
            name, version, *_ = parse_wheel_filename(file)
            return name, version, 0 if file.endswith("-none-any.whl") else 1
        name, version = parse_sdist_filename(file)
        return name, version, 2
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None


def _read_member(archive: Path, member: str) -> bytes:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            sizes = {each.filename: each.file_size for each in packed.infolist() if not each.is_dir()}
            return packed.read(_pick(archive, member, sizes))
    with tarfile.open(archive) as unpacked:
        files = {each.name: each for each in unpacked if each.isfile()}
        name = _pick(archive, member, {name: each.size for name, each in files.items()})
        content = unpacked.extractfile(files[name])
        return content.read() if content else b""


def _pick(archive: Path, member: str, sizes: dict[str, int]) -> str:
    exact = [name for name in sizes if name == member]
    found = exact or [name for name in sizes if name.endswith(f"/{member}")]
    if len(found) != 1:
        shown = found or sorted(sizes, key=lambda name: -sizes[name])[:10]
        several = f"{len(found)} files" if found else "no file"
        raise ValueError(f"{archive.name} has {several} {member!r}; name one of {', '.join(shown)}")
    if sizes[found[0]] > LARGEST_DOWNLOAD:
        raise ValueError(f"{member} of {archive.name} has {sizes[found[0]]:,} bytes, more than {LARGEST_DOWNLOAD:,}")
    return found[0]
