"""Importing the paper's released checkpoints, against the networks written out as Appendix H.1 prints them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dwp_init
from training.__main__ import main
from training.fits.authors import UNSTATED, import_authors

State = dict[str, Any]


class Encoder(nn.Module):
    def __init__(self, size: int, z: int) -> None:
        super().__init__()
        if size == 7:
            layers = [nn.Conv2d(1, 32, 3), nn.ELU(), nn.Conv2d(32, 64, 3), nn.ELU(), nn.Conv2d(64, 64, 3), nn.ELU()]
            self.features, self.fc_mu, self.fc_var = nn.Sequential(*layers), nn.Conv2d(64, z, 1), nn.Conv2d(64, z, 1)
        else:
            layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ELU(), nn.Conv2d(64, 64, 3, padding=1), nn.ELU()]
            layers += [nn.Conv2d(64, 128, 3), nn.ELU(), nn.Conv2d(128, 128, 3), nn.ELU()]
            self.features = nn.Sequential(*layers)
            self.fc_mu, self.fc_sigma = nn.Conv2d(128, z, 1), nn.Conv2d(128, z, 1)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features(w)
        raw = self.fc_var(hidden) if hasattr(self, "fc_var") else self.fc_sigma(hidden)
        return self.fc_mu(hidden), F.softplus(raw)


class Decoder(nn.Module):
    def __init__(self, size: int, z: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d
        if size == 7:
            self.decoder = nn.Sequential(up(z, 64, 3), nn.ELU(), up(64, 64, 3), nn.ELU(), up(64, 32, 3), nn.ELU())
            self.fc_mu, self.fc_var = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 1, 1)
        else:
            layers = [nn.Conv2d(z, 128, 1), nn.ELU(), up(128, 128, 3), nn.ELU()]
            layers += [up(128, 128, 3), nn.ELU(), nn.Conv2d(128, 64, 1), nn.ELU()]
            self.decoder = nn.Sequential(*layers)
            self.fc_mu, self.fc_var = nn.Sequential(nn.Conv2d(64, 1, 1)), nn.Sequential(nn.Conv2d(64, 1, 1))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.decoder(z)
        return self.fc_mu(hidden), F.softplus(self.fc_var(hidden))


class Released(nn.Module):
    """The released code's VAE: its names, and heads that give means and variances."""

    def __init__(self, size: int, z: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(size, z), Decoder(size, z)


@pytest.fixture(params=[(7, 2), (5, 4), (7, 3)], ids=str)
def released(request: pytest.FixtureRequest) -> tuple[int, int, Released]:
    torch.manual_seed(0)
    size, z = request.param
    return size, z, Released(size, z)


def saved(content: object, path: Path, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def one_name_for_a_head(state: State) -> State:
    """Returns a 5×5 VAE's state dict with the 7×7 one's names for the heads."""
    names = [name.replace("fc_sigma", "fc_var").replace("_mu.0.", "_mu.").replace("_var.0.", "_var.") for name in state]
    return dict(zip(names, state.values(), strict=True))


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 300},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "parameters": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    "double": lambda state: {name: value.double() for name, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_prior_is_the_vae(released: tuple[int, int, Released], wrapping: str, tmp_path: Path) -> None:
    size, z_dim, vae = released
    path = saved(WRAPPINGS[wrapping](vae.state_dict()), tmp_path / "vae_params.torch")
    prior = dwp_init.load_prior(import_authors(path, size, tmp_path / "prior"))
    assert prior.kernel_shape == (1, size, size) and prior.latent_dim == z_dim
    z, w = torch.randn(9, z_dim), torch.randn(9, 1, size, size)
    pairs = [(prior.decode(z), vae.decoder(z[..., None, None])), (prior.encode(w.flatten(1)), vae.encoder(w))]
    for normal, (mean, variance) in pairs:
        torch.testing.assert_close(normal.loc, mean.flatten(1))
        torch.testing.assert_close(normal.scale.square(), variance.flatten(1))
    mean = prior.sample(9, torch.Generator().manual_seed(1), noise=False)
    z = torch.randn(9, z_dim, 1, 1, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean, vae.decoder(z)[0])


@pytest.mark.parametrize("new_format", [True, False])
def test_heads_of_either_name_and_files_of_either_format(new_format: bool, tmp_path: Path) -> None:
    state = one_name_for_a_head(Released(5, 4).state_dict())
    path = saved(state, tmp_path / "vae.torch", _use_new_zipfile_serialization=new_format)
    prior = dwp_init.load_prior(import_authors(path, 5, tmp_path / "prior"))
    assert torch.equal(prior.encoder.fc_var.weight, state["encoder.fc_var.weight"])
    assert torch.equal(prior.decoder.fc_mu.bias, state["decoder.fc_mu.bias"])


def test_a_variance_next_to_nothing_has_no_floor_to_speak_of(tmp_path: Path) -> None:
    vae = Released(7, 2)
    with torch.no_grad():
        vae.decoder.fc_var.bias.fill_(-18)
    path = saved(vae.state_dict(), tmp_path / "vae_params.torch")
    prior = dwp_init.load_prior(import_authors(path, 7, tmp_path / "prior"))
    z = torch.randn(9, 2)
    variance = vae.decoder(z[..., None, None])[1].flatten(1)
    assert variance.max() < 1e-7
    torch.testing.assert_close(prior.decode(z).scale.square(), variance, rtol=1e-3, atol=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(Released(7, 2).state_dict(), tmp_path / "vae_params.torch")
    out = tmp_path / "authors-7x7"
    assert main(["import-authors", str(path), "--kernel-size", "7", "--out", str(out)]) == 0
    assert f"the prior is in {out}; dwp_init.apply_(model, prior={str(out)!r})" in capsys.readouterr().out
    details = dwp_init.load_prior(out).details
    assert details["name"] == "authors-7x7" and details["license"] == UNSTATED
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"checkpoint": "the authors' released checkpoint", "file": "vae_params.torch", "sha256": sha256}
    assert details["source"] == source
    assert json.loads((out / "config.json").read_text())["arguments"]["whiten"] is False
    named = tmp_path / "named"
    words = ["--out", str(named), "--name", "theirs", "--license", "MIT"]
    assert main(["import-authors", str(path), "--kernel-size", "7", *words]) == 0
    details = dwp_init.load_prior(named).details
    assert (details["name"], details["license"]) == ("theirs", "MIT")
    report = dwp_init.apply_(nn.Conv2d(3, 4, 7), str(named))
    assert len(report.initialized) == 1


@pytest.mark.parametrize("variance", [1e-9, 1e-3, 50.0])
def test_the_one_variance_of_a_decoder(variance: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, vae = tmp_path / "vae_params.torch", Released(5, 4)
    saved(vae.state_dict(), path)
    words = ["import-authors", str(path), "--kernel-size", "5", "--out", str(tmp_path / "prior"), "--var"]
    for wrong in ("0", "nan", "inf"):
        assert main([*words, wrong]) == 1
        assert f"variance is a finite number above 1e-12; got {float(wrong)}" in capsys.readouterr().err
    assert main([*words, str(variance)]) == 0
    prior, z = dwp_init.load_prior(tmp_path / "prior"), torch.randn(9, 4)
    found = prior.decode(z)
    torch.testing.assert_close(found.scale.square(), torch.full((9, 25), variance), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.loc, vae.decoder(z[..., None, None])[0].flatten(1))
    assert prior.details["source"]["decoder_variance"] == variance


def test_a_prior_is_not_overwritten(tmp_path: Path) -> None:
    path = saved(Released(7, 2).state_dict(), tmp_path / "vae_params.torch")
    folder = import_authors(path, 7, tmp_path / "prior")
    with pytest.raises(FileExistsError, match=r"holds config\.json and model\.safetensors already; choose another"):
        import_authors(path, 7, folder)


def changed(**values: object) -> Callable[[State], object]:
    """Returns what sets entries of a state dict, ``encoder__fc_mu__bias=…``, or removes those set to ``None``."""
    entries = {name.replace("__", "."): value for name, value in values.items()}
    return lambda state: {k: v for k, v in (state | entries).items() if v is not None}


NAN = torch.tensor([0.0, torch.nan])
HUGE = torch.full((2,), 1e300, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    ("size", "change", "message"),
    [
        (3, changed(), r"for 7×7 and 5×5 kernels; got kernel_size=3"),
        (5, changed(), r"is for 7×7 kernels, not 5×5: pass --kernel-size 7"),
        (7, changed(encoder__fc_mu__bias=None), "tensors missing: encoder.fc_mu.bias; unknown: none; give the vae_p"),
        (7, changed(decoder__decoder__4__bias=None), "tensors missing: decoder.decoder.4.bias; unknown: none"),
        (7, changed(optimizer=NAN[:1]), "tensors missing: none; unknown: optimizer; give"),
        (7, lambda state: {"a": NAN[:1]}, r"missing: decoder\.decoder\.0\.bias, .*4\.weight; unknown: a; give"),
        (
            7,
            changed(encoder__fc_mu__weight=torch.zeros(3, 64, 1, 1)),
            r"encoder\.fc_mu\.bias of .* has shape \(2,\), expected \(3,\) as in .* 3 latent dimensions; other widths",
        ),
        (
            7,
            changed(decoder__decoder__0__weight=torch.zeros(4, 64, 3, 3)),
            r"decoder\.decoder\.0\.weight of .* has shape \(4, 64, 3, 3\), expected \(2, 64, 3, 3\) as in .* 7×7",
        ),
        (7, changed(encoder__fc_mu__weight=torch.zeros(())), r"encoder\.fc_mu\.weight of .* has shape \(\), expected"),
        (
            7,
            changed(encoder__fc_mu__weight=torch.zeros(0, 64, 1, 1)),
            r"encoder\.fc_mu\.weight of .* has shape \(0, 64, 1, 1\), expected \(1, 64, 1, 1\)",
        ),
        (7, changed(encoder__fc_mu__bias=NAN), "encoder.fc_mu.bias of .* has 1 NaN or, .* of 2; .*earlier epoch"),
        (7, changed(encoder__fc_mu__bias=HUGE), "encoder.fc_mu.bias of .* has 2 NaN or, in float32, infinite values"),
        (7, changed(encoder__fc_mu__bias=torch.zeros(2).int()), "is a torch.int32 tensor, expected a dense floating"),
        (7, changed(encoder__fc_mu__bias=torch.zeros(2).to_sparse()), "is a torch.float32 tensor, expected a dense"),
        (7, changed(encoder__fc_mu__bias=torch.zeros(2, device="meta")), "float32 tensor, expected a dense .* memory"),
        (7, changed(epoch=3), "epoch of .* is a int, expected a dense floating-point one .*save the VAE's state_dict"),
        (7, changed(encoder__fc_sigma__bias=NAN[:1]), "holds encoder.fc_sigma.bias and the same layer under another"),
        (7, lambda state: {}, "holds nothing, expected tensors by name; give a state_dict"),
        (7, lambda state: [*state.values()], "holds a list, expected tensors by name"),
        (7, lambda state: NAN, "holds a Tensor, expected tensors by name"),
        (7, lambda state: nn.Conv2d(1, 1, 3), r"cannot be read as tensors alone \(.*other pickled objects are refused"),
        (7, lambda state: {"state_dict": state, "path": Path()}, "cannot be read as tensors alone"),
    ],
)  # fmt: skip
def test_helpful_errors(size: int, change: Callable[[State], object], message: str, tmp_path: Path) -> None:
    path = saved(change(Released(7, 2).state_dict()), tmp_path / "vae_params.torch")
    with pytest.raises(ValueError, match=message):
        import_authors(path, size, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


@pytest.mark.parametrize("content", [b"", b"not a torch file", b"PK\x03\x04 cut short", b"\x80\x02."])
def test_no_torch_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "vae_params.torch").write_bytes(content)
    with pytest.raises(ValueError, match=r"vae_params\.torch cannot be read as tensors alone .* give a state_dict"):
        import_authors(tmp_path / "vae_params.torch", 7, tmp_path / "prior")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*; give the vae_params\.torch"):
        import_authors(tmp_path, 7, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()
