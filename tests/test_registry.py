import hashlib
import json
from pathlib import Path

import pytest
import torch

from dwp_init import Gaussian, KernelVAE, list_priors, load_prior, registry, save_prior
from dwp_init.access import Address


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Puts two small priors in place of those of the package; returns the folder that holds them."""
    monkeypatch.chdir(tmp_path)
    entries = {}
    for name, prior in {"notmnist-3x3": KernelVAE((1, 3, 3), hidden=4), "gauss-5x5": Gaussian((1, 5, 5))}.items():
        folder = save_prior(prior, tmp_path / "bundled" / name)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        entries[name] = {"kernel_shape": list(prior.kernel_shape), "family": prior.family, "sha256": digests}
    use_registry(tmp_path, monkeypatch, entries)
    yield tmp_path / "bundled"
    registry.registry.cache_clear()


def use_registry(tmp_path, monkeypatch, entries):
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.json")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "bundled")
    registry.registry.cache_clear()


def test_the_shipped_registry_is_whole():
    """Each name can be had: it is bundled, or pinned to a commit on the Hub."""
    assert list_priors() == sorted(json.loads(registry.REGISTRY.read_text()))
    assert {folder.name for folder in registry.BUNDLED.glob("*/")} <= set(list_priors())
    for name, entry in registry.registry().items():
        assert {"kernel_shape", "family", "source", "license", "log_prob"} <= set(entry)
        assert set(entry["sha256"]) == {"config.json", "model.safetensors"}
        assert ("repo" in entry) == ("revision" in entry)
        assert (registry.BUNDLED / name).exists() or len(entry["revision"]) == 40
        if (registry.BUNDLED / name).exists():
            prior = load_prior(name, local_files_only=True)
            assert prior.details["name"] == name and prior.family == entry["family"]
            assert list(prior.kernel_shape) == entry["kernel_shape"]


def test_list_and_load_by_name(bundled):
    assert list_priors() == ["gauss-5x5", "notmnist-3x3"]
    state = torch.get_rng_state()
    prior = load_prior("notmnist-3x3")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(prior, KernelVAE) and prior.details["name"] == "notmnist-3x3" and not prior.training


@pytest.mark.parametrize("kind", [str, Path])
def test_load_by_folder(bundled, tmp_path, kind):
    assert load_prior(kind(bundled / "gauss-5x5")).details == {"name": "gauss-5x5"}
    named = Gaussian((1, 3, 3))
    named.details = {"name": "mine"}
    save_prior(named, tmp_path / "other")
    assert load_prior(kind("other")).details["name"] == "mine"  # relative to the current folder


def test_a_name_wins_over_a_folder(bundled):
    save_prior(Gaussian((1, 9, 9)), "gauss-5x5")
    assert load_prior("gauss-5x5").kernel_shape == (1, 5, 5)
    assert load_prior("./gauss-5x5").kernel_shape == load_prior(Path("gauss-5x5")).kernel_shape == (1, 9, 9)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_bundled_file_that_was_changed(bundled, name):
    path = bundled / "gauss-5x5" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"{name} is corrupt: its sha256 is .*, expected .*; install dwp_init again"):
        load_prior("gauss-5x5")


def test_a_bundled_folder_that_is_gone(bundled):
    (bundled / "gauss-5x5").rename(bundled / "away")
    with pytest.raises(FileNotFoundError, match=r"gauss-5x5/config\.json does not exist"):
        load_prior("gauss-5x5")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notmnist-3x4", "no prior and no folder is called 'notmnist-3x4'; did you mean 'notmnist-3x3'"),
        ("NotMNIST_3x3", "did you mean 'notmnist-3x3'"),
        ("zzz", "'zzz'; there are gauss-5x5, notmnist-3x3; a repository on the Hub is user/name$"),
        ("../notmnist-3x3", "did you mean 'notmnist-3x3'"),
        ("a/b/c", "no prior and no folder"),
        ("/no/where", "no prior and no folder"),
        ("x" * 5000, "no prior and no folder"),
        ("nul\0", "no prior and no folder"),
        (Path("gauss-5x5"), "no folder is called 'gauss-5x5', but a registered prior is: pass the str 'gauss-5x5'"),
        (
            Path("user/repo"),
            "no folder is called 'user/repo'; for a repository on the Hub pass the str 'user/repo', not a",
        ),
        ("https://huggingface.co/datasets/user/repo", "no prior and no folder"),
        ("https://www.huggingface.co/user/repo/tree/main", "is an address; for the repository pass 'user/repo'"),
        ("-user/repo", "no prior and no folder is called '-user/repo'; there are"),
    ],
)
def test_unknown_names(bundled, name, message):
    with pytest.raises(ValueError, match=message):
        load_prior(name)


def test_without_any_prior(bundled, tmp_path, monkeypatch):
    use_registry(tmp_path, monkeypatch, {})
    with pytest.raises(ValueError, match="'zzz'; there are none"):
        load_prior("zzz")


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("user/repo", "user/repo", "main"),
        ("user/repo@v1", "user/repo", "v1"),
        ("user/repo@refs/pr/1", "user/repo", "refs/pr/1"),
        ("u.s-e_r/notmnist-3x3@0123abc", "u.s-e_r/notmnist-3x3", "0123abc"),
    ],
)
def test_repositories(bundled, name, repo, revision):
    assert registry.find(name) == Address(repo, revision)


@pytest.mark.parametrize("wrong", [None, 3, b"notmnist-3x3", ["notmnist-3x3"], Gaussian((1, 3, 3))])
def test_wrong_types(bundled, wrong):
    with pytest.raises(
        TypeError, match=f"a prior's name or folder must be a str or a Path; got {type(wrong).__name__}"
    ):
        load_prior(wrong)
