"""How fast a network trains from each initialisation (Section 4.3, Fig. 4b): paired seeds, one table, one figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import dwp_init
from dwp_init.layers import he_rms
from training.evaluate import bundled_digests, write_table
from training.figures import plot_convergence
from training.kernels import KernelSet
from training.networks import MNISTNet
from training.sources import accuracy
from training.stages import Context, Stage, check_counts, read_metrics, record_metrics
from training.workers import Progress, run_jobs

BASELINE = "Kaiming"


@dataclass(frozen=True)
class Converge(Stage):
    """Trains the paper's MNIST network from each initialisation, with the same data order, biases and classifier.

    Args:
        needs: The stages with the learned kernels of both layers.
        data: Name of the data set.
        priors: The priors of the two layers.
        paper_priors: The same with the paper's VAE.
        filters: Channels of the two convolutions.
        seeds: Number of paired runs.
        batch_size: Images per step.
        lr: Learning rate of Adam, constant.
        marks: Steps at which the test accuracy is measured; training ends at the last.
    """

    needs: tuple[str, ...] = ("kernels_7x7", "kernels_5x5", "gaussian_7x7", "gaussian_5x5")
    data: str = "mnist"
    priors: tuple[str, str] = ("notmnist-7x7", "notmnist-5x5")
    paper_priors: tuple[str, str] = ("notmnist-7x7-h1", "notmnist-5x5-h1")
    filters: tuple[int, int] = (32, 128)
    seeds: int = 8
    batch_size: int = 128
    lr: float = 1e-3
    marks: tuple[int, ...] = (10, 25, 50, 80, 120, 200, 300)

    def data_sets(self) -> tuple[str, ...]:
        return (self.data,)

    def other_inputs(self) -> dict[str, Any]:
        return bundled_digests(*self.priors, *self.paper_priors)

    def run(self, folder: Path, context: Context) -> dict[str, Any]:
        check_counts(seeds=self.seeds, batch_size=self.batch_size)
        if self.marks[0] < 1 or list(self.marks) != sorted(set(self.marks)):
            raise ValueError(f"marks must be steps from 1 up, each once and in order; got {self.marks}")
        done = {(row["init"], row["seed"]): row for row in read_metrics(folder)}
        runs = [(init, seed) for seed in range(self.seeds) for init in INITS if (init, seed) not in done]
        job = _Job(
            self,
            context.images(self.data, "train").to(context.device),
            context.images(self.data, "test").to(context.device),
            {k: KernelSet.load(context.out / need).train for k, need in zip((7, 5), self.needs, strict=False)},
            tuple(context.out / need / "prior" for need in self.needs[2:]),
        )
        with tqdm(total=len(INITS) * self.seeds * self.marks[-1], unit="step", desc="converge") as bar:
            bar.update(len(done) * self.marks[-1])
            for row in run_jobs(job.train, runs, context.workers, bar.update):
                record_metrics(folder, **row)
                done[row["init"], row["seed"]] = row
        rows = [done[init, seed] for init in INITS for seed in range(self.seeds)]
        return self._summarize(folder / "record", rows)

    def _summarize(self, record: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
        found = {init: torch.tensor([row["accuracy"] for row in rows if row["init"] == init]) for init in INITS}
        table, base = [], found[BASELINE]
        for init, values in found.items():
            for column, step in enumerate(self.marks):
                over = (values - base)[:, column]
                table.append(
                    {
                        "init": init,
                        "step": step,
                        "accuracy": round(values[:, column].mean().item(), 3),
                        "sd": round(values[:, column].std().item(), 3) if self.seeds > 1 else "",
                        "over_kaiming": round(over.mean().item(), 3),
                        "over_kaiming_sd": round(over.std().item(), 3) if self.seeds > 1 else "",
                        "seeds_ahead": int((over > 0).sum()),
                        "seeds": self.seeds,
                    }
                )
        flat = [
            {"init": row["init"], "seed": row["seed"], "step": step, "accuracy": value}
            for row in rows
            for step, value in zip(self.marks, row["accuracy"], strict=True)
        ]
        write_table(record / "converge_mnist.csv", table)
        write_table(record / "converge_mnist_runs.csv", flat)
        plot_convergence(found, self.marks, record / "converge_mnist.png")
        for row in table:
            print(
                f"  {row['init']:32} step {row['step']:4}  {row['accuracy']:6.2f} %  {row['over_kaiming']:+.2f}", end=""
            )
            print(f"  ahead in {row['seeds_ahead']} of {row['seeds']}")
        return {"table": table}


INITS = (
    "PyTorch default",
    "Xavier",
    BASELINE,
    "white noise, dwp's RMS",
    "white noise, prior's scale",
    "Gaussian prior",
    "paper's VAE",
    "dwp",
    "dwp, decoder mean",
    "dwp, prior's scale",
    "dwp, decoder mean, prior's scale",
    "learned kernels, He's RMS",
    "learned kernels, own scale",
)


@dataclass(frozen=True)
class _Job:
    stage: Converge
    train_data: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    kernels: dict[int, Tensor]
    gaussians: tuple[Path, Path]

    def train(self, run: tuple[str, int], progress: Progress) -> dict[str, Any]:
        """Trains one network; returns its accuracies in %."""
        init, seed = run
        stage, (images, labels) = self.stage, self.train_data
        torch.manual_seed(seed)
        network = MNISTNet(stage.filters)
        self._initialize_(network, init, seed)
        network = network.to(images.device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=stage.lr)
        generator = torch.Generator().manual_seed(seed)
        needed = stage.marks[-1] * stage.batch_size
        order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(-(-needed // len(images)))])
        found = []
        for step in range(1, stage.marks[-1] + 1):
            batch = order[(step - 1) * stage.batch_size : step * stage.batch_size].to(images.device)
            logits = network(images[batch].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(1)
            if step in stage.marks:
                found.append(round(100 * accuracy(network, *self.test), 3))
        return {"init": init, "seed": seed, "accuracy": found}

    def _initialize_(self, network: MNISTNet, init: str, seed: int) -> None:
        generator = torch.Generator().manual_seed((5000 if init.startswith("white noise") else 1000) + seed)
        priors = list(self.stage.priors)
        scale = "prior" if "scale" in init else "fan_in"
        if init.startswith("dwp"):
            dwp_init.apply_(network, priors, seed=seed, scale=scale, noise="mean" not in init)
        elif init == "paper's VAE":
            dwp_init.apply_(network, list(self.stage.paper_priors), seed=seed)
        elif init == "Gaussian prior":
            dwp_init.apply_(network, list(self.gaussians), seed=seed)
        elif init.startswith("white noise"):
            dwp_init.apply_(network, priors, seed=seed, scale=scale)
        for layer in (network.features.conv1, network.features.conv2):
            with torch.no_grad():
                self._fill_(layer, init, generator)

    def _fill_(self, layer: nn.Conv2d, init: str, generator: torch.Generator) -> None:
        weight = layer.weight
        if init == "Xavier":
            nn.init.xavier_normal_(weight, generator=generator)
        elif init == BASELINE:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        elif init.startswith("white noise"):
            weight.copy_(torch.randn(weight.shape, generator=generator) * weight.square().mean().sqrt())
        elif init.startswith("learned kernels"):
            kernels = self.kernels[layer.kernel_size[0]]
            picked = torch.randint(len(kernels), (weight[:, :, 0, 0].numel(),), generator=generator)
            drawn = kernels[picked].reshape(weight.shape)
            own = "own" in init
            weight.copy_(drawn if own else drawn * he_rms(layer) / drawn.square().mean().sqrt())
