"""Shards of one process; tests/interop/test_ranks.py has several."""

import pytest
import torch
from torch import distributed, nn

from dwp_init import apply_
from dwp_init.init import kernels_
from dwp_init.ranks import Ranks
from dwp_init.shards import is_sharded, own_part, part_like, reason_against_placement, whole
from tests.models import Fit, Snapshot

pytestmark = [
    pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.filterwarnings("ignore:DTensor random operators"),
]


def test_a_tensor_that_is_not_spread_is_its_own_part() -> None:
    tensor, value = nn.Parameter(torch.ones(2)), torch.zeros(2)
    assert not is_sharded(tensor) and own_part(tensor) is tensor and part_like(value, tensor) is value
    assert not whole(tensor).requires_grad and whole(tensor).data_ptr() == tensor.data_ptr()
    assert reason_against_placement(tensor) is None


def test_a_spread_tensor_is_read_whole_and_written_in_parts(alone: None) -> None:
    from torch.distributed.tensor import Partial, Shard, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    tensor = distributed.tensor.distribute_tensor(torch.arange(6.0).view(3, 2), mesh, [Shard(1)])
    assert is_sharded(tensor) and torch.equal(whole(tensor), torch.arange(6.0).view(3, 2))
    own_part(tensor).copy_(part_like(torch.ones(3, 2), tensor))
    assert torch.equal(whole(tensor), torch.ones(3, 2)) and reason_against_placement(tensor) is None
    summed = distributed.tensor.DTensor.from_local(torch.ones(2), mesh, [Partial()])
    assert "hold summands of the weight (Partial): redistribute it" in (reason_against_placement(summed) or "")


def test_a_sharded_model_is_drawn_and_undone_in_its_parts(alone: None, gaussian: Fit, snapshot: Snapshot) -> None:
    from torch.distributed.fsdp import fully_shard

    model, plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)), nn.Conv2d(1, 4, 3)
    fully_shard(model)
    broken = gaussian(3)
    broken.whitening.loc.fill_(float("nan"))
    before = [whole(tensor).clone() for tensor in model.parameters()]
    with pytest.raises(ValueError, match=r"layer '1' could not be drawn: .* root mean square nan; fit it again"):
        apply_(model, {"0": gaussian(3), "1": broken})
    assert all(map(torch.equal, map(whole, model.parameters()), before))
    if hasattr(torch.cpu.Stream, "record_event"):  # not in torch 2.6
        model.unshard()  # as after a forward pass
    report = apply_(nn.ModuleDict({"a": model}), gaussian(3), seed=0, layers="a.0", scale="fan_in")
    apply_(nn.ModuleDict({"a": nn.Sequential(plain)}), gaussian(3), seed=0, scale="fan_in")
    assert report.initialized == ["a.0"] and torch.equal(whole(model[0].weight), plain.weight)


def test_ranks_share_a_seed_and_their_faults(alone: None) -> None:
    ranks, generator = Ranks(nn.parallel.DistributedDataParallel(nn.Linear(2, 2))), torch.Generator().manual_seed(5)
    seeds = [ranks.source(None, generator.manual_seed(5)) for _ in range(2)]
    assert seeds[0] == seeds[1] != ranks.source(None, None) and ranks.source(3, None) == (3, None)
    with pytest.raises(KeyError), ranks.together():
        raise KeyError
    assert Ranks(nn.Linear(2, 2)).source(None, generator) == (None, generator)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({frozenset([4])}, "seed must be the same in all processes; only some have 3, 4"),
        ({frozenset([3])}, "the layers to draw must be the same in all processes; only some have 0"),
    ],
)
def test_ranks_that_differ_fail_together(
    other: set[frozenset[int]], message: str, alone: None, gaussian: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(values: list[object], value: object, group: object) -> None:
        values[:] = [value, {frozenset([3]): other}.get(*value, {frozenset()}) if isinstance(value, set) else None]

    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(4, 4, 3)))
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    with pytest.raises(ValueError, match=message):
        apply_(model, gaussian(3), seed=3)


def test_the_ranks_of_one_weight_share_a_seed(alone: None, gaussian: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.tensor import Shard, init_device_mesh

    weights = torch.zeros(2, 4, 4, 3, 3)
    monkeypatch.setattr(Ranks, "source", lambda self, seed, generator: (7, None) if self._groups else self.fail())
    for weight in weights:
        spread = distributed.tensor.distribute_tensor(weight, init_device_mesh("cpu", (1,)), [Shard(0)])
        weight.copy_(whole(kernels_(spread, gaussian(3))))
    assert torch.equal(*weights) and weights.any()
