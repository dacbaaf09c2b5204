"""The source of a forward pass: that of its code, or none."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dwp_init.functional import Changed
from dwp_init.steps import chain_of

SOURCE = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.__hidden = nn.Conv2d(3, 8, 3)
        self.open = nn.Conv2d(3, 8, 3)
        self._modules["__hidden"] = self.open

    def forward(self, x):
        return self.open(x).relu() / 1

class Decorated(Plain):
    @torch.no_grad()
    def forward(self, x):
        return self.open(x).relu()

class Private(Plain):
    def forward(self, x):
        return self.__hidden(x).relu()

class OneLine(Plain):
    def f(self, x, g=lambda self, x: self.open(x) + x): return self.open(x).relu()
    forward = f.__defaults__[0]
"""


def imported(path: Path, source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    path.write_text(source)
    exec(compile(source, path, "exec"), names)
    return names


def test_the_source_must_be_that_of_the_code(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    nets = imported(path, SOURCE)
    net = nets["Plain"]()
    assert [type(each) for each in chain_of(net)] == [nn.Conv2d, nn.ReLU, Changed]
    for other in ("Decorated", "Private", "OneLine"):
        assert chain_of(nets[other]()) == []
    for other in (SOURCE.replace("relu()", "tanh()"), SOURCE.replace("/ 1", "/ 1.0"), f"\n{SOURCE}", "def (", ""):
        path.write_text(other)
        assert chain_of(net) == []
    path.unlink()
    assert chain_of(net) == []
    exec(SOURCE, nets)  # no file at all
    assert chain_of(nets["Plain"]()) == []


RESIDUAL = """
    def other(self, x):
        return self.open(x).relu()
    def forward(self, x):
        return self.open(x) + x
"""


@pytest.mark.parametrize("mark", ["\f\n\f\n", 'TEXT = "\u2028\u2028"\n'])
def test_lines_are_counted_as_python_does(tmp_path: Path, mark: str) -> None:
    nets = imported(tmp_path / "nets.py", mark + SOURCE.partition("\n    def forward")[0] + RESIDUAL)
    assert chain_of(nets["Plain"]()) == []


def test_warnings_of_a_file_are_not_repeated(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nets = imported(tmp_path / "nets.py", SOURCE + "\nTEXT = 1 is 1, '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chain_of(nets["Plain"]())


class Sourceless:
    def get_source(self, name: str) -> str:
        raise KeyError(name)


def test_a_loader_without_the_source() -> None:
    nets: dict[str, Any] = {"__loader__": Sourceless(), "__name__": "nets"}
    exec(compile(SOURCE, "/nowhere/nets.py", "exec"), nets)
    assert chain_of(nets["Plain"]()) == []
