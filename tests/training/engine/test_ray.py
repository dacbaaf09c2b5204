import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from tests.training.engine.test_workers import burst, fail
from training.__main__ import main
from training.engine import ray as engine
from training.engine.ray import Ray
from training.engine.records import read_done
from training.engine.run import run_stages
from training.engine.stage import Context
from training.engine.workers import ONE_PROCESS, Engine
from training.kernels.sources import Sources

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="starts a cluster of several nodes, and sends signals"),
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install -e '.[ray]'"),
    pytest.mark.timeout(600, method="signal" if hasattr(signal, "SIGALRM") else "thread"),
    pytest.mark.flaky(reruns=2),  # nodes that are started on a busy machine may give up before they are up
]

ON_LOOPBACK = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
STAGE = Sources(filters=(2, 3), networks=2, epochs=40, batch_size=200)
RECIPE = ["run", "prior_notmnist_7x7", "sources.epochs=40", "--smoke", "--device", "cpu", "--only", "sources"]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on the loopback interface, one of them with a CPU."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False}
    running = Cluster(initialize_head=True, head_node_args=head | ON_LOOPBACK)
    running.add_node(num_cpus=1, **ON_LOOPBACK)
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The order of sums, and so the last bit, depends on the number of threads."""
    torch.set_num_threads(1)


def files_of(folder: Path) -> dict[str, bytes]:
    """What a stage leaves, without what says how it was run."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*") if path.name != "done.json"}


def train(out: Path, where: Engine = ONE_PROCESS) -> Path:
    return run_stages({"sources": STAGE}, Context(out, smoke=True, engine=where))["sources"]


def await_(condition: Callable[[], object], what: str) -> None:
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def checkpoints(folder: Path) -> int:
    return len(list(folder.glob("network-*.checkpoint")))


def test_a_node_that_dies_changes_no_byte(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the only one with a CPU, until another joins."""
    (node,), units = cluster.worker_nodes, []
    plain = train(tmp_path / "one")
    monkeypatch.setattr(engine, "REPORTED_EVERY", 0.1)
    monkeypatch.setattr("training.engine.sweep.Sweep._report", lambda sweep, count, note="": units.append(count))
    found: list[Path | BaseException] = []

    def drive() -> None:
        try:
            found.append(train(tmp_path / "ray", Ray(tmp_path / "ray", cluster.address)))
        except BaseException as error:
            found.append(error)

    threading.Thread(target=drive, daemon=True).start()
    await_(lambda: checkpoints(tmp_path / "ray" / "sources") and sum(units), "a network in progress")
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1, **ON_LOOPBACK)
    await_(lambda: found, "the end of the run")
    assert isinstance(found[0], Path), found
    assert files_of(found[0]) == files_of(plain) and len(files_of(plain)) == 2 + 2
    one, ray = read_done(plain), read_done(found[0])
    assert (one.pop("made_with")["workers"], ray.pop("made_with")["engine"]) == (1, "ray") and one == ray
    assert min(units) < 0  # what the lost attempt had reported
    assert sum(units) == 2 * 40 * len(Context(tmp_path, smoke=True).images("notmnist", "train").labels)


def test_results_and_progress_are_complete(cluster: Any, tmp_path: Path) -> None:
    reports: list[int] = []
    found = list(Ray(tmp_path, cluster.address).run_jobs(burst, [1, 10, 100, 1000, 10_000], reports.append))
    assert sorted(found) == [(10 ** (2 * power), 1) for power in range(5)]
    assert sum(reports) == 5 * 2000 + 11_111 and len(reports) < 100
    assert list(Ray(tmp_path, cluster.address).run_jobs(burst, [], reports.append)) == []


def test_jobs_that_no_node_has_room_for_are_told(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ray = engine.connect(cluster.address)
    Ray(tmp_path, cluster.address)._warn_of_lack(ray)
    assert capsys.readouterr().err == ""
    Ray(tmp_path, cluster.address, cpus=64, gpus=0.5)._warn_of_lack(ray)
    said = capsys.readouterr().err
    assert "a job takes 64 CPUs and 0.5 GPUs, and no node" in said and "they have " in said and "1 and 0" in said


def test_a_process_may_leave_the_cluster_and_come_back(cluster: Any, tmp_path: Path) -> None:
    import ray

    for _ in range(2):
        assert list(Ray(tmp_path, cluster.address).run_jobs(burst, [3], lambda units: None)) == [(9, 1)]
        ray.shutdown()


CLUSTERS_IN_TURN = """
import ray
from ray.cluster_utils import Cluster

from tests.training.engine.test_ray import ON_LOOPBACK, Path, Ray, burst

for _ in range(2):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False} | ON_LOOPBACK)
    print(list(Ray(Path(), cluster.address).run_jobs(burst, [3], lambda units: None)))
    ray.shutdown()
    cluster.shutdown()
"""


def test_clusters_in_turn_may_give_the_same_ids() -> None:
    """In a process of its own, because a handle of another cluster would end this one."""
    command = [sys.executable, "-c", CLUSTERS_IN_TURN]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert ended.stdout.splitlines()[-2:] == ["[(9, 1)]"] * 2


def leave(item: object, progress: object) -> None:
    os._exit(1)


def test_what_fails_is_heard(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Ray(tmp_path, cluster.address)
    with pytest.raises(ValueError, match="no item"):
        list(where.run_jobs(fail, [None, tmp_path / "finished"], lambda *_: None))
    monkeypatch.setattr(engine, "RETRIES", 0)
    with pytest.raises(ChildProcessError, match=r"'a' was tried 1 times, and each time its node or process died \("):
        list(where.run_jobs(leave, ["a"], lambda *_: None))
    assert not (tmp_path / "finished").exists()


def end(item: tuple[Path, bool], progress: Callable[..., Any]) -> Path:
    """Returns the place, or fails if that is its name; at once, or when there is a file ``go`` beside it."""
    place, waits = item
    place.touch()
    if waits:
        await_((place.parent / "go").exists, "the word to go on")
    if place.name == "failing":
        raise ValueError(f"{place.name} fails")
    return place


def test_what_is_finished_when_a_job_fails_is_kept(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2, **ON_LOOPBACK)  # so that all three jobs are under way
    first, failing, last = (tmp_path / name for name in ("first", "failing", "last"))
    results = Ray(tmp_path, cluster.address).run_jobs(
        end, [(first, False), (failing, True), (last, True)], lambda *_: None
    )
    assert next(results) == first
    await_(lambda: failing.exists() and last.exists(), "the others")
    (tmp_path / "go").touch()
    time.sleep(3)
    assert next(results) == last
    with pytest.raises(ValueError, match="failing fails"):
        next(results)


class Deaf:
    """A Ray of which so many jobs do not end when they are told to."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.told = jobs, []

    def cancel(self, reference: str, force: bool) -> None:
        self.told.append((reference, force))

    def wait(self, pending: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(pending) and timeout == 1
        return pending[self.jobs :], pending[: self.jobs]


def test_jobs_that_do_not_end_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "ENDED_WITHIN", 3)
    deaf, ended, idle = Deaf(2), Deaf(0), Deaf(0)
    Ray(tmp_path)._end(ended, ["a", "b"])
    Ray(tmp_path)._end(idle, [])
    assert capsys.readouterr().err == "" and ended.told == [("a", True), ("b", True)] and not idle.told
    Ray(tmp_path)._end(deaf, ["a", "b", "c"])
    assert [reference for reference, _ in deaf.told] == ["a", "b", "c", "a", "b", "a", "b"]
    said = capsys.readouterr().err
    assert said.startswith("warning: 2 jobs on Ray have not ended 3 s after they were told to, and may still write to ")
    assert str(tmp_path) in said and "pgrep -f ray::_work" in said and "'ray stop'" in said


def listening(parent: psutil.Process) -> set[str]:
    """Addresses at which a process and its descendants listen, or with which they talk."""
    sockets = [socket for each in (parent, *parent.children(recursive=True)) for socket in each.net_connections("inet")]
    return {end.ip.removeprefix("::ffff:") for socket in sockets for end in (socket.laddr, socket.raddr) if end}


def test_a_killed_driver_resumes(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first driver has a Ray of its own, on the loopback interface; it ends with the driver."""
    folder = tmp_path / "ray" / "sources"
    command = [*RECIPE, "--engine", "ray", "--out", str(tmp_path / "ray")]
    env = {name: value for name, value in os.environ.items() if name not in engine.LOOPBACK}
    driver = psutil.Popen([sys.executable, "-m", "training", *command], env=env, stderr=subprocess.DEVNULL)
    try:
        await_(lambda: checkpoints(folder), "a network in progress")
        family, addresses = driver.children(recursive=True), listening(driver)
        workers = [process for process in family if "Agent" not in process.name()]  # the agents take a minute
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert addresses == {"127.0.0.1"} and not (folder / "done.json").exists()
    _, alive = psutil.wait_procs(workers, 60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert main([*command, "--address", cluster.address]) == 0
    assert main([*RECIPE, "--out", str(tmp_path / "one")]) == 0
    assert files_of(folder) == files_of(tmp_path / "one" / "sources")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
        torch.randn(10, 4)[2:5, ::2],
        torch.randn(1).expand(4, 5),
        torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True),
        torch.zeros(0, 3),
        torch.tensor(True),
    ],
)
def test_tensors_arrive_as_they_were(tensor: Tensor) -> None:
    found = engine._unpack(engine._pack(tensor))
    assert torch.equal(found, tensor) and found.stride() == tensor.stride() and found.dtype == tensor.dtype
    assert found.requires_grad == tensor.requires_grad


def test_a_node_must_share_the_folders(tmp_path: Path) -> None:
    worker = engine._Worker(None, 0, 1.0, (tmp_path, tmp_path / "out"), 1)
    with pytest.raises(NotADirectoryError, match=r"has no folder .*out; all nodes must share the clone and the folder"):
        engine._work(burst, 1, worker)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "0.5"], "--gpus is for --engine ray; add it, or leave out --gpus"),
        (["--engine", "ray", "--workers", "2"], "--workers is for --engine local"),
        (["--engine", "ray", "--gpus", "0.5"], "--device cpu does not go with --gpus 0.5; with Ray give --device cpu"),
        (["--engine", "ray", "--cpus", "0"], "cpus must be 1 or more; got 0"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], "no Ray cluster answers at '127.0.0.1:9' ("),
        (["--engine", "ray", "--address", "[::1]:9"], "start one with ray start --head, or leave out --address"),
        (["--engine", "ray", "--address", "127.0.0.1:66666"], "no Ray cluster answers at '127.0.0.1:66666' ("),
        (["--engine", "ray", "--address", "here:now"], "auto or HOST:PORT, as ray start --head shows; got 'here:now'"),
        (["--engine", "ray", "--address", "ray://127.0.0.1:9"], "addressed as auto or HOST:PORT"),
    ],
)
def test_helpful_errors(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RECIPE, "--out", str(tmp_path), *options]) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="gpus must be between 0 and 1, as a job computes on one; got 2"):
        Ray(tmp_path, gpus=2)
