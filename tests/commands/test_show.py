import re

from dwp_init import Gaussian, load_prior, save_prior


def test_show(run):
    out = run("show", "notmnist-7x7")
    count = sum(p.numel() for p in load_prior("notmnist-7x7").parameters())
    lines = out.splitlines()
    start = ["name: notmnist-7x7", "family: vae", "kernel: 7×7", "network: dense", "latent_dim: 2", "hidden: 4"]
    assert lines[:6] == start
    assert f"parameters: {count:,}" in lines and "log_prob: a lower bound" in lines and "license: MIT" in lines
    assert lines[lines.index("metrics:") :][:3] == ["metrics:", "  log_prob: 107.612", "  none: None"]
    assert lines[lines.index("source:") :][:4] == [
        "source:",
        "  dataset: notMNIST",
        "  networks: 8",
        "  filters: 256, 512",
    ]
    assert lines[-3:] == ["created_with:", "  torch: 2.6", "  'evil\\x1b[2J': '\\x1b[31m'"]


def test_show_a_set(run, family):
    lines = run("show", "family").splitlines()
    assert lines[0] == "family: a set of 2 priors; output channels are left as they are drawn by default"
    assert [re.split(" {2,}", line) for line in lines[2:5]] == [
        ["for layers", "kernel", "prior", "family", "parameters", "log p", "depths"],
        ["stem", "3×5×5", "stem", "mixture-by-depth", f"{load_prior(family).parameter_count:,}", "1.3", "0, 1"],
        ["depthwise", "3×3", "gauss-3x3", "gaussian", "99", "-", "any"],
    ]
    assert lines[6].startswith("log p: nats per kernel")


def test_show_a_folder_of_a_gaussian(run, workplace):
    save_prior(Gaussian((2, 3, 3)), workplace / "mine")
    out = run("show", workplace / "mine")
    assert out.splitlines() == ["name: mine", "family: gaussian", "kernel: 2×3×3", "parameters: 360", "log_prob: exact"]
