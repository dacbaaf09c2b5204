import dataclasses
from pathlib import Path

import pytest

from dwp_init.hub import registry
from training import __main__ as command_line
from training import recipes
from training.__main__ import main
from training.stages import Stage, read_done

RECIPES = ["apply_cost", "converge_mnist", "prior_notmnist_5x5", "prior_notmnist_7x7", "source_throughput"]


def test_these_are_all_recipes(capsys: pytest.CaptureFixture) -> None:
    assert recipes.names() == RECIPES
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == RECIPES
    assert all(recipes.summary(name) in line for name, line in zip(RECIPES, lines, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_whole(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.FOLDER in ("benchmarks", "notmnist")
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
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the recipes that share theirs."""
    return tmp_path_factory.mktemp("runs")


def smoke(name: str, out: Path, *words: str) -> int:
    return main(["run", name, "--smoke", "--device", "cpu", "--out", str(out), *words])


@pytest.mark.parametrize(
    "name", ["source_throughput", "prior_notmnist_7x7", "prior_notmnist_5x5", "converge_mnist", "apply_cost"]
)
def test_smoke(name: str, out: Path, capsys: pytest.CaptureFixture) -> None:
    """Runs to the end, reuses what an earlier recipe made, and leaves the results of record alone."""
    if name in ("converge_mnist", "apply_cost") and "notmnist-7x7" not in registry():
        pytest.skip("needs the bundled prior notmnist-7x7")
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


def test_the_two_priors_share_their_sources(out: Path) -> None:
    if not (out / "vae_5x5" / "done.json").exists():
        assert smoke("prior_notmnist_7x7", out) == smoke("prior_notmnist_5x5", out) == 0
    assert read_done(out / "kernels_7x7")["source"]["synthetic"]
    density = read_done(out / "density_5x5")["density"]
    assert [row["prior"] for row in density] == ["notmnist-5x5-gaussian", "notmnist-5x5", "notmnist-5x5-h1"]
    for row in density:
        assert row["over_gaussian"] == pytest.approx(row["log_prob"] - density[0]["log_prob"], abs=1e-3)
    assert density[0]["elbo"] == "" and density[1]["elbo"] < density[1]["log_prob"]


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
            "no stage 'sources' in this recipe; it has source_through",
        ),
        (["run", "source_throughput", "networks=3"], "a setting reads stage.field=value"),
        (["run", "source_throughput", "source_throughput.networks=x"], "'x' is not of type int"),
        (["run", "source_throughput", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["run", "prior_notmnist_7x7", "--data-root", "/nowhere"], "notmnist is not under /nowhere"),
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
