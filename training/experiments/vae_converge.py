"""How fast a VAE of images trains from each initialisation (Section 4.3, Fig. 4a; Appendix E, Fig. 7)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.utils import make_grid

from dwp_init.storage import write_bytes
from training.engine.options import check_counts, check_marks
from training.engine.records import Row, file_sha256, is_as_stated, print_table, read_config, read_metrics
from training.engine.stage import FIXED, Context, Stage
from training.engine.workers import Progress
from training.experiments.base import PairedRuns, Parts
from training.experiments.paired import by_mark, comparison
from training.figures.style import save_figure
from training.networks.image_vae import ImageVAE, binarize
from training.networks.loop import batches, descend, train
from training.starts.base import KAIMING, initialize_
from training.starts.controls import NOISE_HE, XAVIER
from training.starts.priors import DWP, DWP_OWN

ELBO_BASELINES = {"xavier": XAVIER, "kaiming": KAIMING}


@dataclass(frozen=True)
class VAEConverge(PairedRuns):
    """Trains the paper's image VAE from each initialisation, with the same data, noise, biases and linear layers.

    Records ``<name>.csv`` and ``<name>_runs.csv``, and keeps samples of the first seed's networks for
    :class:`SampleGrid`. Pixels are 1 above a half and 0 otherwise, so that nats are those of binary
    images. The ELBO of the test images has the same noise at each mark.

    Args:
        needs: Stages with learned kernels, one for each kernel size, to start from too; none by default.
        data: Name of the data set, of 28×28 grey images.
        inits: The starts; those from learned kernels are added with ``needs``.
        layers: Patterns of the layers that are initialised: all convolutions, transposed ones too.
        latent_dim: Number of latents.
        batch_size: Images per step.
        lr: Learning rate of Adam, constant.
        marks: Steps at which the ELBO is measured; training ends at the last.
        test_images: Maximum number of test images, evenly spaced.
        sample_marks: Steps at which samples are drawn.
        samples: Number of samples, from the same latents.
    """

    name: str = "vae_converge"
    priors: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    inits: tuple[str, ...] = field(default=(DWP, DWP_OWN, XAVIER, KAIMING, NOISE_HE), metadata=FIXED)
    layers: tuple[str, ...] = ("*",)
    latent_dim: int = 64
    seeds: int = 4
    batch_size: int = 128
    lr: float = 1e-3
    marks: tuple[int, ...] = tuple(range(10, 701, 10))
    test_images: int = 1000
    sample_marks: tuple[int, ...] = (100, 200, 300, 400, 500)
    samples: int = 16

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, batch_size=self.batch_size, latent_dim=self.latent_dim)
        check_counts(test_images=self.test_images, samples=self.samples)
        check_marks(self.marks)
        check_marks(self.sample_marks, "sample_marks")
        if self.sample_marks[-1] > self.marks[-1]:
            raise ValueError(
                f"samples cannot be drawn at step {self.sample_marks[-1]}, because training ends at {self.marks[-1]}: "
                "lower sample_marks, or add to marks"
            )
        job = partial(self.train_one, self.parts(folder, context))

        def made(row: Row) -> bool:
            sampled = row["seed"] == self.first_seed
            return not sampled or is_as_stated(samples_file(folder, row["init"]), row.get("samples_sha256"))

        runs = by_mark(self.sweep(folder, context, job, self.marks[-1], made), "elbo", self.marks)
        table = comparison(runs, "elbo", ELBO_BASELINES, ahead=False)
        self.record(folder, table=table, runs=runs)
        print_table([row for row in table if row["step"] in (self.marks[0], *self.sample_marks, self.marks[-1])])
        return {"table": table}

    def parts(self, folder: Path, context: Context) -> Parts:
        """Reads the images and the learned kernels."""
        (images, labels), (test, test_labels), learned, _ = self.read(context, test_images=self.test_images)
        if tuple(images.shape[1:]) != ImageVAE.image_shape:
            raise ValueError(f"the VAE takes images {ImageVAE.image_shape}; {self.data} has {tuple(images.shape[1:])}")
        return Parts((binarize(images), labels), (binarize(test), test_labels), learned, folder)

    def train_one(self, parts: Parts, run: tuple[str, int], progress: Progress) -> list[Row]:
        """Trains one VAE; returns its ELBOs in nats per image."""
        (init, seed), (images, _) = run, parts.train
        torch.manual_seed(seed)
        vae = ImageVAE(self.latent_dim)
        chosen: dict[str, Any] = {"layers": self.layers, "strict": True}
        initialize_(vae, init, seed, priors=self.priors, learned=parts.learned, **chosen)
        vae = vae.to(images.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(vae.parameters(), lr=self.lr)
        generator = torch.Generator().manual_seed(seed)
        order = batches(len(images), self.batch_size, self.marks[-1], generator)
        samples: dict[str, Tensor] = {}

        def step(batch: Tensor, lr: float) -> None:
            descend(-vae.elbo(images[batch.to(images.device)], generator).mean(), optimizer, lr)

        def measure(number: int) -> float:
            if number in self.sample_marks:
                drawn = vae.sample(self.samples, torch.Generator().manual_seed(0)).cpu()
                samples[str(number)] = (255 * drawn).round().byte().contiguous()
            found = round(mean_elbo(vae, parts.test[0]), 3) if number in self.marks else 0.0
            if not math.isfinite(found):
                raise ValueError(f"the VAE of seed {seed} from {init} diverged by step {number}; lower lr={self.lr}")
            return found

        stops = sorted({*self.marks, *self.sample_marks})
        found = train(step, order, self.lr, progress=progress, marks=stops, measure=measure)
        elbo = [value for stop, value in zip(stops, found, strict=True) if stop in self.marks]
        row: Row = {"init": init, "seed": seed, "elbo": elbo}
        if seed == self.first_seed:
            path = samples_file(parts.folder, init)
            write_bytes(path, save(samples))
            row["samples_sha256"] = file_sha256(path)
        return [row]


@torch.no_grad()
def mean_elbo(vae: ImageVAE, images: Tensor) -> float:
    """Returns the mean ELBO of images in nats, with the same noise at every call."""
    generator = torch.Generator().manual_seed(1)
    return torch.cat([vae.elbo(part, generator) for part in images.split(250)]).mean().item()


def samples_file(folder: Path, init: str) -> Path:
    """Returns the path of the samples from an initialisation, uint8 ``(n, 1, 28, 28)`` by step."""
    return folder / f"samples-{re.sub(r'[^a-z0-9]+', '-', init.lower())}.safetensors"


@dataclass(frozen=True)
class SampleGrid(Stage):
    """Draws the samples of a :class:`VAEConverge` stage side by side, as in Fig. 7; records ``<name>.png``.

    Args:
        needs: That stage.
        name: Base name of the PNG file.
        inits: The rows.
    """

    needs: tuple[str, ...] = ("vae_converge",)
    name: str = "samples"
    inits: tuple[str, ...] = field(default=(DWP, XAVIER), metadata=FIXED)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        source = context.out / self.needs[0]
        there = list(dict.fromkeys(row["init"] for row in read_metrics(source)))
        if not self.inits or not set(self.inits) <= set(there):
            raise ValueError(f"inits must be some of {'; '.join(there)}; got {'; '.join(self.inits) or 'none'}")
        steps = read_config(source)["settings"]["sample_marks"]
        files = {init: load_file(samples_file(source, init)) for init in self.inits}
        samples = {init: {step: file[str(step)].float() / 255 for step in steps} for init, file in files.items()}
        plot_samples(samples, folder / "record" / f"{self.name}.png")
        return {"inits": list(self.inits), "steps": steps}


def plot_samples(samples: Mapping[str, Mapping[int, Tensor]], path: Path) -> None:
    """Draws samples of image models at several steps, a row per initialisation, as in Fig. 7.

    Args:
        samples: Pixels ``(n, 1, h, w)`` in [0, 1], by initialisation and step.
        path: Path of the PNG.
    """
    columns = len(next(iter(samples.values())))
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(samples)))
    panels = figure.subplots(len(samples), columns, squeeze=False)
    for row, (init, by_step) in zip(panels, samples.items(), strict=True):
        row[0].set_ylabel(init)
        for axes, (step, images) in zip(row, by_step.items(), strict=True):
            grid = make_grid(images, nrow=round(len(images) ** 0.5), padding=1, pad_value=0.5)
            axes.imshow(grid[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=f"{step} steps")
    save_figure(figure, path)
