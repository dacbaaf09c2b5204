"""Old values come back after any failure, also one during the undoing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dwp_init.undo
from dwp_init import apply_
from dwp_init.undo import Undo
from dwp_init.weights import weight_of
from tests.models import Fit, Snapshot, network, old_style


def _wide() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("limit", [1, 2**25])  # in a file, in memory
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
            undo.keep(weight_of(layer))
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


def test_a_full_disk_changes_nothing(gaussian: Fit, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: Tensor) -> bytearray:
        raise OSError(28, "No space left on device")

    model = network()
    before = snapshot(model)
    monkeypatch.setattr(dwp_init.undo, "tensor_bytes", full)
    with pytest.raises(RuntimeError, match=r"nothing was changed: layer '1\.0' could not be written: .* No space left"):
        apply_(model, gaussian(3))
    assert snapshot(model) == before
