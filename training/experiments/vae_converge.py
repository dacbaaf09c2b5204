"""How fast a VAE of images trains from each initialisation (Section 4.3, Fig. 4a; Appendix E, Fig. 7)."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from dwp_init.storage import write_bytes
from training.engine.options import check_counts, check_marks
from training.engine.records import print_table, read_config, read_metrics, record_metrics, write_table
from training.engine.stage import FIXED, Context, Stage
from training.engine.workers import Progress, run_jobs
from training.figures.experiments import plot_samples
from training.images.split import thin
from training.networks.image_vae import ImageVAE, binarize
from training.starts.fills import (
    DWP,
    DWP_OWN,
    FROM_KERNELS,
    KAIMING,
    NOISE,
    XAVIER,
    check_inits,
    initialize_,
    learned_kernels,
)
from training.starts.priors import bundled_digests


@dataclass(frozen=True)
class VAEConverge(Stage):
    """Trains the paper's image VAE from each initialisation, with the same data, noise, biases and linear layers.

    Records ``<name>.csv`` and ``<name>_runs.csv``, and keeps samples of the first seed's networks for
    :class:`SampleGrid`. Pixels are 1 above a half and else 0, so that nats are those of binary images. The test images'
    ELBO has the same noise at each mark.

    Args:
        needs: Stages with learned kernels, one for each kernel size, to start from too; none by default.
        name: Of the record.
        data: Name of the data set, of 28×28 grey images.
        priors: The bundled priors, one for each kernel size.
        inits: Initialisations of :data:`training.starts.fills.INITS`; those from learned kernels come with ``needs``.
        layers: Patterns of the layers that are initialised: all convolutions, transposed ones too.
        latent_dim: Number of latents.
        seeds: Number of paired runs.
        first_seed: Seed of the first.
        batch_size: Images per step.
        lr: Learning rate of Adam, constant.
        marks: Steps at which the ELBO is measured; training ends at the last.
        test_images: So many evenly spaced test images to measure it on at the most.
        sample_marks: Steps at which samples are drawn.
        samples: How many, from the same latents.
    """

    name: str = "vae_converge"
    data: str = "mnist"
    priors: tuple[str, ...] = ("notmnist-7x7", "notmnist-5x5")
    inits: tuple[str, ...] = field(default=(DWP, DWP_OWN, XAVIER, KAIMING, NOISE), metadata=FIXED)
    layers: tuple[str, ...] = ("*",)
    latent_dim: int = 64
    seeds: int = 4
    first_seed: int = 0
    batch_size: int = 128
    lr: float = 1e-3
    marks: tuple[int, ...] = tuple(range(10, 701, 10))
    test_images: int = 1000
    sample_marks: tuple[int, ...] = (100, 200, 300, 400, 500)
    samples: int = 16

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        job = self._job(folder, context)
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        wanted = [(init, seed) for seed in seeds for init in job.inits]
        done = {(row["init"], row["seed"]): row for row in read_metrics(folder)}
        missing = [run for run in wanted if run not in done]
        with tqdm(total=len(wanted) * self.marks[-1], unit="step", desc=self.name) as bar:
            bar.update((len(wanted) - len(missing)) * self.marks[-1])
            for row in run_jobs(job.train, missing, context.workers, bar.update):
                record_metrics(folder, **row)
                done[row["init"], row["seed"]] = row
        return self._summarize(folder / "record", [done[init, seed] for init in job.inits for seed in seeds])

    def _job(self, folder: Path, context: Context) -> "_Job":
        check_counts(seeds=self.seeds, batch_size=self.batch_size, latent_dim=self.latent_dim)
        check_counts(test_images=self.test_images, samples=self.samples)
        check_marks(self.marks)
        check_marks(self.sample_marks, "sample_marks")
        if self.sample_marks[-1] > self.marks[-1]:
            raise ValueError(
                f"samples cannot be drawn at step {self.sample_marks[-1]}, for training ends at {self.marks[-1]}: "
                "lower sample_marks, or add to marks"
            )
        kernels = learned_kernels(context.out / need for need in self.needs)
        inits = self.inits + (FROM_KERNELS if kernels else ())
        check_inits(inits, self.priors, kernels)
        images = binarize(context.images(self.data, "train").to(context.device)[0])
        if tuple(images.shape[1:]) != ImageVAE.image_shape:
            raise ValueError(f"the VAE takes images {ImageVAE.image_shape}; {self.data} has {tuple(images.shape[1:])}")
        test = binarize(thin(context.images(self.data, "test").to(context.device)[0], self.test_images))
        return _Job(self, folder, images, test, kernels, inits)

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        inits = dict.fromkeys(row["init"] for row in rows)
        found = {init: torch.tensor([row["elbo"] for row in rows if row["init"] == init]) for init in inits}
        table = [self._table_row(init, column, found) for init in inits for column in range(len(self.marks))]
        flat = [
            {"init": row["init"], "seed": row["seed"], "step": step, "elbo": value}
            for row in rows
            for step, value in zip(self.marks, row["elbo"], strict=True)
        ]
        write_table(record / f"{self.name}.csv", table)
        write_table(record / f"{self.name}_runs.csv", flat)
        print_table([row for row in table if row["step"] in (self.marks[0], *self.sample_marks, self.marks[-1])])
        return {"table": table}

    def _table_row(self, init: str, column: int, found: dict[str, Tensor]) -> dict[str, Any]:
        values = found[init][:, column]
        row: dict[str, Any] = {"init": init, "step": self.marks[column], "elbo": round(values.mean().item(), 3)}
        row["sd"] = round(values.std().item(), 3) if len(values) > 1 else ""
        for label, baseline in (("xavier", XAVIER), ("kaiming", KAIMING)):
            if baseline in found:
                over = values - found[baseline][:, column]
                row[f"over_{label}"] = round(over.mean().item(), 3)
                row[f"over_{label}_sd"] = round(over.std().item(), 3) if len(values) > 1 else ""
        return row | {"seeds": len(values)}


@dataclass(frozen=True)
class _Job:
    stage: VAEConverge
    folder: Path
    images: Tensor
    test: Tensor
    kernels: dict[int, Tensor]
    inits: tuple[str, ...]

    def train(self, run: tuple[str, int], progress: Progress) -> dict[str, Any]:
        """Trains one VAE; returns its ELBOs in nats per image."""
        (init, seed), stage, images = run, self.stage, self.images
        torch.manual_seed(seed)
        vae = ImageVAE(stage.latent_dim)
        initialize_(vae, init, seed, stage.priors, self.kernels, stage.layers)
        vae = vae.to(images.device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(vae.parameters(), lr=stage.lr)
        generator = torch.Generator().manual_seed(seed)
        needed = stage.marks[-1] * stage.batch_size
        order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(-(-needed // len(images)))])
        found, samples = [], {}
        for step, batch in enumerate(order[:needed].split(stage.batch_size), start=1):
            loss = -vae.elbo(images[batch.to(images.device)], generator).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(1)
            if step in stage.marks:
                found.append(round(self._test_elbo(vae), 3))
                if not math.isfinite(found[-1]):
                    raise ValueError(f"the VAE of seed {seed} from {init} diverged by step {step}; lower lr={stage.lr}")
            if step in stage.sample_marks:
                samples[str(step)] = vae.sample(stage.samples, torch.Generator().manual_seed(0))
        if seed == stage.first_seed:
            pixels = {step: (255 * value.cpu()).round().byte().contiguous() for step, value in samples.items()}
            write_bytes(samples_file(self.folder, init), save(pixels))
        return {"init": init, "seed": seed, "elbo": found}

    @torch.no_grad()
    def _test_elbo(self, vae: ImageVAE) -> float:
        generator = torch.Generator().manual_seed(1)
        return torch.cat([vae.elbo(part, generator) for part in self.test.split(250)]).mean().item()


def samples_file(folder: Path, init: str) -> Path:
    """Where the samples from an initialisation lie, uint8 ``(n, 1, 28, 28)`` by step."""
    return folder / f"samples-{re.sub(r'[^a-z0-9]+', '-', init.lower())}.safetensors"


@dataclass(frozen=True)
class SampleGrid(Stage):
    """Draws the samples of a :class:`VAEConverge` stage side by side, as in Fig. 7; records ``<name>.png``.

    Args:
        needs: That stage.
        name: Of the record.
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
