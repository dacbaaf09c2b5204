"""A Hub on the loopback interface, small priors and snapshots that several test modules share."""

import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from dwp_init import Gaussian, Prior, load_prior, register, save_prior
from dwp_init.folder import read_files
from dwp_init.priors import FAMILIES
from tests.localhub import LocalHub
from tests.models import REPO
from tests.toy_family import Spherical, SphericalBound

# Read by huggingface_hub and Ray when they are imported: no test reaches the public Hub, the user's own cache
# and token, or another interface than loopback.
_HOME = tempfile.TemporaryDirectory(prefix="dwp-init-")  # short, because sockets of Ray in it have long names
os.environ |= {"HF_HOME": _HOME.name, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
# A Ray of this process alone: others on this machine may run tests too, and what is short here is no failure.
os.environ |= {"RAY_TMPDIR": _HOME.name, "RAY_memory_monitor_refresh_ms": "0", "RAY_local_fs_capacity_threshold": "1"}
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"}
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HUB_ETAG_TIMEOUT"):
    os.environ.pop(_name, None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell sets it for what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skips a test whose fixtures need a library that is not installed."""
    return (yield from _skipped_without_zuko())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skips a test that needs a library that is not installed."""
    return (yield from _skipped_without_zuko())


def _skipped_without_zuko() -> Generator[None, object, object]:
    try:
        return (yield)
    except ImportError as error:
        if "needs the library zuko" in str(error) and importlib.util.find_spec("zuko") is None:
            pytest.skip(str(error))
        raise


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """A Hub of one's own on the loopback interface, for the real client."""
    with LocalHub() as running:
        yield running


@pytest.fixture
def endpoint(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes it the Hub of this process, as ``HF_ENDPOINT`` would before the import, with a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return hub.endpoint


@pytest.fixture
def gaussian() -> Callable[..., Gaussian]:
    """Makes Gaussians of any kernel size, fitted to smooth kernels with a mean."""

    def fit(size: int = 3, channels: int = 1) -> Gaussian:
        dim = channels * size**2
        generator = torch.Generator().manual_seed(dim)
        mix = torch.randn(dim, dim, generator=generator) / dim
        kernels = 0.02 + torch.randn(500, dim, generator=generator) @ mix
        return Gaussian((channels, size, size)).fit_(kernels.view(-1, channels, size, size))

    return fit


@pytest.fixture
def files(gaussian: Callable[..., Gaussian], tmp_path: Path) -> dict[str, bytes]:
    """The files of a prior that is named ``gauss-3x3``."""
    prior = gaussian(3)
    prior.details = {"name": "gauss-3x3", "license": "MIT"}
    return read_files(save_prior(prior, tmp_path / "gauss-3x3"))


@pytest.fixture
def commit(hub: LocalHub, files: dict[str, bytes]) -> str:
    """The commit of the published prior, tagged v1."""
    return hub.add_repo(REPO, {**files, "README.md": b"---\nlicense: mit\ntags: [dwp-prior]\n---\n"}, tag="v1")


@pytest.fixture
def load(hub: LocalHub, tmp_path: Path) -> Callable[..., Prior]:
    """Loads from the loopback Hub, with a cache of this test's own."""

    def call(name: str = f"{REPO}@v1", **options: object) -> Prior:
        return load_prior(name, **{"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", **options})

    return call


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the waits between the client's attempts, 23 s where nobody answers."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def toy_families() -> Iterator[None]:
    """Registers the families of :mod:`tests.toy_family` for one test."""
    before = dict(FAMILIES)
    register(Spherical)
    register(SphericalBound)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, bytes]]:
    """Takes the bytes of every parameter and buffer, by name."""

    def read(tensor: Tensor) -> bytes:
        return bytes(
            tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8).tolist()
        )

    def take(model: nn.Module) -> dict[str, bytes]:
        return {name: read(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}

    return take


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # torch replaces it
    if not distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    yield
    distributed.destroy_process_group()
