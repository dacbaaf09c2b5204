"""What a report says."""

import re

import pytest
import torch
from torch import nn

from dwp_init import Gaussian, apply_
from dwp_init.report import Coverage, Drawn, Report, share_text

DRAWN = [
    Drawn("conv", "Conv2d 8×1×7×7", "notmnist-7x7", 0.0, 392, 0.12345678, 0.2, 1.0, 2.345),
    Drawn("", "Conv2d 8×1×5×5", "mine", 1 / 3, 200, None, None),
]
SPATIAL = {"conv": 392, "": 200, "wide": 4000, "lazy": 0, "deep": 1}
SKIPPED = {f"bn{i}": "not a convolution" for i in range(5)} | {
    "deep": "frozen",
    "lazy": "lazy",
    "wide": "no prior given fits 9×9 kernels here",
    "a" * 30: "named so",
    "b" * 30: "named so",
}


def test_report_prints_coverage_then_a_table_then_the_rest_by_reason() -> None:
    report = Report(DRAWN, SKIPPED, ["notmnist-5x5", "other"], spatial=SPATIAL)
    assert report.initialized == ["conv", ""] and len(report) == 2
    assert str(report).splitlines() == [
        "2 of 5 spatial convolutions, at most 13 % of their weights",
        "",
        "layer    kind            prior         depth  rms            gain",
        "conv     Conv2d 8×1×7×7  notmnist-7x7  0.00   0.123 → 0.200  1.00 → 2.35",
        "(model)  Conv2d 8×1×5×5  mine          0.33   -              -",
        "",
        "skipped  weights    layers                                    reason",
        "1        87 %       wide                                      no prior given fits 9×9 kernels here",
        "1        under 1 %  deep                                      frozen",
        "1        ?          lazy                                      lazy",
        "5        -          bn0, bn1, bn2, … 2 more                   not a convolution",
        f"2        -          {'a' * 30}, … 1 more  named so",
        "",
        "no layer took: notmnist-5x5, other",
    ]


@pytest.mark.parametrize(
    ("spatial", "drawn", "message"),
    [
        ({}, [], "no spatial convolution"),
        ({}, DRAWN, "no spatial convolution, and 2 of 1×1 kernels"),
        ({"": 200}, DRAWN[1:], "1 of 1 spatial convolution, 100 % of its weights"),
        ({"a": 9, "b": 9}, [], "0 of 2 spatial convolutions, 0 % of their weights"),
        ({"a": 0}, [], "0 of 1 spatial convolution"),
        ({"conv": 392, "b": 8}, DRAWN, "1 of 2 spatial convolutions, 98 % of their weights, and 1 of 1×1 kernels"),
    ],
)
def test_coverage_stands_first(spatial: dict[str, int], drawn: list[Drawn], message: str) -> None:
    for dry_run, before in ((False, ""), (True, "would take ")):
        assert str(Report(drawn, dry_run=dry_run, spatial=spatial)).splitlines()[0] == before + message


def test_coverage_has_shares() -> None:
    found = Report(DRAWN, spatial=SPATIAL).coverage
    assert (found.layers, found.all_layers, found.weights, found.all_weights) == (2, 5, 592, 4593)
    assert (found.layer_share, found.weight_share) == (0.4, 592 / 4593)
    assert (Coverage(0, 0, 0, 0).layer_share, Coverage(0, 2, 0, 0).weight_share) == (0, 0)


@pytest.mark.parametrize(
    ("part", "text"), [(0, "0 %"), (1, "under 1 %"), (6, "1 %"), (129, "13 %"), (996, "over 99 %"), (1000, "100 %")]
)
def test_only_none_and_all_are_0_and_100_percent(part: int, text: str) -> None:
    assert share_text(part, 1000) == text


def test_a_layer_counts_by_its_weight_once_and_only_if_asked_for() -> None:
    model = nn.Sequential(*(nn.Conv2d(2, 4, 3, groups=2) for _ in range(3)), nn.Conv2d(2, 2, 1), nn.Conv1d(2, 6, 5))
    model[1].weight = model[0].weight
    model[2].weight = nn.Parameter(torch.empty(4, 1, 3, 3, device="meta"))
    report = apply_(model, Gaussian((1, 3, 3)))
    assert report.spatial == {"0": 36, "2": 36, "4": 60} and report.drawn[0].weights == 36
    assert apply_(model, Gaussian((1, 3, 3)), layers="0").spatial == {"0": 36}
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(1, 1, 3))
    assert str(apply_(lazy, Gaussian((1, 3, 3)))).startswith("1 of 2 spatial convolutions, at most 100 % of")


def test_long_reasons_are_wrapped_and_nothing_steers_the_terminal() -> None:
    reason = (
        "its parametrization keeps part of the weight in its own tensors: " + "call apply_ before registering it " * 3
    )
    text = str(Report([], {f"blocks.{i}.conv_dw": reason for i in range(9)}, ["\x1b[2J"]))
    _, head, *lines, _, unused = text.splitlines()[1:]
    assert max(map(len, lines)) <= 120 and len(lines) == 3
    assert " ".join(line[head.index("reason") :] for line in lines) == reason.strip()
    assert unused == "no layer took: \\x1b[2J"


def test_html_has_both_tables_and_escapes_everything() -> None:
    evil = "<script>&\x1b"
    row = Drawn(evil, evil, evil, 0.0, 1, 1.0, None)
    html = Report([row], {evil: evil}, [evil], dry_run=True, spatial={evil: 1})._repr_html_()
    assert "<script" not in html and "\x1b" not in html and html.count("&lt;script&gt;&amp;\\x1b") == 6
    assert html.startswith("<p><b>would take 1 of 1 spatial convolution, 100 % of its weights</b></p>\n<div ")
    assert html.count("<table ") == html.count("</table>") == 2 and html.count("</tr>") == 4
    assert html.count('<th scope="col"') == 6 + 4 and html.count("</div>") == 2
    colours = set(re.findall(r"(?:color|background)[\w-]*:|rgba?\([^)]*\)|#[0-9a-f]{3}", html))
    assert colours == {"rgba(128, 128, 128, 0.4)"}  # of lines alone, so that it is read on light and on dark pages
    assert "<table" not in Report([])._repr_html_()


@pytest.mark.parametrize("name", ["mine", 5, None])
def test_report_prints_whatever_a_prior_is_called(name: object) -> None:
    prior = Gaussian((1, 3, 3))
    prior.details["name"] = name
    assert str(name or "Gaussian") in str(apply_(nn.Conv2d(1, 2, 3), prior))
