"""Downloads, on the loopback interface: the choice of a package's file, digests, the cache, and archives."""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.training.loopback import Server
from training.kernels import downloads
from training.kernels.downloads import cache_folder, cached_file, download, find_package, unpack

DIGEST = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def places(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")


def publish(server: Server, *files: str, digest: str = f"#sha256={DIGEST}") -> None:
    page = "".join(f'<A class="x" HREF=\'../../{name}{digest}\' data-x="&gt;">{name}</A>' for name in files)
    server.files["/simple/my-net/"] = page.encode()


@pytest.mark.parametrize(
    ("files", "version", "chosen"),
    [
        (["my_net-1.0.tar.gz", "My.Net-1.0-py3-none-any.whl", "my_net-1.1-py3-none-any.whl"], "1.0", 1),
        (["my_net-1.0.tar.gz", "my_net-1.0-cp311-cp311-win32.whl"], "1.0", 1),
        (["other-1.0-py3-none-any.whl", "my_net-1.0.zip", "my-net-1.0.exe", "README"], "1.0.0", 1),
    ],
)
def test_the_file_of_a_package(server: Server, files: list[str], version: str, chosen: int) -> None:
    publish(server, *files)
    assert find_package("My_Net", version) == (f"{server.url}/{files[chosen]}", DIGEST)


def test_packages_that_cannot_be_had(server: Server) -> None:
    publish(server, "my_net-1.0.tar.gz", "my_net-2.0.tar.gz")
    with pytest.raises(
        FileNotFoundError, match=r"/simple/my-net/ has no file of my-net 3; its last versions are 1\.0, 2"
    ):
        find_package("my-net", "3")
    publish(server, "my_net-1.0.tar.gz", digest="#md5=0")
    with pytest.raises(ValueError, match=r"gives no SHA-256 digest of .*my_net-1\.0\.tar\.gz; set PIP_INDEX_URL"):
        find_package("my-net", "1.0")
    with pytest.raises(OSError, match=r"could not fetch .*/simple/none/: .*404.*; check the address and the network"):
        find_package("none", "1.0")


def test_a_user_is_sent_to_the_index_alone_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, "my_net-1.0.tar.gz")
    secret = server.url.replace("//", "//me:s3%2Fcret@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{secret}/simple")
    address, _ = find_package("my-net", "1.0")
    server.moved["/my_net-1.0.tar.gz"] = f"{server.url}/elsewhere?sig=s3cret"
    for call in (
        lambda: cached_file(address, DIGEST),
        lambda: cached_file(f"{server.url}/none?token=s3cret", DIGEST),
        lambda: find_package("my-net", "2"),
        lambda: find_package("other", "1"),
        lambda: download("me:s3cret@host/simple"),
        lambda: download("https://host/a?token=s3cret b"),
    ):
        with pytest.raises((OSError, ValueError)) as raised:
            call()
        assert "cret" not in f"{raised.value} {raised.value.__cause__}"
    sent = "Basic " + base64.b64encode(b"me:s3/cret").decode()
    assert server.authorizations == [sent, sent, None, None, sent, sent]


def test_a_file_is_fetched_once_and_checked_each_time(server: Server) -> None:
    server.files["/a%20b.pth"] = content = bytes(range(256))
    digest = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        path = cached_file(f"{server.url}/a%20b.pth", digest)
        assert path.read_bytes() == content and path.name == "a b.pth"
    assert server.asked == ["/a%20b.pth"]
    path.write_bytes(b"damaged")
    assert cached_file(f"{server.url}/a%20b.pth", digest).read_bytes() == content


def test_nothing_partial_or_false_is_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files |= {"/cut": bytes(1000), "/whole": bytes(1000)}
    server.cut.add("/cut")
    with pytest.raises(OSError, match=r"could not fetch .*/cut: it ended after 500 of 1,000 bytes; try again"):
        cached_file(f"{server.url}/cut", DIGEST)
    with pytest.raises(ValueError, match=f"/whole has SHA-256 .*, expected {DIGEST}; nothing was kept, try again"):
        cached_file(f"{server.url}/whole", DIGEST)
    monkeypatch.setattr(downloads, "LARGEST_DOWNLOAD", 999)
    with pytest.raises(ValueError, match="/whole has more than 999 bytes; download it yourself and give its path"):
        cached_file(f"{server.url}/whole", DIGEST)
    with pytest.raises(OSError, match=r"could not fetch http://127.0.0.1:1/a: .*; check the address"):
        cached_file("http://127.0.0.1:1/a", DIGEST)
    assert not cache_folder().exists()


FILES = {"net-1/a.pth": b"A", "net-1/data/b.pth": b"BB", "net-1/more/b.pth": b"C", "net-1/setup.py": b"1/0"}


@pytest.fixture(params=["whl", "tar.gz", "tgz"])
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "packages" / f"net-1.{request.param}"
    path.parent.mkdir()
    if request.param == "whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, content in FILES.items():
                wheel.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as source:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            source.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("net-1/link.pth")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        source.addfile(link)
    return path


def test_a_file_of_an_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for member in ("a.pth", "net-1/a.pth"):
        assert unpack(archive, member).read_bytes() == b"A"
    one, other = unpack(archive, "data/b.pth"), unpack(archive, "more/b.pth")
    assert (one.read_bytes(), other.read_bytes(), one.name, other.name) == (b"BB", b"C", "b.pth", "b.pth")
    with pytest.raises(ValueError, match=r"has 2 files 'b\.pth'; name one of net-1/data/b\.pth, net-1/more/b\.pth"):
        unpack(archive, "b.pth")
    with pytest.raises(ValueError, match=r"has no file 'link\.pth'; name one of net-1/setup\.py, net-1/data/b\.pth"):
        unpack(archive, "link.pth")
    monkeypatch.setattr(downloads, "LARGEST_DOWNLOAD", 1)
    with pytest.raises(ValueError, match=r"data/b\.pth of net-1\..* has 2 bytes, more than 1"):
        unpack(archive, "data/b.pth")


def test_a_broken_archive(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-30] if archive.suffix == ".whl" else archive.read_bytes()[:40])
    with pytest.raises(ValueError, match="is not a zip or tar archive that can be read"):
        unpack(archive, "a.pth")
