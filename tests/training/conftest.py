"""Everything in this folder is marked ``training`` and skipped where the extra is not installed."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.loopback import Server

pytest.importorskip("torchvision", reason="needs the training extra: pip install -e '.[training]'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.training)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matplotlib figures that a test saves, in order."""
    from matplotlib.figure import Figure

    found, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: (found.append(figure), save(figure, *args, **options))
    )
    return found


@pytest.fixture
def png_size() -> Callable[[Path], tuple[int, ...]]:
    """Returns the height and width of a PNG, after checking that it can be read and has several colours."""
    import matplotlib.image

    def read(path: Path) -> tuple[int, ...]:
        pixels = matplotlib.image.imread(path)
        assert len(set(map(tuple, pixels.reshape(-1, pixels.shape[2])[::7].tolist()))) > 5
        return pixels.shape[:2]

    return read


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty registry, in place of the package's."""
    from dwp_init import registry
    from training.publish import release

    path = tmp_path / "registry.json"
    path.write_text("{}")
    for module in (registry, release):
        monkeypatch.setattr(module, "REGISTRY", path)
    registry.registry.cache_clear()
    yield path
    registry.registry.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
