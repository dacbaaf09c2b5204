from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.engine.stage import Context
from training.experiments.scale_default import ScaleDefault, pairs_table
from training.starts.base import KAIMING, spatial_convolutions
from training.starts.controls import DEFAULT
from training.starts.priors import DWP_ORTHOGONAL, NATURAL_KEEP

STAGE = ScaleDefault(network="resnet", filters=(4, 4), priors=("natural",), inits=(KAIMING, NATURAL_KEEP), hold_out=10)


def test_pairs_are_differences_after_the_last_step_with_students_intervals() -> None:
    accuracy = {KAIMING: (10.0, 20.0, 30.0), DWP_ORTHOGONAL: (12.0, 22.0, 32.0), NATURAL_KEEP: (11.0, 22.0, 33.0)}
    rows = [
        {"init": init, "seed": seed, "accuracy": [0.0, value]}
        for init, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    table = {(row["baseline"], row["init"]): row for row in pairs_table(rows, (1, 2))}
    assert len(table) == 4  # PyTorch's default was not run
    keep = table[KAIMING, NATURAL_KEEP]
    assert (keep["points"], keep["points_95"], keep["ahead"], keep["seeds"]) == (2, 2.484, 3, 3)  # 4.303 · 1 / √3
    assert keep["p_holm"] == pytest.approx(0.0742, abs=1e-4)  # t = 2 √3 of 2 degrees of freedom, the greater of two
    assert table[DWP_ORTHOGONAL, NATURAL_KEEP]["p_holm"] == 1.0 and table[DWP_ORTHOGONAL, KAIMING]["points"] == -2


@pytest.fixture
def untrained(data: dict[str, Any], make_images: Callable[..., Any], tmp_path: Path) -> Callable[..., nn.Module]:
    data["train"] = make_images(40, 0, (3, 32, 32))

    def made(**settings: Any) -> nn.Module:
        init = settings.pop("init", DEFAULT)
        stage = replace(STAGE, **settings)
        return stage.untrained(stage.parts(Context(out=tmp_path)), init, 0)

    return made


def test_after_kaiming_every_convolution_has_hes_scale(untrained: Callable[..., nn.Module]) -> None:
    layers = [layer for layer in untrained(base="Kaiming").modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.kernel_size for layer in layers} == {(1, 1), (3, 3)}
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert layer.weight.square().mean().item() == pytest.approx(2 / fan_in, rel=0.9)
        assert layer.weight.square().mean().item() > 1 / fan_in or layer.weight.numel() < 40


def test_what_is_kept_is_the_scale_of_the_base(untrained: Callable[..., nn.Module]) -> None:
    kept = [untrained(base=base, init=NATURAL_KEEP) for base in ("PyTorch", "Kaiming")]
    first, second = (list(spatial_convolutions(network).values())[1].weight for network in kept)
    assert (second.norm() / first.norm()).item() == pytest.approx(6**0.5, rel=0.3)  # √(2 / n) over 1 / √(3 n)
    assert torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.999
