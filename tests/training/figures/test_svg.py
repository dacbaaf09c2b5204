import re

from matplotlib.figure import Figure

from training.figures.svg import bare, svg_of, web_ink


def test_ink_becomes_the_pages_colour_and_text_stays_text_in_the_pages_font() -> None:
    with web_ink() as ink:
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.axhline(0, color=ink)
        axes.plot([0, 1], [0, 1], color="#4c6fd1")
        axes.plot([0.2, 0.8], [0.3, 0.7], marker="o")
        axes.set_xlabel("steps")
        axes.set_title("0.125 of 1")
        bare(axes)
        text = svg_of(figure, 'a "label" & more')
    assert text.startswith(
        '<svg class="chart" role="img" aria-label="a &quot;label&quot; &amp; more" viewBox="0 0 216 144"'
    )
    assert 'width="288" height="192"' in text and "\n" not in text and text.rstrip().endswith("</svg>")
    assert ">steps</text>" in text and "font-family" not in text and "<metadata>" not in text
    assert ">0.125 of 1</text>" in text and "stroke-opacity: 0.25" in text  # only positions are rounded
    positions = re.findall(r' (?:d|x|y|transform)="([^"]*)"', text)
    assert len(positions) > 20 and not re.search(r"\.\d\d", " ".join(positions))
    assert set(re.findall(r'id="([^"]*)"', text)) == set(re.findall(r'(?:url\(|href=")#([\w-]+)', text)) != set()
    assert ink not in text and "currentColor" in text and "#4c6fd1" in text


def test_the_same_figure_is_the_same_text() -> None:
    def drawn() -> str:
        with web_ink():
            figure = Figure()
            figure.subplots().plot([0, 1])
            return svg_of(figure, "curve")

    assert drawn() == drawn()
