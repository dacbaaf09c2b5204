"""Losses of power: the calls of a writer are recorded, and every state is made that a disk may be in after one of them.

What a file holds is on the disk once it is synced. Names of files and folders are there once the folder that holds them
is synced; of the changes of a folder since then, any first part may be there, in the order in which they were made,
whatever is there of other folders. What is not there is lost, and so is all that is below a folder that is lost.
"""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from hypothesis import strategies as st

from dwp_init import Gaussian, save_prior
from dwp_init.folder import CONFIG, read_files
from tests.fuzz.calls import Call, listening
from tests.fuzz.folders import contents, restore
from tests.fuzz.run_folders import REFUSALS, resume, run
from tests.fuzz.target import Differs, Outcome, Target
from training.engine.run import LOCK

State = dict[str, bytes]
_Change = tuple[str, int | None]  # a name, and the number of the file that it gets; None for a name that goes
_FOLDER = -1  # the number of every folder


class Disk:
    """What is on the disk and what is on its way there.

    Args:
        files: The files that are there at first, by name.
    """

    def __init__(self, files: State) -> None:
        self.data = {_FOLDER: b"", **dict(enumerate(files.values()))}  # by number of the file, as it was synced
        self.there = dict(zip(files, range(len(files)), strict=True))  # as the folders were synced
        self.there |= {str(above): _FOLDER for name in files for above in PurePosixPath(name).parents}
        self.now, self.changes = dict(self.there), defaultdict[str, list[list[_Change]]](list)  # changes by folder
        self.numbers = itertools.count(len(files))

    def call(self, call: Call, folder: Path) -> None:
        """Makes a call; contents are read from the files themselves, which are whole when they are synced."""
        name = call.path.relative_to(folder).as_posix()
        if call.kind == "sync" and call.path.is_dir():
            for change in self.changes.pop(name, []):
                _make(change, self.there)
        elif call.kind == "sync":
            self.data[self.now[name]] = call.path.read_bytes()
        elif call.kind == "rename" and call.target is not None:
            target = call.target.relative_to(folder).as_posix()
            if call.path.parent != call.target.parent or call.path.is_dir():
                raise NotImplementedError(f"{name} is renamed to {target}, and not a file within its folder")
            self._change((name, None), (target, self.now[name]))
        elif call.kind == "remove" and name in self.now:
            self._change((name, None))
        elif call.kind == "folder" and name not in self.now:
            self._change((name, _FOLDER))
        elif call.kind == "create" or (call.kind == "append" and name not in self.now):
            number = next(self.numbers)
            self.data[number] = b""
            self._change((name, number))

    def _change(self, *change: _Change) -> None:
        _make(change, self.now)
        self.changes[str(PurePosixPath(change[0][0]).parent)].append(list(change))

    def states(self) -> list[State]:
        """What may be there if the power is lost now, each state once."""
        each = [[made[:count] for count in range(len(made) + 1)] for made in self.changes.values()]
        found = list[State]()
        for chosen in itertools.product(*each):
            names = dict(self.there)
            for change in itertools.chain(*chosen):
                _make(change, names)
            there = (name for name in names if all(str(above) in names for above in PurePosixPath(name).parents[:-1]))
            state = {name: self.data[names[name]] for name in there if names[name] != _FOLDER}
            found += [] if state in found else [state]
        return found


def _make(change: Sequence[_Change], names: dict[str, int]) -> None:
    for name, number in change:
        names.pop(name, None)
        if number is not None:
            names[name] = number


def losses(folder: Path, act: Callable[[], object]) -> tuple[list[State], list[State]]:
    """Records what ``act`` does in a folder.

    Returns:
        Every state in which a loss of power may leave the folder, each once, and those after the end.
    """
    disk, found = Disk(contents(folder)), list[State]()

    def note() -> None:
        found.extend(state for state in disk.states() if state not in found)

    def heard(call: Call) -> None:
        note()
        if (call.path != folder or call.kind == "sync") and call.path.name != LOCK:
            disk.call(call, folder)
        note()

    with listening(folder, heard):
        act()
    return found, disk.states()


def lost(folder: Path, ends: list[State]) -> list[str]:
    """Returns the files of a folder that a loss of power after the end may take."""
    return sorted({name for name, data in contents(folder).items() for state in ends if state.get(name) != data})


def _prior(seed: int) -> Gaussian:
    kernels = torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return Gaussian((1, 3, 3)).fit_(kernels)


def targets(scratch: Path) -> Iterator[tuple[Target, list[State]]]:
    """A prior that is saved, another one that replaces it, and a run of stages; each with all of its states.

    Args:
        scratch: An empty folder.
    """

    def read(folder: Path) -> State:
        there = folder / "own" / "prior"
        return read_files(there) if (there / CONFIG).exists() else {}

    def target(name: str, act: Callable[[], object], use: Callable[..., Outcome], **options: Any) -> Any:
        states, ends = losses(scratch, act)
        gone = lost(scratch, ends)

        def attempt(state: State, folder: Path) -> Outcome:
            if state in ends and gone:
                raise Differs(f"after the end, {', '.join(gone)} can be lost")
            return use(state, folder)

        return Target(f"losses of power, {name}", lambda: st.sampled_from(states), attempt, **options), states

    def load(known: list[State], state: State, folder: Path) -> Outcome:
        restore(state, folder)
        if read(folder) not in known:
            raise Differs(f"the folder holds neither the prior before nor the new one: {sorted(state)}")
        return "same"

    for seed, name in enumerate(("a new prior", "a prior that is replaced")):
        known, save = [read(scratch)], partial(save_prior, _prior(seed), scratch / "own" / "prior")
        made = target(name, save, partial(load, known))
        known.append(read(scratch))
        yield made
    shutil.rmtree(scratch / "own")
    yield target("a run", lambda: run(scratch), resume, refusals=REFUSALS, seconds=20)
