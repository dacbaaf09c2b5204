import dataclasses
import itertools
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dwp_init.registry import registry
from dwp_init.sets import SETS
from training import __main__ as command_line
from training import recipes
from training.__main__ import main
from training.arguments import OWN_IMAGES
from training.engine.records import read_done
from training.engine.stage import Stage
from training.experiments import costs as benchmarks
from training.fits.base import fitted_prior
from training.recipes import choose_family

RECIPES = [
    *(
        "apply_cost",
        "benchmark",
        "choose_family",
        "choose_few_labels",
        "converge_mnist",
        "decoding",
        "engine_cost",
        "estimators",
        "few_labels_augmented",
        "fig2a_chosen",
        "fig2a_mnist",
        "fig2b_cifar10",
        "fig3a",
        "fig3b",
        "fig4a",
        "fig4b",
        "fig4c",
        "fig5_gaussian",
    ),
    *(
        "fig7",
        "frozen_readout",
        "inference_step",
        "joint_stem",
        "prior_domains",
        "prior_natural",
        "prior_natural_stem",
        "prior_notmnist_5x5",
        "prior_notmnist_7x7",
        "prior_tinyimagenet",
        "public_models",
        "response_rho",
        "source_throughput",
        "table1_gap",
        "unseen_networks",
    ),
]


FOLDERS = (
    "benchmark",
    "benchmarks",
    "cifar10",
    "domains",
    "few_labels",
    "figures",
    "frozen_readout",
    "natural",
    "natural_stem",
    "notmnist",
    "public_models",
    "scale",
    "tinyimagenet",
)


def test_these_are_all_recipes(capsys: pytest.CaptureFixture) -> None:
    assert recipes.names() == RECIPES
    assert [name for name in RECIPES if hasattr(recipes.load(name), "DATA")] == list(OWN_IMAGES)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == RECIPES
    assert all(recipes.summary(name) in line for name, line in zip(RECIPES, lines, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_whole(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.FOLDER in FOLDERS
    assert 20 < len(recipes.summary(name)) <= 120 and f"python -m training run {name}" in recipe.__doc__
    full, small = (recipe.stages(smoke=smoke) for smoke in (False, True))
    assert full.keys() == small.keys() and recipe.stages() == full and full != small
    seen: set[str] = set()
    for stage_name, stage in full.items():
        assert dataclasses.is_dataclass(stage) and set(stage.needs) <= seen
        assert type(stage) is type(small[stage_name])
        seen.add(stage_name)
    assert set(getattr(recipe, "PRIORS", {}).values()) <= seen
    for prior, stage_name in getattr(recipe, "PRIORS", {}).items():
        assert full[stage_name].name == small[stage_name].name == prior


def test_recipes_that_share_a_folder_share_its_stages() -> None:
    """Else one recipe would refuse what the other made."""
    for smoke in (False, True):
        found: dict[tuple[str, str], Stage] = {}
        for name in RECIPES:
            for stage_name, stage in recipes.load(name).stages(smoke=smoke).items():
                assert found.setdefault((recipes.load(name).FOLDER, stage_name), stage) == stage


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the recipes that share theirs, under its name."""
    return tmp_path_factory.mktemp("runs")


def smoke(name: str, out: Path, *words: str) -> int:
    return main(["run", name, "--smoke", "--device", "cpu", "--out", str(out), *words])


OF_SETS = {"fig3b": "natural-v1", "fig4c": "natural-v1", "public_models": "natural", "response_rho": "natural-v1"}
BUNDLED = {"apply_cost": itertools.chain(*benchmarks.PAIRS), "converge_mnist": ("notmnist-7x7", "notmnist-5x5")}
BUNDLED |= dict.fromkeys(("fig3a", "fig4a", "fig4b", "fig7"), ("notmnist-7x7", "notmnist-5x5"))
BUNDLED |= {key: [like for _, like in SETS[name]] for key, name in OF_SETS.items()}


@pytest.mark.parametrize("name", ["prior_notmnist_7x7", *(name for name in RECIPES if name != "prior_notmnist_7x7")])
def test_smoke(name: str, runs: Path, capsys: pytest.CaptureFixture) -> None:
    """Runs to the end, reuses what an earlier recipe made, and leaves the results of record alone."""
    missing = set(BUNDLED.get(name, ())) - set(registry())
    if missing:
        pytest.skip(f"needs the bundled priors {', '.join(sorted(missing))}")
    if name == "engine_cost" and (sys.platform != "linux" or find_spec("ray") is None):
        pytest.skip("starts a cluster of Ray")
    out = runs / recipes.load(name).FOLDER
    results = contents(command_line.RESULTS)
    made = {path.parent.name for path in out.glob("*/done.json")}
    assert smoke(name, out) == 0
    shown = capsys.readouterr().out
    for stage in recipes.load(name).stages(smoke=True):
        assert (f"{stage}: finished earlier, reused" in shown) == (stage in made)
        assert read_done(out / stage)["made_with"]["smoke"]
    assert contents(command_line.RESULTS) == results and "recorded" not in shown
    assert smoke(name, out) == 0
    assert capsys.readouterr().out.count("reused") == len(recipes.load(name).stages(smoke=True))


def finished(name: str, runs: Path) -> Path:
    """The folder of a recipe's stages, run if that was not done yet."""
    out = runs / recipes.load(name).FOLDER
    assert smoke(name, out) == 0
    return out


@pytest.mark.parametrize("size", ["7x7", "5x5"])
def test_the_priors_of_a_kernel_size_stand_side_by_side(size: str, runs: Path) -> None:
    out = finished(f"prior_notmnist_{size}", runs)
    kernels = read_done(out / f"kernels_{size}")
    assert kernels["source"]["synthetic"] and kernels["source"]["held_out_networks"] == {"validation": 1, "test": 2}
    density = {
        row["prior"].removeprefix(f"notmnist-{size}"): row for row in read_done(out / f"density_{size}")["density"]
    }
    families = {
        "-gaussian": "gaussian",
        "-mixture": "mixture",
        "": "mixture",
        "-kde": "kde",
        "-flow": "flow",
        "-autoregressive": "autoregressive",
        "-chain": "chain",
        "-vae": "vae",
        "-h1": "vae",
    }
    assert {name: row["family"] for name, row in density.items()} == families
    for row in density.values():
        for control in ("gaussian", "mixture"):
            over = row["log_prob"] - density[f"-{control}"]["log_prob"]
            assert row[f"over_{control}"] == pytest.approx(over, abs=2e-3)
        if row["kind"] == "exact":
            assert row["elbo"] == row["monte_carlo_error"] == ""
        else:
            assert row["family"] in ("chain", "vae") and row["elbo"] < row["log_prob"]
        assert row["of"] == kernels["kernels"]["test"] >= row["kernels"] > 0


def test_the_scale_mixture_is_the_one_that_is_bundled() -> None:
    for size in ("7x7", "5x5"):
        recipe = recipes.load(f"prior_notmnist_{size}")
        stages = recipe.stages()
        assert recipe.PRIORS[f"notmnist-{size}"] == f"scale_mixture_{size}"
        assert len(stages[f"scale_mixture_{size}"].scales) > 1 and stages[f"mixture_{size}"].scales == (1.0,)


def test_families_are_chosen_on_held_out_training_images_from_other_seeds() -> None:
    choice = recipes.load("choose_family").stages()["choose_family"]
    report = recipes.load("converge_mnist").stages()["converge_mnist"]
    assert choice.hold_out == 10_000 and report.hold_out == 0
    seeds = [set(range(stage.first_seed, stage.first_seed + stage.seeds)) for stage in (choice, report)]
    assert seeds[0].isdisjoint(seeds[1])
    assert choice.priors == () and report.priors == ("notmnist-7x7", "notmnist-5x5")
    assert set(choice.families) - set(report.families) == {"scale mixture"}


@pytest.mark.parametrize("name", ["choose_family", "converge_mnist"])
def test_each_family_is_trained_from_its_own_pair_of_fits(name: str) -> None:
    stage = recipes.load(name).stages()[name]
    pairs = dict(zip(stage.families, zip(stage.needs[2::2], stage.needs[3::2], strict=True), strict=True))
    expected = {family: (f"{fit}_7x7", f"{fit}_5x5") for family, fit in choose_family.STAGES.items()}
    assert stage.needs[:2] == ("kernels_7x7", "kernels_5x5")
    assert pairs.items() <= expected.items()


def test_decoding_has_a_row_per_fit(runs: Path) -> None:
    out = finished("decoding", runs)
    rows = {row["prior"]: row for row in read_done(out / "decoding")["rows"]}
    fits = recipes.load("decoding").stages(smoke=True)["decoding"].needs
    assert len(rows) == len(fits) == 9
    for fit in fits:
        prior = fitted_prior(out / fit)
        assert rows[prior.details["name"]]["family"] == prior.family


def test_only_a_full_run_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = recipes.load("source_throughput")
    small = recipe.stages(smoke=True)
    monkeypatch.setattr(recipe, "stages", lambda smoke: small)
    monkeypatch.setattr(command_line, "RESULTS", tmp_path / "results")
    run = ["run", "source_throughput", "--device", "cpu", "--out"]
    assert main([*run, str(tmp_path / "a"), "source_throughput.repeats=2"]) == 0
    assert main([*run, str(tmp_path / "b"), "--smoke"]) == 0
    assert not (tmp_path / "results").exists()
    assert main([*run, str(tmp_path / "c")]) == 0
    assert not (tmp_path / "results").exists()
    assert main([*run, str(tmp_path / "b"), "--smoke", "--record"]) == 1
    assert "leave out --smoke" in capsys.readouterr().err
    assert main([*run, str(tmp_path / "c"), "--record"]) == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["source_throughput.csv"]


def test_figures_name_the_edition_of_natural_that_they_were_recorded_with() -> None:
    assert recipes.load("fig3b").stages()["fig3b"].priors == ("natural-v1",)
    assert recipes.load("fig4c").stages()["fig4c_runs"].priors == ("natural-v1",)


def test_a_field_can_be_overridden(tmp_path: Path) -> None:
    assert smoke("source_throughput", tmp_path, "source_throughput.filters=2,3", "source_throughput.networks=1") == 0
    assert read_done(tmp_path / "source_throughput")["filters"] == "2/3"
    assert read_done(tmp_path / "source_throughput")["networks"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "prior_notmnist"], "no recipe 'prior_notmnist'; did you mean prior_notmnist_"),
        (["run", "zzz"], f"no recipe 'zzz'; did you mean {', '.join(RECIPES)}"),
        (
            ["run", "source_throughput", "source_throughput.width=3"],
            "no field 'width'; its fields are networks, filters",
        ),
        (
            ["run", "source_throughput", "sources.networks=3"],
            "no stage 'sources' in this recipe, or not in what --only leaves; it has source_through",
        ),
        (["run", "source_throughput", "networks=3"], "a setting reads stage.field=value"),
        (["run", "source_throughput", "source_throughput.networks=x"], "'x' is not of type int"),
        (["run", "source_throughput", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["run", "source_throughput", "--device", "meta"], "device 'meta' cannot be used (it has no memory); try"),
        (["run", "prior_notmnist_7x7", "--data-root", "/nowhere"], "notmnist is not under /nowhere"),
        (["run", "prior_tinyimagenet", "--data", "imagefolder:/nowhere@32", "--smoke"], "no folder /nowhere with a"),
    ],
)
def test_helpful_errors(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*words, "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and message in shown.err and shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["run", "source_throughput", "--smokes", "x"], ["list", "sources.lr=1"], ["run"], ["fit", "--out", "x"]]
)
def test_unknown_or_missing_words_are_refused(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_priors_of_ones_own_images_are_called_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe = recipes.load("prior_tinyimagenet")
    stages = recipe.stages(data="imagefolder:some/where/photos@32")
    assert {stage.data for stage in stages.values() if hasattr(stage, "data")} == {"imagefolder:some/where/photos@32"}
    assert stages["by_depth_dw7x7"].name == "photos-dw7x7" and stages["mixture_stem_7x7"].name == "photos-stem-7x7"
    assert recipe.stages()["by_depth_dw7x7"].name == "tinyimagenet-dw7x7"
    monkeypatch.setattr("training.__main__.run_stages", lambda stages, context, results: print(context.out) or {})
    assert main(["run", "prior_tinyimagenet", "--data", "parquet:me/photos", "--smoke", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "runs/tinyimagenet-smoke-photos\n"
    assert main(["run", "prior_natural_stem", "--data", "imagefolder:a/my photos[0:20]", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "runs/natural_stem-my photos-0-20\n"
    assert main(["run", "prior_natural_stem", "--data", "cifar10", "--device", "cpu"]) == 1
    assert "'cifar10' is not a place of your own images; write imagefolder:PATH" in capsys.readouterr().err
    assert main(["run", "prior_tinyimagenet", "--data", "parquet:me/photos", "--record"]) == 1
    assert "leave out --smoke, --data" in capsys.readouterr().err
    assert main(["run", "fig2a_mnist", "--data", "imagefolder:photos"]) == 1
    assert "recipe 'fig2a_mnist' has its own images" in capsys.readouterr().err


def test_settings_of_stages_that_are_not_run_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "benchmark", "--only", "bench_full_vgg", "bench_full_paper.seeds=2"]) == 1
    assert (
        "no stage 'bench_full_paper' in this recipe, or not in what --only leaves; it has bench_full_vgg"
        in capsys.readouterr().err
    )
    assert main(["run", "benchmark", "bench_full_vgg.seeds=2", "bench_full_vgg.seeds=3"]) == 1
    assert "bench_full_vgg.seeds is set twice, the second time by 'bench_full_vgg.seeds=3'" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["benchmark", "fig2a_chosen", "frozen_readout"])
def test_runs_of_record_count_if_they_are_kept_and_may_be_replaced(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    ran: list[bool] = []
    (tmp_path / "fit" / "prior").mkdir(parents=True)
    folders = {"fit": tmp_path / "fit", "other": tmp_path}
    monkeypatch.setattr(
        "training.__main__.run_stages", lambda stages, context, results: ran.append(context.from_record) or folders
    )
    words = ["run", recipe, "--device", "cpu"]
    assert [main([*words, *more]) for more in ([], ["--from-record"], ["--record"])] == [0, 0, 0]
    assert ran == [False, True, True]
    assert main(["run", "fig3a", "--from-record"]) == 1
    idle = "error: these stages of 'fig3a' keep no runs on record; leave out --from-record"
    out, err = capsys.readouterr()
    assert err.splitlines() == [idle] and out.count(f"a prior is in {tmp_path / 'fit' / 'prior'}\n") == 3


def test_stages_of_one_name_whose_runs_are_kept_are_the_same() -> None:
    kept = [item for name in RECIPES for item in recipes.load(name).stages().items() if item[1].keeps_runs]
    assert len(dict(kept)) > 60 and all(dict(kept)[name] == stage for name, stage in kept)
