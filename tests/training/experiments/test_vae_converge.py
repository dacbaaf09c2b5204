import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from training.engine.run import run_stages
from training.engine.stage import Context, StageChangedError
from training.experiments.vae_converge import SampleGrid, VAEConverge, mean_elbo, samples_file
from training.images.sets import Images
from training.networks.image_vae import ImageVAE, binarize, kl_from_standard_normal
from training.starts.base import KAIMING
from training.starts.controls import XAVIER
from training.starts.learned import LEARNED_HE, LEARNED_OWN
from training.starts.priors import DWP

SMALL = VAEConverge(
    inits=(DWP, XAVIER, KAIMING),
    latent_dim=3,
    seeds=2,
    batch_size=8,
    marks=(1, 3),
    test_images=10,
    sample_marks=(2, 3),
    samples=4,
)


def _tiny(weight: Tensor, bias: Tensor) -> ImageVAE:
    """One latent z, logits ``weight · z + bias`` of three pixels, and a q(z|x) of the pixels' number."""
    vae = ImageVAE(1)
    vae.encoder, vae.loc, vae.log_scale, vae.decoder = nn.Flatten(), nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(1, 3)
    vae.decoder = nn.Sequential(vae.decoder, nn.Unflatten(1, (1, 1, 3)))
    with torch.no_grad():
        vae.decoder[0].weight.copy_(weight[:, None])
        vae.decoder[0].bias.copy_(bias)
        vae.loc.weight.fill_(0.4), vae.loc.bias.fill_(-0.3)
        vae.log_scale.weight.fill_(0.1), vae.log_scale.bias.fill_(-0.5)
    return vae.double()


BIAS, WEIGHT = torch.tensor([0.3, -1.0, 2.0]).double(), torch.tensor([1.5, -0.5, 0.7]).double()
PIXELS = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1.0])]).double()[:, None, None]  # (8, 1, 1, 3), all there are


def _log_prob_at(z: Tensor) -> Tensor:
    """log p(x|z) of all images at each z, ``(z, 8)``."""
    return Bernoulli(logits=z[:, None, None] * WEIGHT + BIAS).log_prob(PIXELS.flatten(1)).sum(2)


def test_the_elbo_is_log_p_where_the_image_tells_nothing_of_z() -> None:
    vae = _tiny(torch.zeros(3), BIAS)
    for layer in (vae.loc, vae.log_scale):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    expected = Bernoulli(logits=BIAS).log_prob(PIXELS.flatten(1)).sum(1)
    torch.testing.assert_close(vae.elbo(PIXELS, torch.Generator().manual_seed(0)), expected)
    assert expected.exp().sum().item() == pytest.approx(1)


def test_the_elbo_of_a_tiny_model_by_numerical_integration() -> None:
    vae, z = _tiny(WEIGHT, BIAS), torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    step = (z[1] - z[0]).item()
    loc, scale = (0.4 * PIXELS.flatten(1).sum(1) - 0.3, (0.1 * PIXELS.flatten(1).sum(1) - 0.5).exp())
    q, p = Normal(loc, scale), Normal(torch.zeros(8).double(), 1.0)
    density = q.log_prob(z[:, None].expand(-1, 8)).exp()
    elbo = (density * _log_prob_at(z)).sum(0) * step - kl_divergence(q, p)
    log_p = ((_log_prob_at(z) + p.log_prob(z[:, None].expand(-1, 8))).exp().sum(0) * step).log()
    with torch.no_grad():
        many = PIXELS.repeat(20_000, 1, 1, 1)
        found = vae.elbo(many, torch.Generator().manual_seed(0)).view(20_000, 8)
    error = found.std(0) / math.sqrt(20_000)
    assert ((found.mean(0) - elbo).abs() < 4 * error).all() and error.max() < 0.02
    assert (elbo < log_p).all() and log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_kl_against_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    loc, log_scale = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    expected = kl_divergence(Normal(loc, log_scale.exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_from_standard_normal(loc, log_scale), expected)
    assert kl_from_standard_normal(torch.zeros(4), torch.zeros(4)) == 0


def test_the_papers_layers() -> None:
    """The convolutions of Table 3, 28×28 in and out; its number of parameters lies between 77 and 78 latents."""
    counts = [sum(p.numel() for p in ImageVAE(latents).parameters()) for latents in (64, 77, 78)]
    assert counts == [1_422_465, 1_627_163, 1_642_909]
    vae, images = ImageVAE(5), torch.zeros(2, 1, 28, 28)
    assert [tuple(part.shape) for part in vae.encode(images)] == [(2, 5), (2, 5)]
    assert vae.elbo(images, torch.Generator().manual_seed(0)).shape == (2,)
    samples = vae.sample(3, torch.Generator().manual_seed(0))
    assert samples.shape == (3, 1, 28, 28) and samples.min() > 0 and samples.max() < 1
    assert torch.equal(samples, vae.sample(3, torch.Generator().manual_seed(0)))


def test_pixels_become_binary() -> None:
    grey = torch.tensor([0, 127, 128, 255]).float() / 255
    assert binarize(grey).tolist() == [0.0, 0.0, 1.0, 1.0] and binarize(grey).dtype == torch.float32


def test_runs_are_paired_and_reproducible(data: Any, tmp_path: Path) -> None:
    parts, steps = SMALL.parts(tmp_path, Context(tmp_path)), []
    (row,), again, other = (SMALL.train_one(parts, (init, 1), steps.append) for init in (XAVIER, XAVIER, DWP))
    assert sum(steps) == 9 and (row["init"], row["seed"], len(row["elbo"])) == (XAVIER, 1, 2)
    assert again == [row] != other
    assert not list(tmp_path.glob("*.safetensors"))
    assert all(-784 < value < -300 for value in row["elbo"])


def test_the_elbo_is_of_binary_test_images(data: Any, tmp_path: Path) -> None:
    parts = SMALL.parts(tmp_path, Context(tmp_path))
    assert parts.test[0].shape == (10, 1, 28, 28) and set(parts.test[0].unique().tolist()) == {0.0, 1.0}
    evenly = data["test"].to(torch.device("cpu"))[0][::3]
    assert torch.equal(parts.test[0], binarize(evenly))
    assert torch.equal(parts.train[0], binarize(data["train"].to(torch.device("cpu"))[0]))
    vae = ImageVAE(3)
    assert mean_elbo(vae, parts.test[0]) == mean_elbo(vae, parts.test[0]) < 0


def test_training_raises_the_elbo(data: dict[str, Images], tmp_path: Path) -> None:
    """Of one image over and over, to near 0, because it tells nothing."""
    image = torch.zeros(16, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 5:20, 10:14] = 255
    data["train"] = data["test"] = Images(image, torch.zeros(16).long(), {})
    stage = replace(SMALL, marks=(1, 60), sample_marks=(60,), batch_size=4)
    (row,) = stage.train_one(stage.parts(tmp_path, Context(tmp_path)), (DWP, 0), lambda _: None)
    first, last = row["elbo"]
    assert first < -300 and -30 < last < 0


def test_samples_of_the_first_seed_are_kept(data: Any, tmp_path: Path) -> None:
    folders = run_stages({"vae_converge": SMALL, "fig7": SampleGrid(name="fig7")}, Context(tmp_path))
    files = {init: load_file(samples_file(folders["vae_converge"], init)) for init in SMALL.inits}
    for file in files.values():
        assert file.keys() == {"2", "3"} and all(value.shape == (4, 1, 28, 28) for value in file.values())
        assert not torch.equal(file["2"], file["3"])
    assert not torch.equal(files[DWP]["3"], files[XAVIER]["3"])
    assert len(list(folders["vae_converge"].glob("samples-*"))) == len(SMALL.inits)
    assert [path.name for path in (folders["fig7"] / "record").iterdir()] == ["fig7.png"]


def test_a_grid_of_what_is_not_there(data: Any, tmp_path: Path) -> None:
    stages = {"vae_converge": replace(SMALL, inits=(DWP,), seeds=1), "fig7": SampleGrid()}
    with pytest.raises(ValueError, match="inits must be some of dwp; got dwp; Xavier"):
        run_stages(stages, Context(tmp_path))


def test_an_interrupted_stage_trains_what_is_missing(data: Any, resumed: Any, tmp_path: Path) -> None:
    first, then = resumed(SMALL, 4)
    assert first == [(init, seed) for seed in (0, 1) for init in SMALL.inits]
    assert then == [(init, 1) for init in SMALL.inits[1:]]
    with pytest.raises(StageChangedError, match=r"settings.latent_dim is 3 there, 4 now"):
        run_stages({"runs": replace(SMALL, latent_dim=4)}, Context(tmp_path))


def test_samples_that_are_damaged_are_drawn_again(data: Any, tmp_path: Path) -> None:
    folder = run_stages({"vae_converge": SMALL}, Context(tmp_path))["vae_converge"]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".jsonl", ".safetensors")}
    for damaged, content in ((samples_file(folder, DWP), b"!"), (samples_file(folder, XAVIER), None)):
        (folder / "done.json").unlink()
        damaged.write_bytes(content) if content else damaged.unlink()
        run_stages({"vae_converge": SMALL}, Context(tmp_path))
        assert {name: (folder / name).read_bytes() for name in before} == before


def test_learned_kernels_come_with_their_stages(data: Any, save_kernels: Any, tmp_path: Path) -> None:
    for k in (7, 5):
        save_kernels(tmp_path / f"kernels_{k}", k)
    stage = replace(SMALL, needs=("kernels_7", "kernels_5"), inits=(XAVIER,), seeds=1)
    (tmp_path / "vae").mkdir()
    table = stage.run(tmp_path / "vae", Context(tmp_path))["table"]
    assert [row["init"] for row in table[::2]] == [XAVIER, LEARNED_HE, LEARNED_OWN]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more; got 0"),
        ({"samples": 0}, "samples must be 1 or more; got 0"),
        ({"marks": (3, 1)}, r"marks must be steps from 1 up, each once and in order; got \(3, 1\)"),
        ({"marks": ()}, r"marks must be steps from 1 up, each once and in order; got \(\)"),
        ({"sample_marks": (0, 2)}, r"sample_marks must be steps from 1 up, each once and in order; got \(0, 2\)"),
        ({"sample_marks": (2, 4)}, "samples cannot be drawn at step 4, because training ends at 3: lower sample_marks"),
        ({"inits": ("He",)}, "each name must be one of a start, given once; got He; there are own; "),
        ({"inits": ("Xavier", "LSUV")}, "LSUV cannot be drawn from nothing: .* or leave them out"),
        ({"priors": ()}, "dwp cannot be drawn from nothing: name priors="),
        ({"layers": ("conv*",)}, r"1×1 matches \('conv\*',\); it has encoder.conv1, encoder.conv2"),
        ({"lr": 1e30}, r"the VAE of seed 0 from dwp diverged by step \d; lower lr=1e\+30"),
    ],
)
def test_helpful_errors(settings: dict[str, Any], message: str, data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages({"vae": replace(SMALL, **settings)}, Context(tmp_path))
    assert not (tmp_path / "vae" / "metrics.jsonl").exists()


def test_other_images_are_refused(data: dict[str, Images], make_images: Any, tmp_path: Path) -> None:
    data["train"] = make_images(10, 0, (3, 32, 32))
    with pytest.raises(ValueError, match=r"the VAE takes images \(1, 28, 28\); cifar10 has \(3, 32, 32\)"):
        run_stages({"vae": replace(SMALL, data="cifar10")}, Context(tmp_path))
