"""Losses of power: the calls of a writer are recorded, and every state is made that a disk may be in after one of them.

What a file holds is on the disk once it is synced. Names are there once their folder is synced; of the changes of names
since then, any first part may be there, in the order in which they were made. What is not there is lost.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hypothesis import strategies as st

from dwp_init import Gaussian, save_prior
from dwp_init.folder import read_files
from tests.fuzz.calls import Call, listening
from tests.fuzz.folders import contents, restore
from tests.fuzz.run_folders import REFUSALS, resume, run
from tests.fuzz.target import Differs, Outcome, Target

State = dict[str, bytes]


class Disk:
    """What is on the disk and what is on its way there.

    Args:
        files: The files that are there at first, by name.
    """

    def __init__(self, files: State) -> None:
        self.data = dict(enumerate(files.values()))  # by file, as it was synced
        self.there = dict(zip(files, self.data, strict=True))  # the file of each name, as the folders were synced
        self.now, self.changes = dict(self.there), list[Callable[[dict[str, int]], object]]()
        self.numbers = itertools.count(len(files))

    def call(self, call: Call, folder: Path) -> None:
        """Makes a call; contents are read from the files themselves, which are whole when they are synced."""
        name = call.path.relative_to(folder).as_posix()
        if call.kind == "sync" and call.path.is_dir():
            self.there, self.changes = dict(self.now), []  # of all folders: each writer syncs those that it changes
        elif call.kind == "sync":
            self.data[self.now[name]] = call.path.read_bytes()
        elif call.kind == "rename" and call.target is not None:
            target = call.target.relative_to(folder).as_posix()
            self._change(lambda names: names.update({target: names.pop(name)}))
        elif call.kind == "remove":
            self._change(lambda names: names.pop(name, None))
        elif call.kind == "create" or (call.kind == "append" and name not in self.now):
            number = next(self.numbers)
            self.data[number] = b""
            self._change(lambda names: names.update({name: number}))

    def _change(self, change: Callable[[dict[str, int]], object]) -> None:
        change(self.now)
        self.changes.append(change)

    def states(self) -> Iterator[State]:
        """What may be there if the power is lost now."""
        names = dict(self.there)
        yield self._files(names)
        for change in self.changes:
            change(names)
            yield self._files(names)

    def _files(self, names: dict[str, int]) -> State:
        return {name: self.data[number] for name, number in names.items()}


def losses(folder: Path, act: Callable[[], object]) -> list[State]:
    """Records what ``act`` does in a folder; returns every state in which a loss of power may leave it, each once."""
    disk, found = Disk(contents(folder)), list[State]()

    def heard(call: Call) -> None:
        found.extend(disk.states())
        if call.path != folder or call.kind == "sync":
            disk.call(call, folder)
        found.extend(disk.states())

    with listening(folder, heard):
        act()
    return [state for number, state in enumerate(found) if state not in found[:number]]


def _prior(seed: int) -> Gaussian:
    kernels = torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return Gaussian((1, 3, 3)).fit_(kernels)


def targets(scratch: Path) -> Iterator[tuple[Target, list[State]]]:
    """A prior that is replaced, and a run of stages; each with all of its states.

    Args:
        scratch: An empty folder.
    """
    old = read_files(save_prior(_prior(0), scratch / "prior"))
    states = losses(scratch / "prior", lambda: save_prior(_prior(1), scratch / "prior"))
    new = read_files(scratch / "prior")

    def load(state: State, folder: Path) -> Outcome:
        restore(state, folder)
        if read_files(folder) not in (old, new):
            raise Differs(f"the folder holds neither the old prior nor the new one: {sorted(state)}")
        return "same"

    yield Target("losses of power, a prior that is replaced", lambda: st.sampled_from(states), load), states
    (scratch / "run").mkdir()
    left = losses(scratch / "run", lambda: run(scratch / "run"))
    yield Target("losses of power, a run", lambda: st.sampled_from(left), resume, REFUSALS, seconds=20), left
