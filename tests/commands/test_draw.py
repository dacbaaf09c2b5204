import re
from pathlib import Path
from unittest.mock import patch

import torch

from dwp_init import load_prior
from dwp_init.commands import draw
from dwp_init.picture import kernel_sheet, numbered_sheets, png_bytes, write_png


def test_draw(run, workplace):
    out = run("draw", "notmnist-7x7", "-n", 5, "-o", "a.png", "--seed", 3)
    assert out == "5 kernels of notmnist-7x7 (7×7): a.png, 172×115 pixels\n"
    kernels = load_prior("notmnist-7x7").sample(5, torch.Generator().manual_seed(3))
    assert (workplace / "a.png").read_bytes() == write_png("b.png", kernel_sheet(kernels)).read_bytes()


def test_a_link_is_written_through(run, workplace):
    (workplace / "link.png").symlink_to("a.png")
    assert "a.png, " in run("draw", "gauss-3x3", "-o", "link.png")
    assert (workplace / "link.png").is_symlink() and (workplace / "a.png").is_file()
    (workplace / "lost.png").symlink_to("no/a.png")
    assert "/no' does not exist; create it first" in run("draw", "gauss-3x3", "-o", "lost.png", status=1)


def test_a_picture_has_a_largest_size(run, family):
    kernels = load_prior("gauss-3x3").sample(64, torch.Generator().manual_seed(0))
    with patch.object(draw, "MOST_PIXELS", 64 * 9 * 8):
        run("draw", "gauss-3x3")
        assert Path("kernels.png").read_bytes() == png_bytes(kernel_sheet(kernels, zoom=2))
        message = "1000 kernels of 3×3 have 9,000 weights; a picture has at most 4,608 pixels: give a smaller -n"
        assert message in run("draw", "gauss-3x3", "-n", 1000, status=1)
        assert "100 kernels of 3×5×5 have 7,500 weights" in run("draw", "family", "-n", 100, status=1)


def test_draw_options(run, workplace):
    pictures = {}
    for options in [(), ("--seed", 0), ("--seed", 1), ("--mean",), ("--colors", "grey")]:
        run("draw", "notmnist-7x7", *options)
        pictures[options] = (workplace / "kernels.png").read_bytes()
    default, seed_0, *others = pictures.values()
    assert default == seed_0 and len({default, *others}) == 4


def test_draw_a_set(run, workplace, family):
    out = run("draw", "family", "-n", 4).splitlines()
    assert re.fullmatch(r"4 kernels of each prior of family: kernels\.png, \d+×\d+ pixels", out[0])
    assert [line.split() for line in out[1:]] == [
        ["1:", "3×5×5", "stem", "stem"],
        ["2:", "3×3", "depthwise", "gauss-3x3"],
    ]
    sheets = [
        kernel_sheet(load_prior(name).sample(4, torch.Generator().manual_seed(0)), zoom=zoom, colors=colors)
        for name, zoom, colors in ((family, 11, "rgb"), ("gauss-3x3", 18, "diverging"))
    ]
    assert (workplace / "kernels.png").read_bytes() == write_png("b.png", numbered_sheets(sheets)).read_bytes()
    picture = (workplace / "kernels.png").read_bytes()
    run("draw", "family", "-n", 4, "--colors", "rgb")  # which concerns the prior of three channels
    assert (workplace / "kernels.png").read_bytes() == picture
    run("draw", "family", "-n", 4, "--depth", 1)
    assert (workplace / "kernels.png").read_bytes() != picture
    assert "family: kernels.png, 866×457 pixels" in run("draw", "family", "-n", 1000)  # kernels are smaller
    assert "no prior of family has a noise step; drop it" in run("draw", "family", "--mean", status=1)


def test_draw_of_a_depth_and_in_colour(run, workplace, family):
    pictures = {}
    for options in [("--depth", 0), ("--depth", "1.0"), (), ("--colors", "rgb"), ("--colors", "grey")]:
        run("draw", "stem", "-n", 4, *options)
        pictures[options] = (workplace / "kernels.png").read_bytes()
    assert pictures[()] == pictures["--colors", "rgb"] and len(set(pictures.values())) == 4
    kernels = load_prior(family).at(0).sample(4, torch.Generator().manual_seed(0))
    sheet = kernel_sheet(kernels, colors="rgb")
    assert pictures["--depth", 0] == write_png("b.png", sheet).read_bytes()


def test_draw_errors(run, workplace):
    assert "--depth has no effect: a gaussian prior is the same at every depth; drop" in run(
        "draw", "gauss-3x3", "--depth", 0.5, status=1
    )
    assert "colors='rgb' is for kernels (3, k, k); these are (1, 3, 3)" in run(
        "draw", "gauss-3x3", "--colors", "rgb", status=1
    )
    assert "--mean has no effect: a gaussian prior has no noise step; drop" in run(
        "draw", "gauss-3x3", "--mean", status=1
    )
    assert "must end in .png; got 'a.jpg'" in run("draw", "gauss-3x3", "-o", "a.jpg", status=1)
    assert "-o: the folder 'no' does not exist; create it" in run("draw", "gauss-3x3", "-o", "no/a.png", status=1)
    assert not list(workplace.iterdir())
