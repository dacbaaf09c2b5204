from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

from training.figures.experiments import COLOURS, plot_convergence

PngSize = Callable[[Path], tuple[int, ...]]


def test_convergence_has_a_curve_per_initialisation(tmp_path: Path, drawn: list[Figure], png_size: PngSize) -> None:
    marks = (10, 25, 50)
    found = {init: 10 * i + torch.tensor([[1.0, 2, 3], [3, 4, 5]]) for i, init in enumerate(COLOURS)}
    found["PyTorch default"] = torch.zeros(2, 3)  # without a colour it is left out
    plot_convergence(dict(reversed(found.items())), marks, tmp_path / "new" / "a.png")
    assert png_size(tmp_path / "new" / "a.png") == (546, 832)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(COLOURS)
    for i, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        assert list(line.get_xdata()) == list(marks)
        assert line.get_ydata().tolist() == [10 * i + 2, 10 * i + 3, 10 * i + 4]
        edge = band.get_paths()[0].vertices[:, 1]
        assert (edge.min(), edge.max()) == (10 * i + 1, 10 * i + 5)  # one standard deviation each way
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "25", "50"]


def test_convergence_of_one_seed(tmp_path: Path, drawn: list[Figure], png_size: PngSize) -> None:
    plot_convergence({"Kaiming": torch.tensor([[1.0, 2.0]])}, (1, 2), tmp_path / "a.png")
    assert png_size(tmp_path / "a.png") == (546, 832)
    assert drawn[0].axes[0].lines[0].get_ydata().tolist() == [1.0, 2.0]
