from pathlib import Path

from dwp_init import Gaussian, load_prior, save_prior
from tests.models import changed_config


def test_pull(run, at_hub, tmp_path):
    (hub, commit), cache = at_hub, tmp_path / "cache"
    out = run("pull", "user/mine@v1", "--cache-dir", cache)
    first, folder = out.splitlines()
    assert first == f"user/mine@v1: 3×3, gaussian, 0.00 MB, commit {commit}"
    assert load_prior(folder).kernel_shape == (1, 3, 3) and cache in Path(folder).parents
    hub.clear()
    run("pull", f"user/mine@{commit}", "--cache-dir", cache)
    assert hub.requests() == []


def test_pull_of_what_is_here(run, workplace):
    assert "comes with this version, so there is nothing to download" in run("pull", "notmnist-7x7")
    save_prior(Gaussian((1, 3, 3)), workplace / "mine")
    assert "'mine' is a folder here, so there is nothing to download" in run("pull", "mine", status=1)
    assert "did you mean 'notmnist-7x7'?" in run("pull", "notmnist-7x8", status=1)


def test_nothing_of_a_repository_steers_the_terminal(run, at_hub):
    hub, _ = at_hub
    config = hub.repos["user/mine"].tree("v1")["config.json"].data
    hub.repos["user/mine"].commit({"config.json": changed_config(config, arguments={"\x1b[2J": 1})})
    error = run("pull", "user/mine", status=1)
    assert "\x1b" not in error and "\\x1b[2J" in error
