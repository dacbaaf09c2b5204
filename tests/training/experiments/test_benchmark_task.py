import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.engine.records import Row
from training.engine.stage import Context
from training.experiments.benchmark_task import BenchmarkTask, Pools
from training.images.augment import PADDING, moved
from training.images.sets import Images
from training.networks.loop import Step
from training.starts.base import KAIMING, spatial_convolutions
from training.starts.controls import OTHER_DRAWS, OWN

SMALL: dict[str, Any] = {"network": "resnet(blocks=1, stride=2)", "filters": (4,), "data": "letters", "trials": 2}
SMALL |= {"hold_out": 10, "batch_size": 5, "steps": 4, "marks": 2, "curve_images": 30, "seeds": 2}


def task(**fields: Any) -> BenchmarkTask:
    return BenchmarkTask(**SMALL | fields)


def train(made: BenchmarkTask, pools: Pools, start: str = OWN, *, seed: int = 0, **other: Any) -> tuple[nn.Module, Row]:
    return made.train_one(pools, start, seed, 0, lambda *_: None, **{"curve": True} | other)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def identities(part: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.contiguous()}


@pytest.fixture
def pools(data: dict[str, Images], tmp_path: Path) -> Pools:
    return task().pools(Context(tmp_path))


def test_parts_are_disjoint_and_have_as_many_of_every_class(
    data: dict[str, Images], tmp_path: Path, make_images: Any
) -> None:
    data["train"] = make_images(120, 3)
    pools = task(hold_out=25, more_test=20).pools(Context(tmp_path))
    counts = [labels.bincount(minlength=10).tolist() for _, labels in (pools.train, pools.held_out, pools.test)]
    assert sum(counts[0]) == 75 and set(counts[0]) == {7, 8} and set(counts[1]) == {2, 3} and set(counts[2]) == {5}
    train, held_out, test = (identities(images) for images, _ in (pools.train, pools.held_out, pools.test))
    assert (len(train), len(held_out), len(test)) == (75, 25, 50)
    assert not train & held_out and not train & test and not held_out & test
    whole = task().pools(Context(tmp_path))
    theirs = identities(whole.test[0])
    everything = identities(torch.cat([whole.train[0], whole.held_out[0]]))
    assert test - theirs < everything and len(test - theirs) == 20 and train | held_out < everything | theirs


def test_an_evenly_spaced_part_of_test_images_that_join_has_all_classes(
    data: dict[str, Images], tmp_path: Path, make_images: Any
) -> None:
    data["train"] = make_images(700, 3)
    _, labels = task(more_test=600).pools(Context(tmp_path)).test
    for step in (2, 5, 10):  # classes in turn would leave five, two and one of them
        assert len(labels[30::step].unique()) == 10


def test_channels_are_standardised_over_the_training_split(
    data: dict[str, Images], tmp_path: Path, make_images: Any
) -> None:
    data |= {"train": make_images(40, 0, (3, 8, 8)), "test": make_images(30, 1, (3, 8, 8))}
    data["train"].images[:, 1] //= 4
    data["train"].images[:, 2] = 7  # constant
    pools = task().pools(Context(tmp_path))
    images = torch.cat([pools.train[0], pools.held_out[0]])
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.01)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=1e-5)
    theirs, ours = (data[split].images[:, 0].float().div(255) for split in ("train", "test"))
    expected = (ours - theirs.mean()) / theirs.std()
    assert torch.allclose(pools.test[0][:, 0], expected, atol=1e-5)


def test_what_is_held_out_must_leave_images_to_train_on(data: dict[str, Images], tmp_path: Path) -> None:
    assert len(task(hold_out=30, more_test=9).pools(Context(tmp_path)).train[1]) == 1
    with pytest.raises(ValueError, match="must leave some of the 40 training images of letters; got 30 and 10: lower"):
        task(hold_out=30, more_test=10).pools(Context(tmp_path))


def test_networks_have_an_output_for_every_class_of_any_part(data: dict[str, Images], tmp_path: Path) -> None:
    rare = data["train"].labels.clone().fill_(0)
    data["train"] = dataclasses.replace(data["train"], labels=rare)
    made = task(steps=2)
    network, row = train(made, made.pools(Context(tmp_path)))
    assert state(network)[list(state(network))[-1]].shape == (10,) and len(row["curve"]) == 2


def test_runs_of_a_seed_share_all_but_the_spatial_convolutions(pools: Pools) -> None:
    made = task()
    order, again, other = made.batches(pools, 3), made.batches(pools, 3), made.batches(pools, 4)
    assert torch.equal(order, again) and order.shape == (4, 5, 4)
    assert not torch.equal(order[..., 0], other[..., 0]) and not torch.equal(order[..., 1:3], other[..., 1:3])
    assert not torch.equal(made.places(pools, 3), made.places(pools, 4))  # some starts look at the first of them
    networks = {start: made.begin(pools, start, 3)[0] for start in (OWN, OTHER_DRAWS, KAIMING)}
    own = state(networks[OWN])
    spatial = {f"{name}.{part}" for name in spatial_convolutions(networks[OWN]) for part in ("weight", "bias")}
    for start in (OTHER_DRAWS, KAIMING):
        theirs = state(networks[start])
        differ = {name for name in own if not torch.equal(own[name], theirs[name])}
        assert differ and differ <= spatial and {name for name in spatial & set(own) if "weight" in name} <= differ
    elsewhere = state(made.begin(pools, OWN, 4)[0])
    assert not any(torch.equal(own[name], elsewhere[name]) for name in own if own[name].dim() > 1)


def test_every_pass_has_each_image_once_and_shifts_and_flips_of_all_kinds(pools: Pools) -> None:
    made = task(batch_size=10, steps=60)
    order = made.batches(pools, 0)
    assert order.view(20, 30, 4)[:, :, 0].sort(1).values.eq(torch.arange(30)).all()
    assert [order[..., place].unique().tolist() for place in (1, 2)] == [list(range(2 * PADDING + 1))] * 2
    assert order[..., 3].float().mean() == pytest.approx(0.5, abs=0.1)
    assert task(batch_size=64).batches(pools, 0).shape == (4, 30, 4)  # there are fewer


def test_images_are_shifted_and_flipped_before_they_are_seen(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    call = Step.__call__
    monkeypatch.setattr(
        Step, "__call__", lambda step, *given: seen.append(step.look_up(given[0])[0]) or call(step, *given)
    )
    made = task()
    train(made, pools)
    images = pools.train[0]
    for found, batch in zip(seen, made.batches(pools, 0), strict=True):
        assert torch.equal(found, moved(images[batch[:, 0]], batch[:, 1:3], batch[:, 3]))
        assert not torch.equal(found, images[batch[:, 0]])


def test_few_labels_are_as_many_of_every_class_drawn_by_the_seed(pools: Pools) -> None:
    made = task(each=2, steps=8)
    sets = [set(made.batches(pools, seed)[..., 0].flatten().tolist()) for seed in range(3)]
    assert all(pools.train[1][list(found)].bincount().tolist() == [2] * 10 for found in sets)
    assert len({frozenset(found) for found in sets}) == 3
    assert sets[0] == set(made.places(pools, 0).tolist())
    with pytest.raises(ValueError, match="at most 3 of each class; got 40"):
        task(each=4).batches(pools, 0)


def test_the_curve_ends_where_all_test_images_are_judged(pools: Pools) -> None:
    made = task(curve_images=1000)
    network, row = train(made, pools)
    assert (row["curve"][-1], row["curve_loss"][-1]) == made.scores(network, pools.test)
    assert len(row["curve"]) == len(row["curve_loss"]) == 2 and row["curve_loss"][0] != row["curve_loss"][1]
    _, thinned = train(task(curve_images=10), pools)
    assert thinned["curve_loss"][-1] == made.scores(network, (pools.test[0][::3], pools.test[1][::3]))[1]
    assert row.keys() - train(made, pools, curve=False)[1].keys() == {"curve", "curve_loss"}


def test_a_measured_curve_does_not_change_the_training_and_a_repetition_repeats_it(pools: Pools) -> None:
    first, second, without = (state(train(task(), pools, curve=curve)[0]) for curve in (True, True, False))
    for other in (second, without):
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("steps", "marks", "expected"), [(4, 2, (2, 4)), (7, 3, (2, 4, 7)), (5, 1, (5,))])
def test_marks_are_evenly_spaced_and_end_with_the_last_step(steps: int, marks: int, expected: tuple[int, ...]) -> None:
    assert task(steps=steps, marks=marks).steps_of_marks == expected


def test_frozen_spatial_convolutions_stay_and_all_else_is_trained(pools: Pools) -> None:
    for frozen in (True, False):
        made = task(frozen=frozen, network="convmixer(blocks=1, patch=4)")
        before, after = state(made.begin(pools, OWN, 0)[0]), state(train(made, pools)[0])
        spatial = {
            f"{name}.{part}"
            for name in spatial_convolutions(made.begin(pools, OWN, 0)[0])
            for part in ("weight", "bias")
        }
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == set(before) - (spatial if frozen else set())


def test_weight_decay_leaves_out_parameters_of_one_dimension(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[int, ...], float] = {}
    init = Step.__init__

    def spy(step: Step, network: nn.Module, optimizer: torch.optim.Optimizer, *given: Any) -> None:
        init(step, network, optimizer, *given)
        seen.update(
            {
                (each.dim(), id(each)): group["weight_decay"]
                for group in optimizer.param_groups
                for each in group["params"]
            }
        )
        assert {id(each) for each in network.parameters()} == {number for _, number in seen}

    monkeypatch.setattr(Step, "__init__", spy)
    made = task()
    made.train_one(pools, OWN, 0, 1, lambda *_: None, curve=False)
    assert {dim > 1: decay for (dim, _), decay in seen.items()} == {True: made.settings[1].decay, False: 0.0}
    assert len(set(seen.values())) == 2


def test_the_learning_rate_of_the_trial_is_that_of_the_steps(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    call = Step.__call__
    monkeypatch.setattr(Step, "__call__", lambda step, batch, lr: rates.append(lr) or call(step, batch, lr))
    made = task(steps=20)
    made.train_one(pools, OWN, 0, 1, lambda *_: None, curve=False)
    peak = made.settings[1].rate
    assert rates[:3] == pytest.approx([peak / 3, 2 * peak / 3, peak]) and rates[-1] == pytest.approx(peak / 18)


def test_costs_and_shares_are_measured(pools: Pools) -> None:
    _, own = train(task(), pools)
    _, kaiming = train(task(), pools, KAIMING)
    for row in (own, kaiming):
        assert 0 < row["init_s"] < 60 and 0 < row["train_s"] < 60
    assert (own["drawn"], kaiming["drawn"]) == (0.0, 1.0)


def test_bfloat16_is_close_to_float32_and_not_the_same(pools: Pools) -> None:
    (one, whole), (other, half) = (train(task(precision=name), pools) for name in ("float32", "bfloat16"))
    assert (
        half["curve_loss"] == pytest.approx(whole["curve_loss"], rel=0.05) and half["curve_loss"] != whole["curve_loss"]
    )
    assert not torch.equal(*(next(iter(state(network).values())) for network in (one, other)))


@pytest.mark.parametrize("network", ["timm:resnet18(channels=(4, 4, 4, 4))", "mobilenet(stride=2, blocks=1)"])
def test_networks_by_name_take_grey_images(pools: Pools, network: str) -> None:
    if network.startswith("timm"):
        pytest.importorskip("timm")
    filters = () if network.startswith("timm") else (4, 8)
    _, row = train(task(network=network, filters=filters, steps=2), pools)
    assert len(row["curve"]) == 2


def test_the_setting_says_what_runs_depend_on_and_not_how_many_there_are(
    data: dict[str, Images], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"network": "resnet", "filters": (8,), "each": 1, "frozen": True, "trials": 3}
    changes |= {"hold_out": 20, "more_test": 10, "batch_size": 6, "steps": 5, "marks": 1, "curve_images": 9}
    changes |= {"precision": "bfloat16", "data": "digits"}
    alike: dict[str, Any] = {"name": "other", "seeds": 9, "priors": ("natural@v1",)}  # the last is in source
    fields = {field.name for field in dataclasses.fields(BenchmarkTask)} - {"needs"}
    assert fields == changes.keys() | alike.keys()
    context = Context(tmp_path)
    pools = task().pools(context)
    found = {name: task(**{name: value}).setting(context, pools) for name, value in (changes | alike).items()}
    now = task().setting(context, pools)
    assert len(now) == 12 and {found[name] for name in alike} == {now}
    assert len({now, *(found[name] for name in changes)}) == len(changes) + 1
    digests = {name: task(**{name: value}).digest for name, value in (changes | alike).items()}
    assert len({task().digest, *(digests[name] for name in changes)}) == len(changes) + 1  # without the images
    assert {digests[name] for name in alike} == {task().digest}
    assert task().setting(dataclasses.replace(context, device=torch.device("cuda")), pools) != now
    data["test"] = dataclasses.replace(data["test"], description={"seed": 99})
    assert task().setting(context, pools) != now
    assert task().source(OWN, None) == "" != task().source("natural", None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"{name} must be 1 or more; got 0") for name in ("seeds", "hold_out", "batch_size", "marks")),
        *(({name: 0}, f"{name} must be 1 or more; got 0") for name in ("steps", "curve_images", "trials")),
        *(({name: -1}, f"{name} must be 0 or more; got -1") for name in ("each", "more_test")),
        ({"steps": 4, "marks": 5}, "marks must be at most the number of steps, 4; got 5"),
        ({"precision": "half"}, "precision must be 'float32' or 'bfloat16'; got 'half'"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    task().check()
    with pytest.raises(ValueError, match=message):
        task(**fields).check()
