"""The fit of mixtures by relative depth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dwp_init import Gaussian, GaussianMixture, MixtureByDepth, Prior
from training.engine.options import check_counts
from training.engine.records import read_done, write_metrics
from training.engine.stage import Context
from training.fits.base import either, has_form, register_fit
from training.fits.mixture import FitMixture
from training.fits.score import score
from training.fits.warn import warn_if_few
from training.kernels.kernelset import LABELS, PARTS, KernelSet

OF_A_LAYER = {"layer", "kind"}  # keys in which kernels stages of the same networks may differ
AnyPrior = TypeVar("AnyPrior", bound=Prior)


@register_fit
@dataclass(frozen=True)
class FitByDepth(FitMixture):
    """Fits a mixture to the kernels of each of several depths and combines them.

    The depths are those of several layers, each with a kernels stage; or there is one stage with the kernels of a
    harvest, whose labels say at which depth each was. Those go to the nearest of ``depths``, as layers do that the
    prior initialises. By default these are the middles of ``bins`` of equal width, without those that a part has not
    two kernels for.

    The metric ``log_prob`` is for kernels of unknown depth, as for any prior. ``log_prob_at_depth`` is for kernels of
    known depth, each kernel counting the same, and ``gaussian_log_prob_at_depth`` that of one Gaussian per depth, with
    its own best reach.

    Args:
        needs: The stages with the kernels of each layer, the first layer first.
        depths: Relative depths of these layers: 0 for the network's first convolution with kernels larger than 1×1, 1
            for its last.
        bins: Number of bins of a harvest's depths, where ``depths`` are not given.
        reaches: Numbers of neighbouring layers on each side to try, whose kernels are added to those of a layer. Above
            0 where a layer has few kernels for their size; all layers must then be of the same networks.
    """

    depths: tuple[float, ...] = ()
    bins: int = 5
    reaches: tuple[int, ...] = (0,)
    family: ClassVar[str] = "mixture-by-depth"

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        text = super().describe(settings)
        return f"at each depth {text}" if text else ""

    @classmethod
    def _origin(cls, settings: Mapping[str, Any]) -> str:
        reaches, restarts = settings.get("reaches", (0,)), settings["restarts"]
        text = f", the average of {restarts:,} starts" if restarts > 1 else ""
        if has_form({"reaches": reaches}, reaches=list) and max(reaches) > 0:
            text = f", to a layer's kernels and those up to {either(reaches, 'layer')} away{text}"
        return text

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        depths, layers = self.layers(context)
        self._check(depths, layers, context)
        warn_if_few(self.name, min((layer.train for layer in layers), key=len))
        torch.manual_seed(self.seed)
        write_metrics(folder, [])  # an interrupted fit starts again

        def mixture(kernels: KernelSet, place: int, reach: int) -> GaussianMixture:
            return self.best(kernels, folder, layer=place, reach=reach)

        def gaussian(kernels: KernelSet, place: int, reach: int) -> Gaussian:
            return Gaussian(kernels.kernel_shape).fit_(kernels.train)

        found = [self._reaching(mixture, place, layers) for place in range(len(layers))]
        controls = [self._reaching(gaussian, place, layers)[1] for place in range(len(layers))]
        mixtures = [prior for _, prior in found]
        prior = MixtureByDepth.stack(depths, mixtures).eval()
        more = _at_depth(mixtures, controls, layers) | {"reaches": [reach for reach, _ in found]}
        return self.keep(prior, KernelSet.together(layers), folder, context, more)

    def layers(self, context: Context) -> tuple[Sequence[float], list[KernelSet]]:
        """Returns the depths and the kernels of each.

        Raises:
            ValueError: There is one stage, whose kernels have no depths, or fewer than two for one of them in a part.
        """
        folders = [context.out / need for need in self.needs]
        if len(folders) == 1 and (folders[0] / LABELS).exists():
            return self._by_label(KernelSet.load(folders[0]), load_file(folders[0] / LABELS))
        if len(folders) == 1 and not self.depths:
            raise ValueError(
                f"{self.family} needs the depth of each kernel, in the {LABELS} that a harvest leaves next to its "
                "kernels; give kernels of `python -m training kernels`, or take another --family, such as mixture"
            )
        return self.depths, [KernelSet.load(folder) for folder in folders]

    def _by_label(self, kernels: KernelSet, labels: Mapping[str, Tensor]) -> tuple[Sequence[float], list[KernelSet]]:
        """Divides kernels by the depth that is nearest to theirs."""
        check_counts(bins=self.bins)
        at = {part: labels[f"{part}.depth"] for part in PARTS}
        found = {part: len(depth) for part, depth in at.items()}
        if found != kernels.counts():
            raise ValueError(f"{LABELS} has {found} depths for {kernels.counts()} kernels; harvest them again")
        depths = self.depths or tuple(round((i + 0.5) / self.bins, 6) for i in range(self.bins))
        while True:
            each = [_near(kernels, at, depths, place) for place in range(len(depths))]
            counts = [min(layer.counts().values()) for layer in each]
            fewest = counts.index(min(counts))
            if counts[fewest] >= 2:
                return depths, each
            if self.depths:
                numbers = each[fewest].counts()
                raise ValueError(
                    f"depth {depths[fewest]} has {numbers} kernels; each part needs 2 or more: leave it out"
                )
            depths = depths[:fewest] + depths[fewest + 1 :]

    def _check(self, depths: Sequence[float], layers: Sequence[KernelSet], context: Context) -> None:
        """Raises ``ValueError`` where settings and layers do not go together."""
        if len(layers) != len(depths):
            raise ValueError(f"each kernels stage needs its depth; needs={self.needs}, depths={depths}")
        MixtureByDepth(layers[0].kernel_shape, depths, (1,) * len(layers))  # raises for depths out of order
        if not self.reaches or min(self.reaches) < 0:
            raise ValueError(f"reaches must be one or more numbers of layers, 0 or more; got {self.reaches}")
        if max(self.reaches) > 0:
            self._check_held_out(context)

    def _check_held_out(self, context: Context) -> None:
        """Raises where a layer's mixture might be fitted to kernels of networks that another layer holds out."""
        sources = {need: read_done(context.out / need, "source")["source"] for need in self.needs}
        networks = {need: {key: source[key] for key in source.keys() - OF_A_LAYER} for need, source in sources.items()}
        first, *others = networks
        for need in others:
            if differ := [key for key, value in networks[first].items() if networks[need].get(key) != value]:
                raise ValueError(
                    f"{first} and {need} differ in {', '.join(sorted(differ))}: fitted together, one could see "
                    "networks that the other holds out; make them alike, or set reaches=0"
                )

    def _reaching(
        self, fit: Callable[[KernelSet, int, int], AnyPrior], place: int, layers: Sequence[KernelSet]
    ) -> tuple[int, AnyPrior]:
        """Fits to a layer's kernels with those at each reach; returns what is best on its own validation kernels."""
        found = {}
        for reach in self.reaches:
            near = layers[max(place - reach, 0) : place + reach + 1]
            found[reach] = fit(replace(layers[place], train=torch.cat([layer.train for layer in near])), place, reach)
        best = max(found, key=lambda reach: score(found[reach], layers[place].validation)[1]["log_prob"])
        return best, found[best]

    def _source(self, context: Context) -> dict[str, Any]:
        """Describes the kernels of all layers: what differs from layer to layer is a list, their numbers a sum.

        The checkpoints of harvests are together, each once, and so are their origins.
        """
        each = [read_done(context.out / need, "source") for need in self.needs]
        layers = [done["source"] for done in each]
        source = {
            key: value if all(layer.get(key) == value for layer in layers) else [layer.get(key) for layer in layers]
            for key, value in layers[0].items()
        }
        if "checkpoints" in source:
            source["checkpoints"] = list(
                dict.fromkeys(name for layer in layers for name in layer.get("checkpoints", ()))
            )
            source["origins"] = {name: said for layer in layers for name, said in layer.get("origins", {}).items()}
        counts = {part: sum(done["kernels"][part] for done in each) for part in PARTS}
        return source | {"kernels": counts, "kept": [done["kept"] for done in each]}


def _near(kernels: KernelSet, at: Mapping[str, Tensor], depths: Sequence[float], place: int) -> KernelSet:
    """Returns the kernels whose depths ``at`` are nearest to one of ``depths``; of two, to the smaller."""
    mine = {part: (depth[:, None] - torch.tensor(depths)).abs().argmin(1) == place for part, depth in at.items()}
    parts = {part: getattr(kernels, part)[mask] for part, mask in mine.items()}
    return KernelSet(**parts, test_network=kernels.test_network[mine["test"]])


def _at_depth(mixtures: Sequence[Prior], controls: Sequence[Prior], layers: Sequence[KernelSet]) -> dict[str, Any]:
    """Averages over all test kernels, not over layers, which would give more weight to kernels of small layers."""
    found, control = (
        [score(prior, layer.test)[1]["log_prob"] for prior, layer in zip(priors, layers, strict=True)]
        for priors in (mixtures, controls)
    )
    counts = [len(layer.test) for layer in layers]
    return {
        "log_prob_at_depth": round(float(np.average(found, weights=counts)), 3),
        "gaussian_log_prob_at_depth": round(float(np.average(control, weights=counts)), 3),
        "log_prob_by_depth": found,
    }
