"""What a report says."""

import pytest
from torch import nn

from dwp_init import Gaussian, apply_
from dwp_init.report import Drawn, Report

DRAWN = [
    Drawn("conv", "Conv2d 8×1×7×7", "notmnist-7x7", 0.0, 0.12345678, 0.2),
    Drawn("", "Conv2d 8×1×5×5", "mine", 1 / 3, 1.0, None),
]


def test_report_prints_a_table_and_the_rest_by_reason() -> None:
    skipped = {"": "empty"} | {f"bn{i}": "not a convolution" for i in range(5)}
    report = Report(DRAWN, skipped, ["notmnist-5x5", "other"])
    assert report.initialized == ["conv", ""]
    assert str(report).splitlines() == [
        "layer    kind            prior         depth  rms before  rms after",
        "conv     Conv2d 8×1×7×7  notmnist-7x7  0.00   0.1235      0.2",
        "(model)  Conv2d 8×1×5×5  mine          0.33   1           (dry run)",
        "skipped: (model): empty",
        "skipped: bn0, bn1, bn2, … 2 more: not a convolution",
        "no layer took: notmnist-5x5, other",
    ]


@pytest.mark.parametrize("name", ["mine", 5, None])
def test_report_prints_whatever_a_prior_is_called(name: object) -> None:
    prior = Gaussian((1, 3, 3))
    prior.details["name"] = name
    assert str(name or "Gaussian") in str(apply_(nn.Conv2d(1, 2, 3), prior))
