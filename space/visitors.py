"""Which race each visitor of the page waits for or watches."""

from collections.abc import Iterator
from threading import Event, Lock

from space.race import Race, RaceState


class Visitors:
    """The races of visitors, at most one each: the last one that a visitor asked for.

    A place in the queue belongs to a visitor, and not to a race: when its turn comes, it runs the race that the visitor
    asked for last, or nothing.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting = dict[str | None, Race]()
        self._running = dict[str | None, Event]()

    def __len__(self) -> int:
        """The number of visitors whose race waits or runs."""
        with self._lock:
            return len(self._waiting.keys() | self._running.keys())

    def ask(self, visitor: str | None, race: Race) -> None:
        """Stops the visitor's race, if there is one, and lets another wait."""
        self.stop(visitor)
        with self._lock:
            self._waiting[visitor] = race

    def stop(self, visitor: str | None) -> bool:
        """Stops the visitor's race, if there is one.

        Returns:
            Whether it still waited: it yields no state, and nothing else says that it was stopped.
        """
        with self._lock:
            if visitor in self._running:
                self._running[visitor].set()
            return self._waiting.pop(visitor, None) is not None

    def states(self, visitor: str | None) -> Iterator[RaceState]:
        """Runs the race that the visitor waits for, if there is one.

        Yields:
            Its states, as :meth:`space.race.Race.run`, until the visitor asks for another race.
        """
        with self._lock:
            race = self._waiting.pop(visitor, None)
            if race is None:
                return
            stop = self._running[visitor] = Event()
        try:
            for state in race.run(stop):
                with self._lock:
                    replaced = visitor in self._waiting
                if not replaced:
                    yield state
        finally:
            with self._lock:
                if self._running.get(visitor) is stop:
                    del self._running[visitor]
