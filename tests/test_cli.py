import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model

from dwp_init import SETS, Gaussian, KernelVAE, MixtureByDepth, PriorSet, apply_, cli, load_prior, registry, save_prior
from dwp_init.folder import read_files
from dwp_init.picture import kernel_sheet, numbered_sheets, write_png
from dwp_init.version import __version__
from tests.models import changed_config

DETAILS = {
    "name": "notmnist-7x7",
    "license": "MIT",
    "source": {"dataset": "notMNIST", "networks": 8, "filters": [256, 512]},
    "metrics": {"log_prob": 107.61234567, "none": None},
    "created_with": {"torch": "2.6", "evil\x1b[2J": "\x1b[31m"},
}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A current folder of its own, and a registry of a VAE for 7×7 and a Gaussian for 3×3 kernels."""
    vae, gaussian = KernelVAE((1, 7, 7), latent_dim=2, hidden=4), Gaussian((1, 3, 3))
    vae.details = DETAILS
    entries = {}
    for name, prior, more in [("notmnist-7x7", vae, {"log_prob": 107.61}), ("gauss-3x3", gaussian, {})]:
        folder = save_prior(prior, tmp_path / "bundled" / name)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        about = {"kernel_shape": prior.kernel_shape, "family": prior.family, "source": "notMNIST", "license": "MIT"}
        entries[name] = {**about, **more, "sha256": digests}
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.json")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    registry.registry.cache_clear()
    yield tmp_path / "here"
    registry.registry.cache_clear()


@pytest.fixture
def run(capsys):
    """Runs a command line that must succeed, or must fail with one line on stderr; returns what it printed."""

    def run(*arguments, status=0):
        found = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == status, err
        if status:
            assert out == "" and err.startswith("error: ") and "Traceback" not in err
        else:
            assert err == ""
        return out + err

    return run


@pytest.fixture
def module(workplace):
    """Writes a Python module into the current folder; returns its name, a new one every time."""

    def write(text):
        name = f"user_module_{next(_numbers)}"
        (workplace / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + text)
        return name

    return write


NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 7)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
        self.block[1].weight = self.block[0].weight
        self.linear = nn.Linear(4, 10)

net = Net()

class Zoo:
    @staticmethod
    def small():
        return Net()
"""


# list and show


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


@pytest.fixture
def at_hub(hub, endpoint, workplace):
    """A Hub with one prior, as HF_ENDPOINT would name it."""
    mine = Gaussian((1, 3, 3))
    files = read_files(save_prior(mine, workplace / "mine"))
    card = b"---\ntags: [dwp-prior, kernel-3x3, family-gaussian]\n---\n"
    return hub, hub.add_repo("user/mine", {**files, "README.md": card}, tag="v1")


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


def test_a_repository_is_taken_wherever_a_name_is(run, at_hub):
    assert "name: user/mine" in run("show", "user/mine@v1")
    assert "64 kernels of user/mine (3×3): kernels.png" in run("draw", "user/mine")
    assert "the Hub shows no such repository" in run("show", "user/none", status=1)


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


@pytest.fixture
def family(workplace, monkeypatch):
    """A set of two priors, of which one depends on the depth and has three channels."""
    stem = MixtureByDepth((3, 5, 5), (0.0, 1.0), (1, 1))
    stem.mixtures[0].loc.fill_(9.0)
    stem.details["metrics"] = {"log_prob": 1.26}
    folder = save_prior(stem, workplace / "stem")
    monkeypatch.setitem(SETS, "family", PriorSet(stem=(folder,), depthwise=("gauss-3x3",), name="family"))
    return folder


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


@pytest.mark.parametrize("command", [["show"], ["draw"], ["apply", "torch.nn:Identity", "--prior"]])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notmnist-7x8", "did you mean 'notmnist-7x7'?"),
        ("user/repo@", "lacks a revision; write for example user/repo@v1"),
        (".", "config.json does not exist"),
    ],
)
def test_prior_errors(run, command, name, message):
    assert message in run(*command, name, status=1)


# draw


def test_draw(run, workplace):
    out = run("draw", "notmnist-7x7", "-n", 5, "-o", "a.png", "--seed", 3)
    assert out == "5 kernels of notmnist-7x7 (7×7): a.png, 172×115 pixels\n"
    kernels = load_prior("notmnist-7x7").sample(5, torch.Generator().manual_seed(3))
    assert (workplace / "a.png").read_bytes() == write_png("b.png", kernel_sheet(kernels)).read_bytes()


def test_draw_options(run, workplace):
    pictures = {}
    for options in [(), ("--seed", 0), ("--seed", 1), ("--mean",), ("--colors", "grey")]:
        run("draw", "notmnist-7x7", *options)
        pictures[options] = (workplace / "kernels.png").read_bytes()
    default, seed_0, *others = pictures.values()
    assert default == seed_0 and len({default, *others}) == 4


def test_draw_a_set(run, workplace, family):
    out = run("draw", "family", "-n", 4).splitlines()
    assert re.fullmatch(r"4 kernels of each prior of family: kernels\.png, \d+×\d+ pixels", out[0])
    assert [line.split() for line in out[1:]] == [
        ["1:", "3×5×5", "stem", "stem"],
        ["2:", "3×3", "depthwise", "gauss-3x3"],
    ]
    sheets = [
        kernel_sheet(load_prior(name).sample(4, torch.Generator().manual_seed(0)), zoom=zoom, colors=colors)
        for name, zoom, colors in ((family, 11, "rgb"), ("gauss-3x3", 18, "diverging"))
    ]
    assert (workplace / "kernels.png").read_bytes() == write_png("b.png", numbered_sheets(sheets)).read_bytes()
    picture = (workplace / "kernels.png").read_bytes()
    run("draw", "family", "-n", 4, "--colors", "rgb")  # which concerns the prior of three channels
    assert (workplace / "kernels.png").read_bytes() == picture
    run("draw", "family", "-n", 4, "--depth", 1)
    assert (workplace / "kernels.png").read_bytes() != picture
    assert "family: kernels.png, 866×457 pixels" in run("draw", "family", "-n", 1000)  # kernels are smaller
    assert "no prior of family has a noise step; drop it" in run("draw", "family", "--mean", status=1)


def test_draw_of_a_depth_and_in_colour(run, workplace, family):
    pictures = {}
    for options in [("--depth", 0), ("--depth", "1.0"), (), ("--colors", "rgb"), ("--colors", "grey")]:
        run("draw", "stem", "-n", 4, *options)
        pictures[options] = (workplace / "kernels.png").read_bytes()
    assert pictures[()] == pictures["--colors", "rgb"] and len(set(pictures.values())) == 4
    kernels = load_prior(family).at(0).sample(4, torch.Generator().manual_seed(0))
    sheet = kernel_sheet(kernels, colors="rgb")
    assert pictures["--depth", 0] == write_png("b.png", sheet).read_bytes()


def test_draw_errors(run, workplace):
    assert "--depth has no effect: a gaussian prior is the same at every depth; drop" in run(
        "draw", "gauss-3x3", "--depth", 0.5, status=1
    )
    assert "colors='rgb' is for kernels (3, k, k); these are (1, 3, 3)" in run(
        "draw", "gauss-3x3", "--colors", "rgb", status=1
    )
    assert "--mean has no effect: a gaussian prior has no noise step; drop" in run(
        "draw", "gauss-3x3", "--mean", status=1
    )
    assert "must end in .png; got 'a.jpg'" in run("draw", "gauss-3x3", "-o", "a.jpg", status=1)
    assert "-o: the folder 'no' does not exist; create it" in run("draw", "gauss-3x3", "-o", "no/a.png", status=1)
    assert not list(workplace.iterdir())


# apply


def load_net(name):
    return sys.modules[name].Net()


@pytest.mark.parametrize("attribute", ["Net", "net", "Zoo.small"])
def test_apply_is_a_dry_run(run, module, workplace, attribute):
    name = module(NET)
    before = set(workplace.iterdir())
    out = run("apply", f"{name}:{attribute}", "--prior", "notmnist-7x7", "--prior", "gauss-3x3")
    model = sys.modules[name].net
    report = apply_(model, ["notmnist-7x7", "gauss-3x3"], dry_run=True)
    assert report.initialized == ["stem", "block.0"]
    assert [line[:30] for line in out.splitlines()[:-2]] == [line[:30] for line in str(report).splitlines()]
    assert out.endswith("dry run: nothing was drawn; --save FILE.safetensors draws and saves\n")
    assert {path for path in workplace.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.parametrize(
    "options",
    [{}, {"seed": 5}, {"scale": "prior"}, {"layers": ["stem", "block.*"]}, {"layers": ["stem"]}, {"orthogonal": True}],
)
def test_apply_saves_what_apply_draws(run, module, options):
    name = module(NET)
    values = {key: v if isinstance(v, list) else [] if v is True else [v] for key, v in options.items()}
    flags = [flag for key, each in values.items() for flag in (f"--{key}", *each)]
    out = run(
        "apply", f"{name}:net", *flags, "--prior", "notmnist-7x7", "--prior", "gauss-3x3", "--save", "a.safetensors"
    )
    assert out.endswith("saved: a.safetensors\n") and "dry run" not in out
    model = sys.modules[name].net
    expected, loaded = load_net(name), load_net(name)
    expected.load_state_dict(model.state_dict())
    apply_(expected, ["notmnist-7x7", "gauss-3x3"], **{"seed": 0, **options})
    load_model(loaded, "a.safetensors")
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, msg=key)  # the scale is measured anew
    assert set(load_file("a.safetensors")) == set(expected.state_dict()) - {"block.1.weight"}


def test_apply_resizes_kernels_if_asked(run, module):
    name = module(NET)
    stem = [run("apply", f"{name}:net", *more, "--prior", "gauss-3x3").splitlines() for more in ((), ("--resize",))]
    assert [any("gauss-3x3, resized from 3×3" in line for line in lines) for lines in stem] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "a.pt"], "--save writes safetensors, so the name must end in .safetensors; got 'a.pt'"),
        (["--save", "no/a.safetensors"], "--save: the folder 'no' does not exist; create it first"),
        (["--layers", "stemm"], "'stemm'"),
        (["--layers", "block.*"], "7×7"),
    ],
)
def test_apply_errors(run, module, workplace, options, message):
    assert message in run("apply", f"{module(NET)}:net", "--prior", "notmnist-7x7", *options, status=1)
    assert not list(workplace.glob("*.safetensors"))


def test_apply_keeps_the_old_file_when_the_state_cannot_be_saved(run, module, workplace):
    (workplace / "a.safetensors").write_text("old")
    name = module(
        "class Net(nn.Conv2d):\n    def get_extra_state(self):\n        return {}\n"
        "    def set_extra_state(self, state):\n        pass\ndef make():\n    return Net(1, 1, 3)\n"
    )
    err = run("apply", f"{name}:make", "--prior", "gauss-3x3", "--save", "a.safetensors", status=1)
    assert "_extra_state cannot be saved: expected a dense tensor with memory; got dict" in err
    assert (workplace / "a.safetensors").read_text() == "old"


PART = """
class Part(nn.Module):
    fails = False

    def forward(self, x):
        if self.fails:
            raise {error}
        return x

    def right_inverse(self, x):
        return x

class Net(nn.Conv2d):
    def state_dict(self):
        raise {error}

def parametrized():
    net = nn.Conv2d(1, 1, 3)
    nn.utils.parametrize.register_parametrization(net, "weight", Part())
    Part.fails = True
    return net

def stateless():
    return Net(1, 1, 3)
"""


@pytest.mark.parametrize("error", ["KeyError('own')", "IndexError('own')", "AttributeError('own')"])
@pytest.mark.parametrize("factory", ["parametrized", "stateless"])
def test_apply_and_errors_of_the_users_layers(run, module, error, factory):
    name = module(PART.replace("{error}", error))
    err = run("apply", f"{name}:{factory}", "--prior", "gauss-3x3", "--save", "a.safetensors", status=1)
    doing = "" if factory == "parametrized" else "reading the model's state_dict failed: "
    assert err.startswith(f"error: {doing}{error.split('(')[0]}: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize("seed", [3, -1, 2**70])
def test_apply_saves_the_same_for_a_seed(run, module, workplace, seed):
    name, saved = module(NET.replace("net = Net()", "")), []
    for file in ("a.safetensors", "b.safetensors"):
        torch.rand(1)
        run("apply", f"{name}:Net", "--seed", seed, "--prior", "gauss-3x3", "--save", file)
        saved.append((workplace / file).read_bytes())
    assert saved[0] == saved[1]


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["show"], "required: PRIOR"),
        (["apply", "a:b"], "required: --prior"),
        (["apply", "a:b", "--prior", "c", "--scale", "big"], "invalid choice: 'big'"),
        (["draw", "gauss-3x3", "-n", "0"], "argument -n: expected a whole number from 1 to 10000; got '0'"),
        (["draw", "gauss-3x3", "-n", "1e3"], "got '1e3'"),
        (["draw", "gauss-3x3", "--depth", "deep"], "from 0, the first layer, to 1, the last; got 'deep'"),
        (
            ["draw", "gauss-3x3", "--depth", "1.1"],
            "expected a number from 0, the first layer, to 1, the last; got '1.1'",
        ),
        (["draw", "gauss-3x3", "--depth", "nan"], "got 'nan'"),
        (["draw", "gauss-3x3", "--seed", "-1"], "expected a whole number from 0 to 9223372036854775807; got '-1'"),
    ],
)
def test_usage_errors_exit_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["draw"], ["apply"]])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as error:
        cli.main([*command, "--help"])
    assert error.value.code == 0 and capsys.readouterr().out.startswith("usage: dwp-init")


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["--version"])
    assert error.value.code == 0 and capsys.readouterr().out == f"dwp-init {__version__}\n"


def command_line(*arguments, **options):
    path = str(Path(registry.__file__).parents[1])
    command = [sys.executable, "-m", "dwp_init", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, **options)


def test_broken_pipe_is_quiet(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads
    done = command_line("show", str(tmp_path / "bundled" / "gauss-3x3"), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_as_a_command():
    done = command_line("show", "nothing")
    assert done.returncode == 1 and done.stderr.startswith("error: no prior and no folder is called 'nothing'")
