from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.engine.run import run_stages
from training.engine.stage import Context, StageChangedError
from training.experiments.random_features import RandomFeatures, extract, features_table
from training.images.sets import Images
from training.networks.loop import accuracy
from training.networks.paper import MNISTNet
from training.starts.base import KAIMING, initialize_
from training.starts.controls import NOISE_HE, XAVIER
from training.starts.learned import LEARNED_HE, LEARNED_OWN
from training.starts.priors import DWP, DWP_OWN

SMALL = RandomFeatures(
    inits=(DWP, XAVIER, KAIMING), filters=(3, 4), scales=(0.5, 1.0), seeds=2, epochs=2, batch_size=16
)


def test_features_are_those_of_the_network_whole(make_images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = MNISTNet((3, 4)), make_images(23, 0).to(torch.device("cpu"))[0]
    monkeypatch.setattr("training.experiments.random_features.FEATURES_AT_ONCE", 5)
    found = extract(network.features, images)
    assert found.shape == (23, 4 * 9) and not found.requires_grad
    torch.testing.assert_close(network.classifier(found), network(images))


def test_only_the_classifier_is_trained_and_runs_are_paired(data: Any, tmp_path: Path, monkeypatch: Any) -> None:
    seen: dict[str, dict[str, Tensor]] = {}
    untrained = RandomFeatures.untrained

    def kept(*given: Any) -> torch.nn.Module:
        made = untrained(*given)
        seen.setdefault("start", {n: p.detach().clone() for n, p in made.named_parameters()})
        seen["module"] = made
        return made

    parts = SMALL.parts(Context(tmp_path))
    monkeypatch.setattr(RandomFeatures, "untrained", kept)
    ends = {}
    for init in (XAVIER, KAIMING):
        passes: list[int] = []
        SMALL.train_one(parts, (0, 1.0, init), passes.append)
        assert passes == [1, 1, 1]
        ends[init] = dict(seen["module"].named_parameters())
    for init, end in ends.items():
        for name, value in end.items():
            same = torch.equal(value, seen["start"][name])
            assert same == name.endswith(("conv1.bias", "conv2.bias")), (init, name)


@pytest.mark.parametrize("k", [1 / 16, 1 / 4, 1.0])
def test_widths(k: float, data: Any, tmp_path: Path) -> None:
    parts = SMALL.parts(Context(tmp_path))
    features = replace(SMALL, filters=(32, 128)).untrained(parts, k).features
    assert (features.conv1.out_channels, features.conv2.out_channels) == (32 * k, 128 * k)
    assert replace(SMALL, filters=(2, 4)).untrained(parts, 1 / 16).features.conv1.out_channels == 1


def test_a_classifier_of_separable_features_is_right(data: dict[str, Images], tmp_path: Path) -> None:
    """Each class a blank but for one bright bar, the test images being the same: all are classified rightly."""
    images = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    for index in range(200):
        images[index, :, 2 * (index % 10) + 3 : 2 * (index % 10) + 7, 4:24] = 255
    data["train"] = data["test"] = Images(images, torch.arange(200) % 10, {})
    stage = replace(SMALL, filters=(8, 16), epochs=60, lr=1e-2)
    parts = stage.parts(Context(tmp_path))
    rows = [stage.train_one(parts, (0, 1.0, init), lambda _: None)[0] for init in (DWP, XAVIER)]
    assert [row["accuracy"] for row in rows] == [100.0, 100.0]


def test_an_accuracy_is_that_of_the_whole_network(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, made = replace(SMALL, unit_rms=False), []
    parts, untrained = stage.parts(Context(tmp_path)), RandomFeatures.untrained
    monkeypatch.setattr(RandomFeatures, "untrained", lambda *given: made.append(untrained(*given)) or made[-1])
    (row,) = stage.train_one(parts, (1, 1.0, NOISE_HE), lambda _: None)
    assert row == {"init": NOISE_HE, "k": 1.0, "seed": 1, "accuracy": row["accuracy"]}
    assert row["accuracy"] == round(100 * accuracy(made[-1], *parts.test), 3)


def test_the_table() -> None:
    found = {(DWP, 0): 96.0, (DWP, 1): 98.0, (XAVIER, 0): 95.0, (XAVIER, 1): 95.0}
    rows = [
        {"init": init, "k": k, "seed": seed, "accuracy": value - (k < 1)}
        for k in (1 / 16, 1.0)
        for (init, seed), value in found.items()
    ]
    table = {(row["init"], row["k"]): row for row in features_table(rows, "mnist")}
    assert list(table) == [(DWP, 1 / 16), (DWP, 1.0), (XAVIER, 1 / 16), (XAVIER, 1.0)]
    row = table[DWP, 1 / 16]
    assert (row["accuracy"], row["sd"], row["seeds"]) == (96.0, 1.414, 2)
    assert (row["over_xavier"], row["over_xavier_sd"], row["ahead_of_xavier"]) == (2.0, 1.414, 2)
    assert (row["paper"], row["paper_sd"]) == (95.65, 0.48) and table[XAVIER, 1.0]["paper"] == 98.31
    assert table[XAVIER, 1.0]["over_xavier"] == 0 and "over_kaiming" not in row
    for row in features_table([row for row in rows if row["seed"] == 0], "cifar10"):
        assert row["sd"] == row["over_xavier_sd"] == "" and (row["paper"] == "") == (row["k"] < 1)


def test_an_interrupted_stage_trains_what_is_missing(data: Any, resumed: Any, tmp_path: Path) -> None:
    first, then = resumed(SMALL, 9)
    assert first == [(seed, k, init) for seed in (0, 1) for k in (0.5, 1.0) for init in SMALL.inits]
    assert then == [(1, 1.0, init) for init in SMALL.inits]
    with pytest.raises(StageChangedError, match=r"settings.lr is 0.001 there, 0.1 now"):
        run_stages({"runs": replace(SMALL, lr=0.1)}, Context(tmp_path))


def test_the_scale_of_the_convolutions_does_not_count(data: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Where features have a unit root mean square; convolutions without biases only change theirs by a scale."""

    def at(factor: float, stage: RandomFeatures) -> list[Tensor]:
        parts, made = stage.parts(Context(tmp_path)), []

        def scaled_(network: torch.nn.Module, *given: Any, **options: Any) -> None:
            initialize_(network, *given, **options)
            with torch.no_grad():
                for layer in (network.features.conv1, network.features.conv2):
                    layer.bias.zero_(), layer.weight.mul_(factor)
            made.append(network.classifier)

        monkeypatch.setattr("training.experiments.random_features.initialize_", scaled_)
        stage.train_one(parts, (0, 1.0, XAVIER), lambda _: None)
        return list(made[0].parameters())

    for stage, alike in ((SMALL, True), (replace(SMALL, unit_rms=False), False)):
        pairs = zip(at(1.0, stage), at(4.0, stage), strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs) == alike


def test_held_out_images_stand_in_for_the_test(data: dict[str, Images], tmp_path: Path) -> None:
    parts = replace(SMALL, hold_out=10).parts(Context(tmp_path))
    images = data["train"].to(torch.device("cpu"))[0]
    assert torch.equal(parts.train[0], images[:30]) and torch.equal(parts.test[0], images[30:])


def test_learned_kernels_come_with_their_stages(data: Any, save_kernels: Any, tmp_path: Path) -> None:
    for k in (7, 5):
        save_kernels(tmp_path / f"kernels_{k}", k)
    stage = replace(SMALL, needs=("kernels_7", "kernels_5"), inits=(XAVIER,), seeds=1, scales=(1.0,), epochs=1)
    (tmp_path / "features").mkdir()
    table = stage.run(tmp_path / "features", Context(tmp_path))["table"]
    assert [row["init"] for row in table] == [XAVIER, LEARNED_HE, LEARNED_OWN]
    assert [row["paper"] for row in table] == [98.31, 98.68, 98.68]


def test_the_cifar_network_by_settings_alone(data: Any, make_images: Any, tmp_path: Path) -> None:
    data.update(train=make_images(20, 0, (3, 32, 32)), test=make_images(10, 1, (3, 32, 32)))
    stage = replace(SMALL, data="cifar10", network="cifar", filters=(4, 4, 4), inits=(DWP_OWN, XAVIER), epochs=1)
    table = run_stages({"features": stage}, Context(tmp_path))["features"] / "record" / "random_features.csv"
    assert len(table.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"epochs": 0}, "epochs must be 1 or more; got 0"),
        ({"scales": (1.0, 0.5)}, r"scales must be above 0 and rise, each once; got \(1.0, 0.5\)"),
        ({"scales": (0.0, 0.5)}, "scales must be above 0"),
        ({"scales": ()}, r"scales must be above 0 and rise, each once; got \(\)"),
        ({"inits": ("dwp", "He")}, "each name must be one of a start, given once; got dwp; He; there are own; "),
        ({"inits": (DWP, DWP)}, "given once; got dwp; dwp"),
        ({"priors": ()}, "dwp cannot be drawn from nothing: name priors=, or leave them out"),
        ({"priors": ("notmnist",)}, "'notmnist' is no bundled prior"),
        (
            {"network": "resnet", "filters": (8, 8)},
            "must have features and classifier, as mnist and cifar; got 'resnet'",
        ),
        ({"network": "lenet"}, "unknown network 'lenet'"),
        ({"hold_out": 40}, "hold_out must leave some of 40 training images; got 40"),
    ],
)
def test_helpful_errors(settings: dict[str, Any], message: str, data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages({"features": replace(SMALL, **settings)}, Context(tmp_path))
    assert not (tmp_path / "features" / "metrics.jsonl").exists()
