"""A target: inputs of one kind, what to do with one, and the judgement of what came of it."""

import dis
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

import dwp_init
import training

Outcome = Literal["refused", "same", "as stated", "crash", "silent", "slow", "large"]
OUTCOMES = ("refused", "same", "as stated")
FAULTS = ("crash", "silent", "slow", "large")
_WAIT = 10  # times the seconds of a target that a try may last on a busy machine
LONGEST_MESSAGE = 3000  # characters, so that an error can be read
_OWN = [Path(package.__path__[0]) for package in (dwp_init, training)]
_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Differs(Exception):
    """What was accepted is neither what was saved nor what the input states."""


class Slow(BaseException):
    """A try has lasted too long; no handler of errors may stop it."""


@dataclass(frozen=True)
class Target:
    """Inputs of one kind.

    Args:
        name: Of the kind.
        cases: Returns the strategy that makes inputs; called once.
        attempt: Uses an input in an empty folder. Returns ``"same"`` if what it gives is what an undamaged input gives,
            ``"as stated"`` if it is what the input states; raises :class:`Differs` if it is neither.
        refusals: The errors that may refuse an input.
        names: Whether the message of an error must name the folder or a file in it. If not, the project must have
            raised it, because an error of a library does not say what is wrong with an input.
        seconds: A try that computes for longer is a fault; so is one that lasts ten times as long.
        megabytes: Memory that a try may take.
        tries: In the short run.
    """

    name: str
    cases: Callable[[], SearchStrategy[Any]]
    attempt: Callable[[Any, Path], Outcome]
    refusals: tuple[type[Exception], ...] = (ValueError,)
    names: bool = True
    seconds: float = 5.0
    megabytes: float = 100.0
    tries: int = 100


@dataclass(frozen=True)
class Verdict:
    """What came of a try, and of a fault what it is."""

    outcome: Outcome
    detail: str = ""


@dataclass
class Tally:
    """Verdicts of one target, counted."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tries(self) -> int:
        return self.counts.total()

    def row(self) -> dict[str, int]:
        """Returns tries, verdicts and seconds."""
        return {
            "tries": self.tries,
            **{key: self.counts[key] for key in (*OUTCOMES, *FAULTS)},
            "seconds": round(self.seconds),
        }

    def add(self, verdict: Verdict) -> None:
        self.counts[verdict.outcome] += 1
        if verdict.outcome in FAULTS:
            self.faults.append(f"{verdict.outcome}: {verdict.detail}")


def judge(target: Target, case: Any, folder: Path) -> Verdict:
    """Makes one try in an empty folder."""
    before = _memory("VmRSS")
    _reset_peak()
    start = time.process_time()
    try:
        with _alarm(_WAIT * target.seconds):
            verdict = Verdict(target.attempt(case, folder))
    except target.refusals as error:
        verdict = _refused(target, error, folder)
    except Differs as error:
        verdict = Verdict("silent", str(error))
    except Slow:
        verdict = Verdict("slow", f"more than {_WAIT * target.seconds} s, not all of them at work")
    except Exception as error:
        verdict = Verdict("crash", f"{type(error).__name__}: {error}")
    if verdict.outcome not in FAULTS and time.process_time() - start > target.seconds:
        return Verdict("slow", f"{time.process_time() - start:.1f} s")
    if verdict.outcome not in FAULTS and (taken := _memory("VmHWM") - before) > target.megabytes:
        return Verdict("large", f"{taken:.0f} MB")
    return verdict


def examine(target: Target, tries: int, seed: int | None, act: Callable[[Any], None]) -> None:
    """Calls ``act`` with inputs of a target; of a seed, or always the same ones, of which the simplest that fails."""
    run = hypothesis.given(target.cases())(lambda case: act(case))
    run.__name__ = target.name
    fixed = seed is None
    phases = (Phase.generate, Phase.shrink) if fixed else (Phase.generate,)
    options = {"max_examples": tries, "derandomize": fixed, "phases": phases, "suppress_health_check": HealthCheck}
    run = hypothesis.settings(database=None, deadline=None, **options)(run)
    (run if fixed else hypothesis.seed(seed)(run))()


def _refused(target: Target, error: Exception, folder: Path) -> Verdict:
    said = str(error)
    if not said or len(said) > LONGEST_MESSAGE:
        return Verdict("crash", f"{type(error).__name__} with a message of {len(said)} characters: {said[:200]}")
    if target.names and str(folder) not in said:
        return Verdict("crash", f"{type(error).__name__} that names no file: {said}")
    if not target.names and not _is_own(error):
        return Verdict("crash", f"{type(error).__name__} that the project has not raised: {said}")
    return Verdict("refused")


def _is_own(error: Exception) -> bool:
    """Whether a ``raise`` of the project made an error, and not a library, or compiled code that the project calls."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    if place is None:
        return False
    code = place.tb_frame.f_code
    raised = code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and any(Path(code.co_filename).is_relative_to(folder) for folder in _OWN)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises :class:`Slow` in the main thread after a time."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory(key: str) -> float:
    """Returns a line of the status of this process in MB; elsewhere than on Linux the peak of its whole life."""
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _reset_peak() -> None:
    if _PEAK.exists():
        _PEAK.write_text("5")
