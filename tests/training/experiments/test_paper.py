import pytest
from matplotlib.figure import Figure

from training.experiments.paper import (
    CALLED,
    FEW_LABELS,
    RANDOM_FEATURES,
    STARTS_OF_PAPER,
    STEPS_TO,
    TABLE_1,
    plot_paper,
)
from training.starts.base import KAIMING, start_names
from training.starts.learned import LEARNED_HE


def test_speed_ups_and_gaps() -> None:
    """The figures that the notes give."""
    a, b = STEPS_TO["fig4a"], STEPS_TO["fig4b"]
    assert [round(a["xavier"][level] / a["dwp"][level], 1) for level in (-140, -120, -100)] == [2.4, 2.2, 1.7]
    assert [round(b["xavier"][level] / b["dwp"][level], 1) for level in (92, 96, 98)] == [2.3, 2.0, 1.5]
    gap = TABLE_1["iwae"][0] - TABLE_1["auxiliary"][0]
    assert gap == 13_418 and gap / 4_128 == pytest.approx(3.25, abs=0.01)


def test_what_any_such_figure_obeys() -> None:
    for figure in STEPS_TO.values():
        for steps in figure.values():
            assert list(steps) == sorted(steps) and list(steps.values()) == sorted(steps.values())
    for data in RANDOM_FEATURES.values():
        assert data.keys() == STARTS_OF_PAPER.keys()
        for scales in data.values():
            assert [mean for mean, _ in scales.values()] == sorted(mean for mean, _ in scales.values())
    for rivals in FEW_LABELS.values():
        assert all(list(values) == sorted(values) for values in rivals.values())


def test_what_the_paper_calls_a_start() -> None:
    assert set(CALLED) < set(start_names()) and set(CALLED.values()) == STARTS_OF_PAPER.keys()
    assert CALLED[LEARNED_HE] == "filters" and KAIMING not in CALLED


def test_its_values_are_faint_markers() -> None:
    axes = Figure().subplots()
    plot_paper(axes, "filters", {1.0: 3.0, 2.0: 4.0})
    (line,) = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata()), line.get_marker()) == ([1.0, 2.0], [3.0, 4.0], "x")
    assert (line.get_label(), line.get_color()) == ("the paper's filters", STARTS_OF_PAPER["filters"].colour)
