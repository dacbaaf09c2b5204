import json
import re

from dwp_init import SETS, registry


def test_list(run):
    lines = run("list").splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["name", "kernel", "family", "source", "log", "p"],
        ["gauss-3x3", "3×3", "gaussian", "notMNIST", "-"],
        ["notmnist-7x7", "7×7", "vae", "notMNIST", "107.6"],
    ]
    assert lines[3] == "log p: nats per kernel, on kernels of held-out networks"
    assert lines[4] == "a set of 5 priors, which apply takes too: natural (dwp-init show natural)"
    assert len(lines) == 4 + len(SETS)
    assert lines[1].index("notMNIST") == lines[2].index("notMNIST", 10)


def test_list_as_json(run):
    found = json.loads(run("list", "--json"))
    gauss, vae = found["priors"]
    about = {"kernel_shape": [1, 3, 3], "family": "gaussian", "source": "notMNIST", "license": "MIT"}
    assert gauss == {"name": "gauss-3x3", **about} and vae["log_prob"] == 107.61
    assert found["sets"]["natural"]["stem"] == ["natural-stem"]


def test_list_of_nothing(run, tmp_path):
    (tmp_path / "registry.json").write_text("{}")
    registry.registry.cache_clear()
    assert "comes without priors; install it again, or pass a prior's folder" in run("list", status=1)


def test_list_remote(run, at_hub):
    at_hub[0].add_repo("other/untold", {"README.md": b"---\ntags: [dwp-prior]\n---\n"})
    lines = run("list", "--remote").splitlines()
    assert lines[0].split() == ["repository", "kernel", "family", "size", "downloads", "updated"]
    assert lines[1].split()[:3] == ["other/untold", "-", "-"]
    assert re.fullmatch(r"user/mine +3×3 +gaussian +0\.00 MB +0 +20\d\d-\d\d-\d\d", lines[2])
    assert "pin a revision, user/repo@v1" in lines[3]
    found = json.loads(run("list", "--remote", "--json"))["priors"]
    assert [entry["repo"] for entry in found] == ["other/untold", "user/mine"] and found[1]["kernel"] == "3x3"


def test_list_remote_of_nothing(run, hub, endpoint):
    assert "the Hub has no repository tagged dwp-prior; `dwp-init list`" in run("list", "--remote", status=1)
    assert json.loads(run("list", "--remote", "--json")) == {"priors": []}
