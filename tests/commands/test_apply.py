import sys

import pytest
import torch
from safetensors.torch import load_file, load_model

from dwp_init import apply_

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
