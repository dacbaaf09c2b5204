from pathlib import Path

import pytest
import torch

from dwp_init import Gaussian, save_prior
from dwp_init.layers import he_rms
from training.converge import BASELINE, INITS, Converge, _Job
from training.networks import MNISTNet
from training.stages import Context, run_stages


@pytest.fixture
def job(tmp_path: Path) -> _Job:
    generator = torch.Generator().manual_seed(0)
    kernels = {k: torch.randn(50, 1, k, k, generator=generator) for k in (7, 5)}
    gaussians = tuple(save_prior(Gaussian((1, k, k)).fit_(kernels[k]), tmp_path / str(k)) for k in (7, 5))
    images, labels = torch.rand(40, 1, 28, 28, generator=generator), torch.arange(40) % 10
    stage = Converge(filters=(3, 4), batch_size=16, marks=(1, 3))
    return _Job(stage, (images, labels), (images, labels), kernels, gaussians)


def _network(job: _Job, init: str, seed: int = 0) -> MNISTNet:
    torch.manual_seed(seed)
    network = MNISTNet(job.stage.filters)
    job._initialize_(network, init, seed)
    return network


@pytest.mark.parametrize("init", INITS)
def test_runs_are_paired(job: _Job, init: str) -> None:
    """Only the two convolutions' weights differ between initialisations of one seed."""
    base, network = _network(job, "PyTorch default"), _network(job, init)
    for name, value in network.state_dict().items():
        same = torch.equal(value, base.state_dict()[name])
        assert same == (init == "PyTorch default" or not name.endswith(("conv1.weight", "conv2.weight")))
    again = _network(job, init)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_white_noise_has_the_scale_of_the_priors_draws(job: _Job) -> None:
    noise, dwp = _network(job, "white noise, dwp's RMS"), _network(job, "dwp")
    for name in ("conv1", "conv2"):
        scales = [getattr(n.features, name).weight.square().mean().sqrt().item() for n in (noise, dwp)]
        assert scales[0] == pytest.approx(scales[1], rel=0.15)
        assert scales[1] == pytest.approx(he_rms(getattr(dwp.features, name)), rel=1e-4)


def test_learned_kernels_are_drawn_from_the_set(job: _Job) -> None:
    own = _network(job, "learned kernels, own scale").features.conv2.weight.detach().reshape(-1, 25)
    known = job.kernels[5].reshape(-1, 25)
    assert all((known == kernel).all(1).any() for kernel in own)
    scaled = _network(job, "learned kernels, He's RMS").features.conv2
    assert scaled.weight.square().mean().sqrt().item() == pytest.approx(he_rms(scaled), rel=1e-4)


def test_a_run_reports_each_mark_and_is_reproducible(job: _Job) -> None:
    steps: list[int] = []
    row = job.train((BASELINE, 3), steps.append)
    assert sum(steps) == 3
    assert (row["init"], row["seed"], len(row["accuracy"])) == (BASELINE, 3, 2)
    assert row == job.train((BASELINE, 3), steps.append)


def test_the_summary_pairs_seeds(job: _Job, tmp_path: Path) -> None:
    rows = [
        {"init": init, "seed": seed, "accuracy": [10.0 * seed + (init == "dwp"), 50.0]}
        for init in INITS
        for seed in (0, 1)
    ]
    stage = Converge(seeds=2, marks=(1, 3))
    table = {(row["init"], row["step"]): row for row in stage._summarize(tmp_path, rows)["table"]}
    dwp = table["dwp", 1]
    assert (dwp["accuracy"], dwp["over_kaiming"], dwp["over_kaiming_sd"], dwp["seeds_ahead"]) == (6.0, 1.0, 0.0, 2)
    assert table[BASELINE, 1]["over_kaiming"] == 0
    assert table["dwp", 3]["seeds_ahead"] == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"converge_mnist.csv", "converge_mnist_runs.csv"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"marks": (4, 2)}, r"marks must be steps from 1 up, each once and in order; got \(4, 2\)"),
        ({"marks": (0, 2)}, "marks must be steps from 1 up"),
        ({"priors": ("notmnist-7x7", "notmnist-5")}, "no prior and no folder is called 'notmnist-5'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    stage = Converge(needs=(), **settings)
    with pytest.raises(ValueError, match=message):
        run_stages({"converge": stage}, Context(out=tmp_path, smoke=True))
