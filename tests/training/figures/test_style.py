from pathlib import Path

import matplotlib.image
import pytest
import torch
from matplotlib.figure import Figure

from training.figures.style import add_legend, log_ticks, mean_and_sd, plot_band, save_figure


def test_a_band_is_one_standard_deviation_each_way() -> None:
    axes = Figure().subplots()
    plot_band(axes, (10, 20), torch.tensor([[1.0, 2.0], [3.0, 6.0]]), "a", "red", linewidth=3)
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_ydata().tolist() == [2, 4] and line.get_linewidth() == 3 and line.get_label() == "a"
    edge = band.get_paths()[0].vertices
    corners = sorted({tuple(corner) for corner in edge.tolist()})
    expected = [(x, mean + way * sd) for x, mean, sd in ((10, 2, 2**0.5), (20, 4, 8**0.5)) for way in (-1, 1)]
    assert corners == [pytest.approx(each) for each in expected]


def test_a_single_run_has_no_spread() -> None:
    assert [each.tolist() for each in mean_and_sd(torch.tensor([[1.0, 2.0]]))] == [[1, 2], [0, 0]]


@pytest.mark.parametrize(("labels", "shown"), [(None, ["1", "8"]), (["one", "eight"], ["one", "eight"])])
def test_ticks_stand_at_the_given_values_alone(labels: list[str] | None, shown: list[str]) -> None:
    axes = Figure().subplots()
    log_ticks(axes, (1, 8), labels, base=2)
    assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == [1, 8]
    assert [label.get_text() for label in axes.get_xticklabels()] == shown
    assert axes.get_xticks(minor=True).tolist() == []


def test_a_figure_is_saved_into_a_new_folder(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2], label="a")
    add_legend(figure.axes[0])
    save_figure(figure, tmp_path / "new" / "a.png")
    assert matplotlib.image.imread(tmp_path / "new" / "a.png").shape == (130, 260, 4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a"]
