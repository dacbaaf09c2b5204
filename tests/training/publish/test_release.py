"""What is checked of a release without a network."""

import json
from pathlib import Path

import pytest

import dwp_init
from dwp_init import load_prior, registry
from dwp_init.folder import CONFIG
from tests.training.publish.example_priors import change
from training.publish import release, templates

REPO = "dwp-init/mine"


@pytest.mark.parametrize("name", ["notmnist-7x7", "notmnist-5x5-h1", "audio"])
def test_a_bundled_prior_has_its_own_card(name: str) -> None:
    found = release.prepare(registry.BUNDLED / name, f"dwp-init/{name}")
    assert found.files["README.md"] == (templates.CARDS / name / "README.md").read_bytes()
    assert found.sha256 == registry.registry()[name]["sha256"]
    assert "that of the bundled prior" in found.checks[-1]
    pin = {"repo": f"dwp-init/{name}", "revision": "0" * 40}
    assert release.registry_entry(found.prior, found.sha256, **pin) == registry.registry()[name] | pin


@pytest.mark.parametrize("value", [True, "1", None])
def test_a_record_that_is_no_number(folder: Path, value: object) -> None:
    config = json.loads((folder / CONFIG).read_text()) | {"format_version": 1}
    del config["config_sha256"]
    config["metrics"]["samples"]["drawn"]["rms"] = value
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"draws have rms .*, the configuration records"):
        release.prepare(folder, REPO)


@pytest.mark.parametrize(
    ("repo", "tag", "message"),
    [
        ("mine", "v1", "--repo is user/name; got 'mine'"),
        ("a/b@v1", "v1", "--repo is user/name; got 'a/b@v1'"),
        ("a/b", "main", "--tag is a version such as v1, not a branch or a commit; got 'main'"),
        ("a/b", "0" * 40, "not a branch or a commit"),
        ("a/b", "v 1", "got 'v 1'"),
        ("a/b", "", "got ''"),
    ],
)
def test_malformed_names(folder: Path, repo: str, tag: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        release.prepare(folder, repo, tag)


def test_what_is_not_fit_to_be_published(folder: Path, tmp_path: Path) -> None:
    stage = tmp_path / "fit"
    dwp_init.save_prior(load_prior(folder), stage / "prior")
    with pytest.raises(ValueError, match=r"fit is a stage's folder; the prior is in .*fit/prior"):
        release.prepare(stage, REPO)
    with pytest.raises(FileNotFoundError, match=r"config.json does not exist"):
        release.prepare(tmp_path / "nowhere", REPO)
    change(folder, source={"synthetic": True})
    with pytest.raises(ValueError, match=r"made from synthetic images, under --smoke, .* add --allow-synthetic"):
        release.prepare(folder, REPO)


def test_a_harvested_prior_needs_the_licence_of_each_network(folder: Path) -> None:
    known = {"a": {"license": "MIT"}, "c": {"license": "Apache-2.0"}}
    change(folder, source={"checkpoints": ["a", "b", "c"], "origins": known})
    message = "1 of 3 networks .* have no licence entry, such as b: enter each in a manifest with its license, and harv"
    with pytest.raises(ValueError, match=message):
        release.prepare(folder, REPO)
    change(folder, source={"checkpoints": ["a", "c"], "origins": known})
    said = "licences of the networks that it was harvested from: Apache-2.0, MIT"
    assert said in release.prepare(folder, REPO).checks


@pytest.mark.parametrize("key", ["rms", "roughness"])
def test_statistics_that_are_not_those_of_the_draws(folder: Path, key: str) -> None:
    drawn = load_prior(folder).details["metrics"]["samples"]["drawn"]
    change(folder, metrics={"samples": {"drawn": drawn | {key: 1.3 * drawn[key]}}})
    with pytest.raises(ValueError, match=f"draws have {key} .*, the configuration records .*: the record is not of"):
        release.prepare(folder, REPO)
    change(folder, metrics={})
    assert "draws were not compared" in release.prepare(folder, REPO).checks[1]


@pytest.mark.parametrize(("tag", "after"), [("v1", "v2"), ("v1.9", "v1.10"), ("beta", "beta.1")])
def test_the_next_version(tag: str, after: str) -> None:
    assert release.Release(dwp_init.Gaussian((1, 3, 3)), REPO, tag, {}, []).next_tag == after
