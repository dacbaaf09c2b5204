"""The command line: ``fit`` and ``evaluate``; ``run`` and ``list`` are asked in test_recipes."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dwp_init import Gaussian, KernelVAE, load_prior, save_prior
from training.__main__ import ACTIONS, main
from training.arguments import parse
from training.engine.records import read_done
from training.fits.base import FITS
from training.fits.evaluate import best_scale
from training.fits.score import SMOKE, score
from training.fits.statistics import compare, describe
from training.kernels.kernelset import KernelSet


def kernels(n: int, seed: int, *shape: int) -> Tensor:
    """Kernels with a covariance and a mean."""
    shape, generator = shape or (1, 3, 3), torch.Generator().manual_seed(seed)
    mix = torch.randn(2, math.prod(shape), math.prod(shape), generator=torch.Generator().manual_seed(9))[1]
    return (0.1 + 0.1 * torch.randn(n, math.prod(shape), generator=generator) @ mix).view(n, *shape)


FAMILIES = sorted(FITS.keys() - {"mixture-by-depth"})


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "mine.npy", kernels(100, 0)[:, 0].numpy())
    return tmp_path / "mine.npy"


def fit(path: Path, out: Path, *words: str) -> int:
    return main(["fit", "--kernels", str(path), "--out", str(out), "--smoke", "--device", "cpu", *words])


@pytest.mark.parametrize("shape", [(3, 3), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_command_line_fits_kernels_of_ones_own(
    family: str, shape: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kernel_file = tmp_path / "mine.npy"
    np.save(kernel_file, kernels(100, 0, *shape).numpy())
    assert fit(kernel_file, tmp_path / "out", "--family", family) == 0
    prior = load_prior(tmp_path / "out" / "fit" / "prior")
    kernel_shape = shape if len(shape) == 3 else (1, *shape)
    assert prior.family == family and prior.kernel_shape == kernel_shape and prior.details["name"] == "out"
    assert prior.sample(3).shape == (3, *kernel_shape)
    assert prior.details["source"]["file"] == "mine.npy"
    assert prior.details["fit"].get("epochs", 2) == 2
    metrics = read_done(tmp_path / "out" / "fit")["metrics"]
    shown = capsys.readouterr().out
    assert (
        f"log p of held-out kernels: {metrics['log_prob']} nats, of a Gaussian {metrics['gaussian_log_prob']}" in shown
    )
    assert f"prior={str(tmp_path / 'out' / 'fit' / 'prior')!r}" in shown
    assert fit(kernel_file, tmp_path / "out", "--family", family) == 0
    assert "fit: finished earlier, reused" in capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_kernels_of_two_channels_are_enough(family: str, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", kernels(10, 0, 2, 3, 3).numpy())
    words = [] if family == "mixture" else ["--family", family]  # which is the default
    assert fit(tmp_path / "few.npy", tmp_path / "out", "--name", "few", *words) == 0
    prior = load_prior(tmp_path / "out" / "fit" / "prior")
    assert prior.family == family
    assert prior.kernel_shape == (2, 3, 3) and prior.details["name"] == "few"
    assert prior.details["metrics"]["kernels"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit.epochs=3"],
            "stage 'fit' has no field 'epochs'; its fields are name, seed, components, shrinkages, scales, restarts",
        ),
        (["fit.family=flow"], "stage 'fit' has no field 'family'"),
        (["fit.components=0"], "components must be a whole number from 1 to 1048576; got 0"),
        (["fit.components=100"], "100 components need as many kernels to fit; there are 80: lower components=(100,)"),
        (["fit.scales=1,-1"], "scales must be a number above 0"),
        (
            ["--family", "vae", "fit.depth=3"],
            "stage 'fit' has no field 'depth'; its fields are name, seed, epochs, batch_size, lr, jitter",
        ),
        (["--family", "vae", "fit.network=flow"], "network must be one of 'dense', 'paper'; got 'flow'"),
        (["--family", "vae", "fit.hidden=0"], "hidden must be a whole number from 1 to 1048576; got 0"),
        (["--family", "vae", "fit.epochs=0"], "epochs must be 1 or more; got 0"),
        (["kernels.held_out=0.7"], "held_out, for validation and again for the test, must lie in (0, 0.5); got 0.7"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
    ],
)
def test_command_line_errors_can_be_mended(
    words: list[str], message: str, kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(kernel_file, tmp_path / "out", *words) == 1
    shown = capsys.readouterr().err
    assert message in next(line for line in shown.splitlines() if line.startswith("error: "))
    assert "Traceback" not in shown
    assert fit(kernel_file, tmp_path / "out", "--family", "gaussian") == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no kernel file"),
        (np.full((20, 3, 3), np.nan), "20 of 20 kernels of"),
        (np.zeros((20, 3, 3)), "the 16 kernels are all equal"),
        (np.zeros((20, 3)), "has shape (20, 3)"),
    ],
)
def test_command_line_errors_of_the_file(
    values: np.ndarray | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if values is not None:
        np.save(tmp_path / "mine.npy", values)
    assert fit(tmp_path / "mine.npy", tmp_path / "out") == 1
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1].startswith("error: ") and message in shown and "Traceback" not in shown


def test_other_kernels_under_the_same_folder_are_refused(
    kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert fit(kernel_file, tmp_path / "out", "--family", "gaussian") == 0
    np.save(kernel_file, kernels(100, 1)[:, 0].numpy())
    assert fit(kernel_file, tmp_path / "out", "--family", "gaussian") == 1
    assert "settings.sha256 is" in capsys.readouterr().err


def test_without_its_library_a_family_says_what_to_install(
    kernel_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    assert fit(kernel_file, tmp_path / "out", "--family", "flow") == 1
    assert "pip install zuko" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def priors(tmp_path: Path) -> dict[str, str]:
    """Folders of a Gaussian and of a VAE of 3×3 kernels, and of a Gaussian of 5×5 ones."""
    torch.manual_seed(0)
    made = {
        "gaussian": Gaussian((1, 3, 3)).fit_(kernels(300, 0)),
        "vae": KernelVAE((1, 3, 3), latent_dim=2, hidden=8),
        "large": Gaussian((1, 5, 5)).fit_(kernels(300, 0, 1, 5, 5)),
    }
    return {name: str(save_prior(prior, tmp_path / name)) for name, prior in made.items()}


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The file of a finished kernels stage."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    KernelSet(kernels(200, 1), kernels(20, 2), kernels(90, 3), torch.zeros(90)).save(folder)
    (folder / "done.json").write_text('{"made_with": {}}')
    return folder / "kernels.safetensors"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """Reads a printed table by its columns, which start under their titles."""
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    titles = ["prior", *(title for title in lines[0].split("  ") if title.strip() and title.strip() != "prior")]
    starts = [lines[0].index(title.strip()) for title in titles]
    ends = [*starts[1:], None]
    rows = [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]
    return {title.strip(): {row[0]: row[i] for row in rows[1:]} for i, title in enumerate(titles) if i}


def test_priors_are_compared_in_one_table(
    priors: dict[str, str], stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = [priors["gaussian"], priors["vae"]]
    out = tmp_path / "new" / "table.csv"
    assert (
        main(
            [
                "evaluate",
                "--prior",
                names[0],
                "--prior",
                names[1],
                "--kernels",
                str(stage),
                "--out",
                str(out),
                "--smoke",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    with out.open(newline="") as file:
        rows = {row.pop("prior"): row for row in csv.DictReader(file)}
    assert list(rows) == ["(the kernels)", names[0], names[1], f"{names[1]}, noise=False"]
    assert read_table(shown) == rows and f"wrote {out}" in shown
    real, gaussian, vae, mean = rows.values()
    train, test = kernels(200, 1), kernels(90, 3)
    assert float(real["rms"]) == pytest.approx(describe(test)["rms"], rel=1e-3)
    assert float(real["coverage"]) == pytest.approx(compare(train, train, test)["coverage"], rel=1e-3)
    for row, name in ((gaussian, names[0]), (vae, names[1])):
        prior = load_prior(name)
        found = score(prior, test, SMOKE["samples"])[1]
        assert float(row["log_prob"]) == found["log_prob"] and row["kernels"] == "90"
        assert row["kind"] == found["kind"] and row["elbo"] == str(found.get("elbo", ""))
        assert float(row["bytes"]) == sum(value.nbytes for value in prior.state_dict().values())
        assert float(row["seconds_per_100000"]) > 0
        assert float(row["fidelity_real"]) == pytest.approx(float(real["fidelity"]), rel=1e-3)
    assert gaussian["kind"] == "exact" and vae["kind"] == "bound"
    assert mean["log_prob"] == real["log_prob"] == real["bytes"] == ""
    assert float(mean["rms"]) < float(vae["rms"]) and float(mean["seconds_per_100000"]) > 0


def test_priors_are_compared_on_a_plain_file(
    priors: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "mine.npy", kernels(80, 5)[:, 0].numpy())
    words = ["evaluate", "--prior", priors["gaussian"], "--kernels", str(tmp_path / "mine.npy")]
    assert main(words) == 0
    table = read_table(capsys.readouterr().out)
    assert list(table) == ["(the kernels)", priors["gaussian"]]
    assert table[priors["gaussian"]]["kernels"] == table[priors["gaussian"]]["tested"] == "40"
    assert main([*words, "--out", str(tmp_path)]) == 1
    assert f"--out is the file of a table, such as {tmp_path / 'scores.csv'}" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.csv"))


def test_shapes_alone_are_compared(priors: dict[str, str], stage: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "--prior", priors["gaussian"], "--kernels", str(stage), "--scale", "best"]) == 0
    found = float(read_table(capsys.readouterr().out)[priors["gaussian"]]["scale"])
    assert found == pytest.approx(best_scale(load_prior(priors["gaussian"]), kernels(200, 1)), rel=1e-3)


def test_a_prior_is_not_judged_by_the_kernels_that_it_was_fitted_to(
    kernel_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, out = kernel_file, tmp_path / "out"
    assert fit(file, out, "--family", "gaussian") == 0
    mine = str(out / "fit" / "prior")
    assert main(["evaluate", "--prior", mine, "--kernels", str(file)]) == 1
    assert f"{mine!r} was fitted to {file}, so it cannot be evaluated on it" in capsys.readouterr().err
    assert main(["evaluate", "--prior", mine, "--kernels", str(out / "kernels" / "kernels.safetensors")]) == 0


def test_a_vae_has_a_thousand_latents_per_kernel(
    priors: dict[str, str], stage: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["evaluate", "--prior", priors["vae"], "--kernels", str(stage)]) == 0
    found = score(load_prior(priors["vae"]), kernels(90, 3), 1000)[1]
    assert float(read_table(capsys.readouterr().out)[priors["vae"]]["log_prob"]) == found["log_prob"]


@pytest.mark.parametrize(
    ("prior", "file", "message"),
    [
        ("{large}", "{stage}", "large' is a prior over (1, 5, 5) kernels, the file holds (1, 3, 3)"),
        (
            "{gaussian}",
            "{stage}.npy",
            "kernels.safetensors.npy; give a .npy or .safetensors file with kernels (n, k, k)",
        ),
        ("{gaussian}", "{tmp}", "no kernel file "),
        ("{gaussian}", "{folder}", "; did you mean "),
        ("{gaussian}", "{bad}", "bad.npy has shape (20, 9); kernels have shape (n, k, k)"),
        ("nope", "{stage}", "no prior and no folder is called 'nope'; there are audio, "),
        ("runs/nope", "{stage}", "'runs/nope' is not a folder here"),
        ("{tmp}", "{stage}", "config.json does not exist; a prior's folder holds"),
    ],
)
def test_priors_and_kernels_that_cannot_be_compared(
    prior: str,
    file: str,
    message: str,
    priors: dict[str, str],
    stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # as a client waits for a Hub that is away
    np.save(tmp_path / "bad.npy", np.zeros((20, 9)))
    places = priors | {
        "stage": str(stage),
        "folder": str(stage.parent),
        "tmp": str(tmp_path),
        "bad": str(tmp_path / "bad.npy"),
    }
    words = ["--prior", priors["gaussian"], prior.format(**places), "--kernels", file.format(**places)]
    assert main(["evaluate", *words, "--out", str(tmp_path / "table.csv"), "--smoke"]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and message in shown.err and shown.err.count("\n") == 1
    assert not shown.out and not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize("words", [["--prior", "a"], ["--kernels", "a"], ["--prior", "--kernels", "a"]])
def test_evaluate_needs_priors_and_kernels(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *words])
    assert stopped.value.code == 2 and "error: " in capsys.readouterr().err


def test_the_module_is_a_program() -> None:
    command = [sys.executable, "-m", "training", "evaluate", "--prior", "nope", "--kernels", "nope.npy"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: no prior and no folder is called 'nope'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "interrupted\n"),
        (["run", "fig2a_mnist", "--smoke"], "interrupted; run the same command again to resume\n"),
    ],
)
def test_ctrl_c_ends_without_a_traceback(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.__main__.run_stages", interrupt)
    monkeypatch.setattr("training.recipes.summary", interrupt)
    assert main(words) == 130
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("command", ACTIONS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith(f"usage: python -m training {command}")


def test_settings_may_follow_the_stages_that_only_names(capsys: pytest.CaptureFixture) -> None:
    found = parse(["run", "fig3a", "a.steps=2", "--only", "a", "b.starts=own, other draws", "--only", "c"])
    assert found.settings == ["a.steps=2", "b.starts=own, other draws"] and found.only == ["a", "c"]
    with pytest.raises(SystemExit):
        parse(["run", "fig3a", "--only", "a.steps=2"])
    assert "--only: expected at least one stage; got settings alone: a.steps=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["nope"], ["list", "fit.epochs=3"], ["evaluate", "--prior", "a", "--nope"], ["run", "--nope"]]
)
def test_a_command_line_that_is_not_understood(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and "error: " in capsys.readouterr().err
