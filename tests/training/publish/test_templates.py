from pathlib import Path

import pytest

from training.publish import templates


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (templates.FILTERS["fixed"]("1.25", 1), "1.2"),
        (templates.FILTERS["fixed"](2, 2), "2.00"),
        (templates.FILTERS["short"]("0.0010"), "0.001"),
        (templates.FILTERS["short"](48.50404, 7), "48.50404"),
        (templates.FILTERS["signed"]("1.50"), "+1.5"),
        (templates.FILTERS["signed"](-0.25, 1), "-0.2"),
        (templates.FILTERS["thousands"]("98688"), "98,688"),
        (templates.FILTERS["about"](4096.4), "4,100"),
        (templates.FILTERS["mean"]("1.25", "0.5", 1), "1.2 ± 0.5"),
        (templates.FILTERS["half_width"]("2", "4")[:5], "3.182"),
        (templates.FILTERS["lead"](1.5, "0.25", 2), "+1.50 ± 0.25"),
    ],
)
def test_numbers_are_rendered(rendered: str, expected: str) -> None:
    assert rendered == expected


def test_a_template_and_its_macros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "CARDS", tmp_path)
    (tmp_path / "page.md").write_text("{% macro block() %}<{{ x | plain }}>{% endmacro %}\n{{ block() }}\n")
    assert templates.render("page.md", x="*") == "<\\*>\n"
    assert templates.render_macro("page.md", "block", x="y") == "<y>"
