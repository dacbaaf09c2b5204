"""Jobs on the nodes of a Ray cluster, or on a Ray of this machine alone."""

import logging
import os
import platform
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from training.engine.reports import Bars, Board, Reporter
from training.engine.workers import Job, Progress, set_up_worker

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
RETRIES = 3  # of a job whose node or process died
ENDED_WITHIN = 30  # seconds, in which jobs that are not needed any more are told to end
START = "start one with ray start --head, or leave out --address to start Ray on this machine alone"
REPORTED_EVERY = 1.0  # seconds, at most, from each job
LOOPBACK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}  # the latter: on no other interface


@dataclass(frozen=True)
class Ray:
    """The engine that runs jobs as tasks of Ray, each as soon as a node of the cluster has room for it.

    What the jobs hold goes to each node once, where processes share it, so that its tensors are to be read only. Jobs
    write to ``folder``, so nodes must share it and the clone, for instance by a network file system. A job whose node
    or process dies starts again elsewhere, from its checkpoint if it has one. When a job fails, the others are ended;
    what they have finished by then is yielded before the error is raised.

    Args:
        folder: The folder that holds the stages' folders.
        address: Of the cluster: ``HOST:PORT``, or ``auto`` for one that runs on this machine; by default a Ray of
            one's own is started, on the loopback interface, and ended with this process.
        cpus: CPUs of a job, and number of its threads.
        gpus: GPUs of a job, such as 0.25 for four jobs on each.

    Raises:
        ValueError: A job would have no CPU, or more than one GPU.
    """

    folder: Path
    address: str = ""
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus must be 1 or more; got {self.cpus}")
        if not 0 <= self.gpus <= 1:
            raise ValueError(f"gpus must be between 0 and 1, as a job computes on one; got {self.gpus}")

    def describe(self) -> dict[str, Any]:
        return {"engine": "ray", "cpus": self.cpus, "gpus": self.gpus}

    def run_jobs(self, job: Job[_Item, _Result], items: Sequence[_Item], progress: Progress) -> Iterator[_Result]:
        if not items:
            return
        ray = connect(self.address)
        here = ray.get_runtime_context()
        board, bars = _board(here.get_node_id(), here.get_job_id()), Bars(progress)
        self._warn_of_lack(ray)
        places = (Path.cwd(), self.folder.resolve())
        task = ray.remote(_work).options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)
        shared, queue = ray.put(job), iter(items)
        pending: dict[Any, tuple[int, _Item]] = {}
        try:
            while True:
                for item in islice(queue, max(self._room(ray) - len(pending), 0)):
                    worker = _Worker(board, bars.expect(), REPORTED_EVERY, places, self.cpus)
                    pending[task.remote(shared, item, worker)] = worker.number, item
                if not pending:
                    return
                done, _ = ray.wait(list(pending), timeout=0.5)
                bars.show(ray.get(board.take.remote()))
                for reference in done:
                    number, item = pending.pop(reference)
                    try:
                        result = _result(ray, reference, item)
                    except Exception:
                        yield from _finished(ray, {each: item for each, (_, item) in pending.items()})
                        raise
                    yield result
                    bars.forget(number)
        finally:
            self._end(ray, list(pending))

    def _warn_of_lack(self, ray: Any) -> None:
        """Warns if no node has room for a job now, because jobs would wait without a word; nodes may still join."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in alive):
            has = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in alive)
            print(
                f"warning: a job takes {self.cpus} CPUs and {self.gpus:g} GPUs, and no node of the cluster has as many "
                f"(they have {has}); jobs wait until such a node joins: add one, or lower --cpus or --gpus",
                file=sys.stderr,
            )

    def _room(self, ray: Any) -> int:
        """Returns how many jobs to have in the cluster: as many as run at once, and as many again that wait."""
        there = ray.cluster_resources()
        at_once = min(there.get("CPU", 0) // self.cpus, there.get("GPU", 0) // self.gpus if self.gpus else float("inf"))
        return max(int(2 * at_once), 2)

    def _end(self, ray: Any, pending: list[Any]) -> None:
        """Ends jobs and waits for it, up to ENDED_WITHIN, because others may write to the folder of the run after that.

        Warns of those that have not ended.
        """
        for _ in range(ENDED_WITHIN if pending else 0):
            for reference in pending:
                ray.cancel(reference, force=True)
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=1)
            if not pending:
                return
        if pending:
            print(
                f"warning: {len(pending)} jobs on Ray have not ended {ENDED_WITHIN} s after they were told to, and may "
                f"still write to {self.folder}; before you run there again, see that 'pgrep -f ray::_work' shows none "
                "of them on any node, or end the nodes with 'ray stop'",
                file=sys.stderr,
            )


def connect(address: str = "") -> Any:
    """Connects this process to a Ray cluster, unless it is connected, and returns the module ``ray``.

    Args:
        address: As in :class:`Ray`.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: No cluster answers.
        ValueError: The address has another form, such as that of Ray Client, ``ray://``.
    """
    if not address:
        os.environ |= LOOPBACK  # read when Ray is imported
    try:
        import ray
    except ImportError as error:
        raise ImportError("--engine ray needs the library ray; install it with: pip install ray") from error
    if ":" in address:
        _check_answers(address)
    if ray.is_initialized():
        return ray
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.WARNING, **here)
    except ConnectionError as error:
        raise ConnectionError(f"no Ray cluster answers at {address!r}; {START}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray replaces it
    ray.util.register_serializer(Tensor, serializer=_pack, deserializer=_unpack)
    return ray


def _check_answers(address: str) -> None:
    """Raises ``ConnectionError`` where nobody listens, which Ray would ask again for many minutes."""
    host, _, port = address.rpartition(":")
    if "//" in address or not (host and port.isdecimal()):
        raise ValueError(f"a Ray cluster is addressed as auto or HOST:PORT, as ray start --head shows; got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()  # an IPv6 address is in brackets
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address!r} ({error}); {START}") from error


@cache
def _board(node: str, job: str) -> Any:
    """Starts the board of this process on the node that it is connected to, once a connection.

    Clusters give the same ids to their jobs, and a handle of another cluster ends the process.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()


class _Worker(NamedTuple):
    """What a task knows besides its job: where it reports and how often, its folders, and its number of threads."""

    board: Any
    number: int
    every: float
    places: tuple[Path, Path]
    threads: int


def _work(job: Job[_Item, _Result], item: _Item, worker: _Worker) -> _Result:
    for place in worker.places:
        if not place.is_dir():
            raise NotADirectoryError(
                f"node {platform.node()} has no folder {place}; all nodes must share the clone and the folder of "
                "the run, for instance by a network file system"
            )
    os.chdir(worker.places[0])
    set_up_worker(worker.threads)
    reporter = Reporter(worker.board, worker.number, worker.every)
    result = job(item, reporter)
    reporter.finish()
    return result


def _result(ray: Any, reference: Any, item: object) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the second shows where, on the node
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ChildProcessError(
            f"{item!r} was tried {RETRIES + 1} times, and each time its node or process died ({reason}); what is "
            "finished is kept: run the same command again to resume"
        ) from error


def _finished(ray: Any, pending: dict[Any, Any]) -> list[Any]:
    """Returns the results of the jobs that have ended without an error by now, of those under way by reference."""
    ended, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0, fetch_local=False) if pending else ([], [])
    found = []
    for reference in ended:
        with suppress(Exception):  # the first error is the one that is raised
            found.append(_result(ray, reference, pending[reference]))
    return found


def _pack(tensor: Tensor) -> tuple[Any, ...]:
    """Takes a tensor apart so that Ray keeps its memory once on a node, where all processes read it in place."""
    ends = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    span = 1 + sum(ends) if tensor.numel() else 0
    flat = tensor.detach().as_strided((span,), (1,)).cpu()
    rest = (tensor.dtype, tensor.shape, tensor.stride(), tensor.device.type, tensor.requires_grad)
    return flat.view(torch.uint8).numpy(), *rest


def _unpack(packed: tuple[Any, ...]) -> Tensor:
    data, dtype, shape, stride, device, requires_grad = packed
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given (buffer|NumPy array) is not writable")
        flat = (torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)).to(device)
    return flat.as_strided(shape, stride).requires_grad_(requires_grad)
