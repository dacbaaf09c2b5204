"""The picture of the README is drawn from the bundled priors."""

from pathlib import Path

from training.figures.natural import LAYERS, plot_natural


def test_the_picture_shows_every_kind_of_layer(tmp_path: Path) -> None:
    plot_natural(tmp_path / "natural.png")
    assert (tmp_path / "natural.png").read_bytes().startswith(b"\x89PNG")
    assert len(LAYERS) == 4
