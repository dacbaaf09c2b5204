"""``dwp-init draw``: kernels as a picture."""

import argparse
import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from dwp_init.access import Access
from dwp_init.commands.base import PRIOR, depth_option, in_folder, whole_option
from dwp_init.picture import ACROSS, Colors, colors_of, kernel_sheet, numbered_sheets, write_png
from dwp_init.priors import Prior
from dwp_init.report import kernel_text
from dwp_init.rules import Rule, load_rules
from dwp_init.sets import SETS
from dwp_init.terminal import kernel_blocks, shows_pictures
from dwp_init.text import aligned, shown_value

MOST_PIXELS = 2**25  # of the kernels in a picture; making it takes about 10 bytes each
_LARGEST_ZOOM = 8
_BLOCK = 448  # pixels of the side of a block in the picture of a set, about
_ROWS = 4  # of kernels in a terminal, of one prior; a prior of a set has one


@dataclass(frozen=True)
class DrawCommand:
    """Draws kernels from a prior, as a picture; from a set, a numbered block of kernels for each of its priors.

    A terminal of 24-bit colour shows some of them too.
    """

    prior: str
    n: int
    output: str
    seed: int
    mean: bool
    colors: Colors | None
    depth: float | None

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        colors, default = get_args(Colors), "default: %(default)s"
        parser.add_argument("prior", metavar="PRIOR", help=PRIOR)
        parser.add_argument(
            "-n", type=whole_option(1, 10_000), default=64, metavar="N", help="number of kernels (%(default)s)"
        )
        parser.add_argument("-o", dest="output", default="kernels.png", metavar="FILE.png", help=default)
        parser.add_argument("--seed", type=whole_option(0, 2**63 - 1), default=0, metavar="N", help=default)
        parser.add_argument("--mean", action="store_true", help="without the noise: decoder means, learned kernels")
        parser.add_argument(
            "--depth",
            type=depth_option,
            metavar="D",
            help="for layers of this depth, from 0 to 1; default: all",
        )
        parser.add_argument("--colors", choices=colors, help="default: rgb for 3 channels, otherwise diverging")

    def run(self) -> None:
        rules = load_rules(self.prior, Access())
        priors = [rule.prior if self.depth is None else rule.prior.at(self.depth) for rule in rules]
        self._check_effect(rules, priors)
        self._check_size(priors)
        kernels = [self._sample(prior) for prior in priors]
        if len(rules) == 1:
            pixels = kernel_sheet(kernels[0], zoom=_zoom(kernels[0], _LARGEST_ZOOM), colors=self._colors(kernels[0]))
        else:
            side = _BLOCK // max(math.isqrt(self.n), 8)
            zooms = [_zoom(each, side // max(each.shape[2:])) for each in kernels]
            pixels = numbered_sheets(
                [kernel_sheet(each, zoom=z, colors=self._colors(each)) for each, z in zip(kernels, zooms, strict=True)]
            )
        path = write_png(in_folder(self.output, "-o"), pixels)
        about = f"{path}, {pixels.shape[1]}×{pixels.shape[0]} pixels"
        if len(rules) == 1:
            name, size = shown_value(rules[0].name), kernel_text(rules[0].prior.kernel_shape)
            self._print_with_kernels([f"{self.n} kernels of {name} ({size}): {about}"], kernels, _ROWS)
        else:
            print(f"{self.n} kernels of each prior of {rules[0].given_as}: {about}")
            legend = aligned([_legend(number, rule) for number, rule in enumerate(rules, 1)])
            self._print_with_kernels(legend.splitlines(), kernels, 1)

    def _print_with_kernels(self, lines: list[str], kernels: list[Tensor], rows: int) -> None:
        """Prints the lines, and below each of them some kernels if the terminal can show them."""
        for line, each in zip(lines, kernels, strict=True):
            print(line)
            if shows_pictures():
                print(kernel_blocks(each[: rows * ACROSS], self._colors(each)))

    def _check_effect(self, rules: list[Rule], priors: list[Prior]) -> None:
        one = f"a {priors[0].family} prior" if len(priors) == 1 else f"no prior of {rules[0].given_as}"
        if self.mean and not any(prior.has_noise for prior in priors):
            has = "has no noise step" if len(priors) == 1 else "has a noise step"
            raise ValueError(f"--mean has no effect: {one} {has}; drop it")
        if self.depth is not None and all(rule.prior is prior for rule, prior in zip(rules, priors, strict=True)):
            depends = "is the same at every depth" if len(priors) == 1 else "depends on the depth"
            raise ValueError(f"--depth has no effect: {one} {depends}; drop it")

    def _check_size(self, priors: list[Prior]) -> None:
        largest = max(priors, key=lambda prior: math.prod(prior.kernel_shape))
        if (weights := self.n * math.prod(largest.kernel_shape)) > MOST_PIXELS:
            raise ValueError(
                f"{self.n} kernels of {kernel_text(largest.kernel_shape)} have {weights:,} weights; a picture has at "
                f"most {MOST_PIXELS:,} pixels: give a smaller -n"
            )

    def _sample(self, prior: Prior) -> Tensor:
        """Draws with the seed anew, so that a prior of a set gives the same kernels as on its own."""
        generator = torch.Generator().manual_seed(self.seed)
        return prior.sample_layer(self.n, generator, noise=not self.mean)

    def _colors(self, kernels: Tensor) -> Colors:
        own = colors_of(kernels)
        rgb_of_others = self.colors == "rgb" != own and self.prior in SETS  # it is meant for those of 3 channels
        return own if self.colors is None or rgb_of_others else self.colors


def _zoom(kernels: Tensor, most: int) -> int:
    """Returns the side of the square of pixels for a weight: at most ``most``, and less for a large picture."""
    return max(min(most, math.isqrt(MOST_PIXELS // kernels.numel())), 1)


def _legend(number: int, rule: Rule) -> tuple[str, ...]:
    return f"{number}:", kernel_text(rule.prior.kernel_shape), str(rule.kind), rule.name
