from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from training.engine.records import read_done, read_metrics
from training.engine.run import run_stages
from training.engine.stage import Context
from training.engine.workers import Processes
from training.kernels.checkpoints import network_file
from training.kernels.sources import Sources
from training.networks.paper import MNISTNet
from training.networks.registry import build

SMALL = Sources(filters=(2, 3), networks=2, epochs=3, batch_size=200)


def run(stage: Sources, out: Path, **options: Any) -> Path:
    return run_stages({"sources": stage}, Context(out=out, smoke=True, **options))["sources"]


def weights(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("network-*")):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118
            found[path.name] = tensors | file.metadata()
    return found


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of sums, and so the last bit, depends on the number of threads."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return run(SMALL, tmp_path_factory.mktemp("finished"))


def reference(stage: Sources, seed: int, factor: float, everywhere: bool) -> dict[str, Tensor]:
    """Trains with the penalty written out in the loss and no weight decay."""
    images, labels = Context(out=Path(), smoke=True).images(stage.data, "train").to(torch.device("cpu"))
    torch.manual_seed(seed)
    network = build(stage.network, stage.filters, 10, (1, 28, 28))
    inside = network.features if stage.network == "mnist" else network
    penalized = [p for p in inside.parameters() if stage.network == "mnist" or p.dim() == 4]
    penalized = list(network.parameters()) if everywhere else penalized
    optimizer = torch.optim.Adam(network.parameters(), lr=stage.lr)
    steps = len(images) // stage.batch_size
    for step in range(stage.epochs * steps):
        epoch = step // steps
        if step % steps == 0:
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        batch = order.split(stage.batch_size)[step % steps]
        optimizer.param_groups[0]["lr"] = stage.lr * (1 - step / (stage.epochs * steps))
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        loss = loss + factor * stage.l2 * sum(value.square().sum() for value in penalized)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("network", ["mnist", "resnet-7x7-stem"])
def test_objective_is_cross_entropy_and_the_squares_of_the_convolutions(tmp_path: Path, network: str) -> None:
    """Weight decay equals ``l2 · Σ w²`` over the convolutions, no ½, and nothing on classifier and normalisation."""
    stage = replace(SMALL, network=network, networks=1, first_seed=4, l2=0.3)
    found = load_file(network_file(run(stage, tmp_path), 4))

    def distance(factor: float, everywhere: bool) -> float:
        expected = reference(stage, 4, factor, everywhere)
        assert found.keys() == expected.keys()
        return max((found[name] - expected[name]).abs().max().item() for name in found)

    assert distance(1, everywhere=False) < (1e-5 if network == "mnist" else 2e-4)
    assert min(distance(0.5, everywhere=False), distance(0, everywhere=False), distance(1, everywhere=True)) > 1e-3


def test_the_initial_scale_is_of_spatial_kernels_alone(tmp_path: Path) -> None:
    stage = replace(SMALL, network="resnet-7x7-stem", networks=1, lr=1e-12, init_scale=0.1)
    found = load_file(network_file(run(stage, tmp_path), 0))
    torch.manual_seed(0)
    for name, before in build(stage.network, stage.filters, 10, (1, 28, 28)).named_parameters():
        factor = 0.1 if before.dim() == 4 and before.shape[-1] > 1 else 1.0
        torch.testing.assert_close(found[name], factor * before, atol=1e-8, rtol=1e-5)


def test_finished_networks_carry_what_they_reach(finished: Path) -> None:
    images, labels = Context(out=finished, smoke=True).images("notmnist", "test").to(torch.device("cpu"))
    found = []
    for seed in range(2):
        network = MNISTNet(SMALL.filters)
        network.load_state_dict(load_file(network_file(finished, seed)))
        found.append(round((network(images).argmax(1) == labels).float().mean().item(), 4))
        with safe_open(network_file(finished, seed), "pt") as file:
            assert float(file.metadata()["test_accuracy"]) == found[-1]
    assert [row["test_accuracy"] for row in read_metrics(finished)] == found
    assert [row["seed"] for row in read_metrics(finished)] == [0, 1]


def test_a_normalised_network_is_kept_and_resumed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its running statistics; three epochs of two batches each."""
    stage = replace(SMALL, network="resnet-7x7-stem", networks=1)
    whole = run(stage, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("training.engine.sweep.tqdm", Bar(interrupt=4))
        run(stage, tmp_path / "cut")
    assert weights(run(stage, tmp_path / "cut")) == weights(whole)
    found = load_file(network_file(whole, 0))
    assert found["stem.1.num_batches_tracked"] == 6 and found["stem.1.running_mean"].abs().min() > 0
    images, labels = Context(out=whole, smoke=True).images("notmnist", "test").to(torch.device("cpu"))
    network = build(stage.network, stage.filters, 10, (1, 28, 28)).eval()
    network.load_state_dict(found)
    reached = (network(images).argmax(1) == labels).float().mean().item()
    assert read_metrics(whole)[0]["test_accuracy"] == round(reached, 4)


class Bar:
    """Counts what is reported and interrupts the run at one report."""

    def __init__(self, interrupt: int | None = None) -> None:
        self.interrupt, self.reports = interrupt, 0

    def __call__(self, total: int, initial: int, **options: str) -> "Bar":
        self.total, self.n = total, initial
        return self

    def close(self) -> None:
        pass

    def update(self, n: int) -> None:
        self.n += n
        self.reports += 1
        if self.reports == self.interrupt:
            raise KeyboardInterrupt


@pytest.mark.parametrize("report", [2, 3, 4, 5, 8], ids=lambda report: f"report {report}")
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    report: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep reports once, and each network when it starts and after each of its three epochs."""
    monkeypatch.setattr("training.engine.sweep.tqdm", Bar(interrupt=report))
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path)
    bar = Bar()
    monkeypatch.setattr("training.engine.sweep.tqdm", bar)
    assert weights(run(SMALL, tmp_path)) == weights(finished)
    assert bar.n == bar.total == 2 * 3 * 512
    assert bar.reports < 9 or report == 2


def lose_a_row(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text().splitlines(keepends=True)[0])


@pytest.mark.parametrize(
    "kill",
    [
        lambda folder: (folder / "network-001.checkpoint").write_bytes(b"left"),
        lose_a_row,
        lambda folder: network_file(folder, 0).unlink(),
    ],
    ids=["checkpoint left", "row lost", "file lost"],
)
def test_a_kill_before_the_end_loses_nothing(kill: Callable[[Path], object], tmp_path: Path, finished: Path) -> None:
    folder = run(SMALL, tmp_path)
    (folder / "done.json").unlink()
    kill(folder)
    assert weights(run(SMALL, tmp_path)) == weights(finished)
    assert {row["seed"]: row for row in read_metrics(folder)} == {row["seed"]: row for row in read_metrics(finished)}
    assert read_done(folder)["test_accuracy_mean"] == read_done(finished)["test_accuracy_mean"]
    assert not list(folder.glob("*.checkpoint"))


def test_files_of_equal_runs_are_equal(tmp_path: Path, finished: Path) -> None:
    """Also in the order of their metadata."""
    folder = run(SMALL, tmp_path)
    assert network_file(folder, 1).read_bytes() == network_file(finished, 1).read_bytes()
    assert b'{"__metadata__":{"seed":"1","train_loss":' in network_file(folder, 1).read_bytes()


def test_workers_change_nothing(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar()
    monkeypatch.setattr("training.engine.sweep.tqdm", bar)
    assert weights(run(SMALL, tmp_path, engine=Processes(2))) == weights(finished)
    assert list(weights(finished)) == ["network-000.safetensors", "network-001.safetensors"]
    assert bar.n == bar.total


def test_a_worker_that_fails_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sources, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run(SMALL, tmp_path)
    (tmp_path / "sources" / "network-001.checkpoint").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"network-001.checkpoint is not a complete checkpoint; remove it"):
        run(SMALL, tmp_path, engine=Processes(2))
    assert not (tmp_path / "sources" / "done.json").exists()


def test_bfloat16_trains_float32_weights(tmp_path: Path, finished: Path) -> None:
    found = load_file(network_file(run(replace(SMALL, networks=1, precision="bfloat16"), tmp_path), 0))
    exact = load_file(network_file(finished, 0))
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert 0 < (found["features.conv1.weight"] - exact["features.conv1.weight"]).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "precision is 'float32' or 'bfloat16'; got 'float16'"),
        ({"network": "lenet"}, "unknown network 'lenet'; there are mnist, cifar"),
        ({"filters": (2, 3, 4)}, r"the network takes filters of length 2; got \(2, 3, 4\)"),
        ({"networks": 0}, "networks must be 1 or more; got 0"),
        ({"init_scale": 0.0}, "init_scale must be a number above 0; got 0.0"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"batch_size": -1}, "batch_size must be 1 or more; got -1"),
    ],
)
def test_refused_settings_can_be_mended(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(replace(SMALL, **settings), tmp_path)
    assert len(weights(run(replace(SMALL, epochs=1), tmp_path))) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_steps_train_as_eager_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Sources(network="resnet", filters=(4, 8), networks=1, epochs=3, batch_size=64, data="cifar10")
    recorded = run(stage, tmp_path / "recorded", device=torch.device("cuda"))
    monkeypatch.setattr("training.networks.loop.Step.eager_steps", 1000)
    eager = run(stage, tmp_path / "eager", device=torch.device("cuda"))
    one, other = load_file(network_file(recorded, 0)), load_file(network_file(eager, 0))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=2e-3, rtol=2e-2, msg=name)
    assert read_metrics(recorded)[0]["train_loss"] == pytest.approx(read_metrics(eager)[0]["train_loss"], rel=1e-2)


@pytest.mark.parametrize("loss", ["row", "network", "bit"])
def test_what_is_lost_between_a_network_and_its_row_is_made_again(
    loss: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a network's file and before its row; or the file of a recorded row is lost, or damaged."""

    def killed(*_: Any, **row: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"training.engine.sweep.{'record' if loss == 'row' else 'order'}_metrics", killed)
        run(SMALL, tmp_path)
    path = network_file(tmp_path / "sources", 0)
    assert path.exists() and len(read_metrics(path.parent)) == (0 if loss == "row" else 2)
    if loss == "network":
        path.unlink()
    elif loss == "bit":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    folder = run(SMALL, tmp_path)
    for name in ("metrics.jsonl", "network-000.safetensors", "network-001.safetensors"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert {file.name for file in folder.iterdir()} == {file.name for file in finished.iterdir()}
