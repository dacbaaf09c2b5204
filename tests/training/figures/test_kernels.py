from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dwp_init import Gaussian, GaussianMixture, KernelVAE, MixtureByDepth
from dwp_init.picture import kernel_sheet
from training.figures.kernels import DRAWN, plot_colour_kernels, plot_depths, plot_families, plot_latent_space

PngSize = Callable[[Path], tuple[int, ...]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(figure: Figure) -> dict[str, Tensor]:
    """The pixels of a figure's panels, by title."""
    return {
        axes.get_title(): torch.as_tensor(axes.images[0].get_array().data) for axes in figure.axes if axes.get_title()
    }


@pytest.mark.parametrize(("columns", "rows"), [(2, 2), (3, 1), (4, 1)])
def test_families_have_a_panel_each(
    columns: int, rows: int, tmp_path: Path, drawn: list[Figure], png_size: PngSize, gaussian: Callable[..., Gaussian]
) -> None:
    real, priors = torch.randn(30, 1, 3, 3, generator=seeded(5)), {"a": gaussian(3), "b": gaussian(3)}
    plot_families(real, priors, tmp_path / "a.png", count=9, columns=columns)
    height, width = png_size(tmp_path / "a.png")
    assert (height, width) == (round(130 * 4.8 * rows), round(130 * 4.5 * columns))
    assert len(drawn[0].axes) == rows * columns and not any(axes.axison for axes in drawn[0].axes)
    found, generator = pictures(drawn[0]), seeded()
    assert list(found) == ["kernels of held-out networks", "a", "b"]
    picked = real[torch.randperm(30, generator=generator)[:9]]
    expected = [picked, *(priors[title].sample(9, generator) for title in "ab")]
    for picture, kernels in zip(found.values(), expected, strict=True):
        assert torch.equal(picture, kernel_sheet(kernels))


def test_kernels_stand_beside_draws(
    tmp_path: Path, drawn: list[Figure], png_size: PngSize, gaussian: Callable[..., Gaussian]
) -> None:
    real = gaussian(3, 2).sample(5, seeded(1))
    plot_families(real, {DRAWN: gaussian(3, 2)}, tmp_path / "a.png")
    assert png_size(tmp_path / "a.png") == (624, 1170)
    found = pictures(drawn[0])
    assert list(found) == ["kernels of held-out networks", "draws from the prior"]
    order = torch.randperm(5, generator=seeded())
    assert torch.equal(found["kernels of held-out networks"], kernel_sheet(real[order]))  # there are no more
    assert found["draws from the prior"].shape == kernel_sheet(torch.zeros(64, 2, 3, 3)).shape


def test_depths_have_a_row_each(tmp_path: Path, drawn: list[Figure], png_size: PngSize) -> None:
    """Of two depths, with draws of the second ten times as large, and no more kernels than the first has."""
    layers = [scale * torch.randn(n, 1, 3, 3, generator=seeded(n)) for n, scale in ((5, 1), (50, 10))]
    mixtures = [GaussianMixture((1, 3, 3), 1).fit_(layer, generator=seeded()) for layer in layers]
    prior = MixtureByDepth.stack((0.25, 1.0), mixtures)
    plot_depths(layers, prior, tmp_path / "a.png")
    png_size(tmp_path / "a.png")
    rows = [drawn[0].axes[i : i + 2] for i in (0, 2)]
    assert [axes.get_title() for axes in rows[0]] == ["kernels of held-out networks", "draws from the prior"]
    assert [axes[0].get_ylabel() for axes in rows] == ["0.25", "1.00"]
    generator = seeded()
    for axes, depth, layer in zip(rows, prior.depths, layers, strict=True):
        picked = layer[torch.randperm(len(layer), generator=generator)[:5]]
        for axis, kernels in zip(axes, (picked, prior.at(depth).sample(5, generator)), strict=True):
            shown = torch.as_tensor(axis.images[0].get_array().data)
            assert torch.equal(shown, kernel_sheet(kernels, columns=5))


def test_colour_kernels(tmp_path: Path, drawn: list[Figure], png_size: PngSize) -> None:
    """Red, of a kernel whose only weight is of the first channel, and what is no weight grey."""
    red = torch.zeros(2, 3, 2, 2)
    red[:, 0, 0, 0] = torch.tensor([0.01, 10])
    draws = {"a": red, "b": torch.randn(30, 3, 2, 2, generator=seeded())}
    plot_colour_kernels(draws, tmp_path / "a.png", count=9)
    assert png_size(tmp_path / "a.png") == (round(130 * 4.6), round(130 * 8.4))
    found = pictures(drawn[0])
    assert list(found) == ["a", "b"]
    for tile in (found["a"][1:3, 1:3], found["a"][1:3, 4:6]):
        assert tile[0, 0].tolist() == [1, 0.5, 0.5]
        assert tile[0, 1].tolist() == tile[1, 0].tolist() == tile[1, 1].tolist() == [0.5] * 3
    picked = draws["b"][::3][:9]
    first = 0.5 + 0.5 * picked[0] / picked[0].abs().max()
    torch.testing.assert_close(found["b"][1:3, 1:3], first.permute(1, 2, 0))
    assert found["b"].shape == (7, 25, 3)  # 8 kernels in a row and 1 below


def test_latent_space(tmp_path: Path, drawn: list[Figure], png_size: PngSize) -> None:
    """Kernels lie at the means of r(z|w), and the decoder's means where their latents do: z₁ to the right, z₂ up."""
    torch.manual_seed(0)
    vae, kernels = KernelVAE((1, 3, 3), latent_dim=2, hidden=8).eval(), torch.randn(60, 1, 3, 3)
    vae.whitening.fit_(kernels.flatten(1))
    plot_latent_space(vae, kernels, tmp_path / "a.png", count=20, grid=3)
    assert png_size(tmp_path / "a.png") == (780, 1560)
    left, right = drawn[0].axes
    with torch.no_grad():
        means = vae.encode(vae.whitening(kernels[::3].flatten(1))).loc
        z = torch.tensor([[x, y] for y in (3.0, 0.0, -3.0) for x in (-3.0, 0.0, 3.0)])
        decoded = vae.whitening.inverse(vae.decode(z).loc).view(9, 1, 3, 3)
    extents = torch.tensor([image.get_extent() for image in left.images])
    centres = torch.stack([extents[:, :2].mean(1), extents[:, 2:].mean(1)], 1)
    torch.testing.assert_close(centres, means, atol=1e-5, rtol=1e-5)
    assert means.abs().max() < left.get_xlim()[1] == left.get_ylim()[1] == -left.get_xlim()[0]
    tile = torch.as_tensor(left.images[4].get_array().data)
    assert torch.equal(tile, kernel_sheet(kernels[12:13], zoom=1)[1:-1, 1:-1])
    assert torch.equal(torch.as_tensor(right.images[0].get_array().data), kernel_sheet(decoded, columns=3))
    assert right.images[0].get_extent() == [-3, 3, -3, 3] and right.images[0].origin == "upper"


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_a_latent_space_has_two_dimensions(latent_dim: int, tmp_path: Path) -> None:
    vae = KernelVAE((1, 3, 3), latent_dim=latent_dim, hidden=8)
    with pytest.raises(ValueError, match=f"a latent space is drawn for 2 latents; this VAE has {latent_dim}"):
        plot_latent_space(vae, torch.zeros(3, 1, 3, 3), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_kernels_that_cannot_be_drawn(tmp_path: Path, gaussian: Callable[..., Gaussian]) -> None:
    with pytest.raises(
        ValueError, match=r"kernels must have shape \(n, c, \*size\), with 1 to 3 sizes, none of them 0"
    ):
        plot_families(torch.zeros(0, 1, 3, 3), {DRAWN: gaussian(3)}, tmp_path / "a.png")
    broken = torch.tensor([0.0, torch.nan]).view(2, 1, 1, 1).repeat(1, 1, 3, 3)
    with pytest.raises(ValueError, match="kernels have 9 NaN or infinite values of 18"):
        plot_families(broken, {DRAWN: gaussian(3)}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
