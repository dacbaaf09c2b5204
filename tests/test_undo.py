"""Old values come back after any failure, also one during the undoing."""

import inspect
import signal
import sys
import tempfile
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dwp_init.undo
from dwp_init import apply_
from dwp_init.undo import Undo
from dwp_init.weights import Weight, weight_of
from tests.models import Fit, Snapshot, changed, network, old_style


def _wide() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("limit", [0, 2**25])  # in a file, in memory
@pytest.mark.parametrize(
    "make",
    [
        _wide,
        lambda: nn.Conv2d(4, 4, 3, dtype=torch.bfloat16),
        lambda: nn.Conv2d(4, 4, 3).to(torch.float8_e4m3fn),
        lambda: old_style(nn.utils.weight_norm, nn.Conv2d(4, 4, 3)),
        lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
    ],
)
def test_values_come_back_to_the_bit(
    make: Callable[[], nn.Module], limit: int, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwp_init.undo, "_IN_MEMORY", limit)
    monkeypatch.setattr(dwp_init.undo, "_PART", 50)
    layers = [make(), make()]
    before, cached = [snapshot(layer) for layer in layers], vars(layers[1]).get("weight")
    with pytest.raises(KeyError), Undo() as undo:
        for layer in layers:
            undo.keep(weight_of(layer), "layer")
            for tensor in weight_of(layer).stored:
                tensor.data.zero_()
            weight_of(layer).refresh()
        raise KeyError
    assert [snapshot(layer) for layer in layers] == before and vars(layers[1]).get("weight") is cached


@pytest.mark.parametrize("first", [RuntimeError("odd"), KeyboardInterrupt()])
def test_an_interrupt_of_the_undo_waits_until_it_is_done(
    first: BaseException, gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, calls = network(), Undo._put_back, []
    before = snapshot(model)

    def put_back(self: Undo, *old: Tensor) -> None:
        calls.append(old)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(self, *old)

    def report(*arguments: object) -> None:
        raise first

    monkeypatch.setattr(Undo, "_put_back", put_back)
    monkeypatch.setattr("dwp_init.initialize.Report", report)  # the last step, after all weights are written
    with pytest.raises(KeyboardInterrupt):
        apply_(model, gaussian(3))
    assert len(calls) == 3 and snapshot(model) == before


@pytest.mark.parametrize("first", [RuntimeError("odd"), KeyboardInterrupt(), signal.SIGINT])
def test_a_signal_at_any_line_of_the_undo_waits_until_it_is_done(
    first: BaseException | signal.Signals, gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {method.__code__ for method in (Undo.__exit__, Undo._put_back, inspect.unwrap(Undo._restore))}
    model, line, handler = network(), 0, signal.getsignal(signal.SIGINT)
    before = snapshot(model)

    def report(*arguments: object) -> None:
        if isinstance(first, signal.Signals):
            signal.raise_signal(first)
        assert isinstance(first, BaseException)
        raise first

    def trace(frame: FrameType, event: str, value: object) -> object:
        nonlocal line
        if frame.f_code not in codes:
            return None
        if event == "line":
            line -= 1
            if line == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    monkeypatch.setattr("dwp_init.initialize.Report", report)
    for number in range(1, 1000):
        line = number
        sys.settrace(trace)
        try:
            apply_(model, gaussian(3))
        except (RuntimeError, KeyboardInterrupt):
            pass
        finally:
            sys.settrace(None)
        assert snapshot(model) == before and signal.getsignal(signal.SIGINT) is handler, number
        if line > 0:
            break
    assert number > 10  # more lines than that


def test_a_handler_that_returns_leaves_the_next_signal_its_own() -> None:
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        with Undo():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert noted == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_at_the_start_leaves_the_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    before, install = signal.getsignal(signal.SIGINT), signal.signal

    def interrupted(number: int, handler: Any) -> object:
        found = install(number, handler)
        monkeypatch.setattr(signal, "signal", install)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), Undo():
        pass
    assert signal.getsignal(signal.SIGINT) is before


class Full(FileIO):
    """A file on a disk that is full after the first write, of which it takes a part."""

    written = 0

    def write(self, data: bytes) -> int:
        if self.written:
            raise OSError(28, "No space left on device")
        self.written = super().write(memoryview(data)[:7])
        return self.written


@pytest.mark.parametrize("full", [False, True])
def test_without_room_for_a_file_old_values_are_in_memory(
    full: bool, gaussian: Fit, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyError

    monkeypatch.setattr(dwp_init.undo, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    if full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Full(tmp_path / "file", "w+b"))
    model = network()
    assert apply_(model, gaussian(3)).drawn
    before = snapshot(model)
    monkeypatch.setattr("dwp_init.initialize.Report", stop)
    with pytest.raises(KeyError):
        apply_(model, gaussian(3))
    assert snapshot(model) == before


@pytest.mark.parametrize("written", [True, False])
def test_what_cannot_be_put_back_is_named_and_the_other_layers_come_back(
    written: bool, gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, write = network(), Undo._put_back, Weight.write
    before = snapshot(model)

    def put_back(self: Undo, old: Any) -> None:
        if old.layer == "1.2":
            raise MemoryError("too large")
        real(self, old)

    def write_or_fail(self: Weight, values: list[Tensor]) -> None:
        if written or self.module is not model[1][2]:
            write(self, values)
        if self.module is model[1][2]:
            raise MemoryError("read-only")

    monkeypatch.setattr(Undo, "_put_back", put_back)
    monkeypatch.setattr(Weight, "write", write_or_fail)
    lost = r"the weights of 1\.2 have changed, and their old values could not be put back \(too large\): load or "
    with pytest.raises(RuntimeError, match=lost if written else r"nothing was changed: .*: read-only$"):
        apply_(model, gaussian(3))
    assert changed(model, before, snapshot) == ({"1.2.weight"} if written else set())


def test_without_memory_for_a_copy_nothing_changes(
    gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tensor: Tensor) -> bytearray:
        raise MemoryError("too large")

    model = network()
    before = snapshot(model)
    monkeypatch.setattr(dwp_init.undo, "_IN_MEMORY", 0)
    monkeypatch.setattr(dwp_init.undo, "tensor_bytes", refuse)
    with pytest.raises(RuntimeError, match=r"nothing was changed: layer '1\.0' could not be written: too large"):
        apply_(model, gaussian(3))
    assert snapshot(model) == before
