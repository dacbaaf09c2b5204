"""Pictures in a terminal, and which terminals show them."""

import contextlib
import errno
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dwp_init import load_prior
from dwp_init.picture import kernel_sheet
from dwp_init.terminal import half_blocks, heading, kernel_blocks, prior_blocks, reader_stopped, shows_pictures

DEEP = {"COLORTERM": "truecolor", "TERM": "xterm-256color"}


class Terminal(StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a terminal of 24-bit colour with lines of 80 characters."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (DEEP | {"COLUMNS": "80"}).items():
        monkeypatch.setenv(name, value)


def pixels_of(text: str) -> Tensor:
    """Reads half blocks as a terminal does; what has no colour of its own is -1."""
    found = []
    for line in text.splitlines():
        colours: dict[str, list[int]] = {}
        upper, lower = [], []
        for code, block in re.findall(r"\x1b\[([\d;]*)m|(▀)", line):
            if block:
                upper.append(colours["38"])
                lower.append(colours["48"])
            elif code.startswith(("38;2;", "48;2;")):
                colours[code[:2]] = [int(part) for part in code[5:].split(";")]
            else:
                assert code in ("49", "0")
                colours["48"] = [-1] * 3
        assert line.endswith("\x1b[0m")
        found += [upper, lower]
    return torch.tensor(found)


@pytest.mark.parametrize("height", [4, 5])
def test_half_blocks_have_the_pixels(height: int) -> None:
    pixels = torch.randint(0, 256, (height, 6, 3), dtype=torch.uint8)
    pixels[:2, 2:4] = 7  # colours that stay are not written again
    text = half_blocks(pixels)
    found = pixels_of(text)
    assert torch.equal(found[:height], pixels.long()) and (found[height:] == -1).all()
    assert text.splitlines()[0].count("38;2;7;7;7") == 1


@pytest.mark.parametrize(("columns", "across"), [(80, 8), (30, 3), (9, 1), (8, 0)])
def test_as_many_kernels_in_a_row_as_fit(columns: int, across: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    kernels = torch.randn(9, 1, 7, 7)
    text = kernel_blocks(kernels)
    if not across:
        assert text == ""
        return
    sheet = kernel_sheet(kernels, across, 1).long()
    assert torch.equal(pixels_of(text)[: len(sheet)], sheet) and sheet.shape[1] <= columns


@pytest.mark.parametrize(
    ("shape", "zoom", "colors"), [((3, 5, 5), 1, "rgb"), ((1, 3, 3), 2, "diverging"), ((2, 3), 2, "diverging")]
)
def test_small_kernels_are_larger_and_three_channels_have_colour(
    shape: tuple[int, ...], zoom: int, colors: str
) -> None:
    kernels = torch.randn(3, *shape)
    sheet = kernel_sheet(kernels, 3, zoom, colors=colors).long()
    assert torch.equal(pixels_of(kernel_blocks(kernels))[: len(sheet)], sheet)
    if colors == "rgb":
        grey = kernel_sheet(kernels, 3, zoom, colors="grey").long()
        assert torch.equal(pixels_of(kernel_blocks(kernels, "grey"))[: len(grey)], grey)


def test_a_prior_by_depth_has_a_row_for_each() -> None:
    prior = load_prior("tinyimagenet-3x3")
    generator = torch.Generator().manual_seed(0)
    kernels = torch.cat([prior.at(depth).sample(8, generator) for depth in prior.depths])
    whole = load_prior("notmnist-7x7").sample(16, torch.Generator().manual_seed(0))
    with contextlib.redirect_stdout(Terminal()):
        assert prior_blocks(prior, rows=2) == kernel_blocks(kernels)
        assert prior_blocks(load_prior("notmnist-7x7"), rows=2) == kernel_blocks(whole)


@pytest.mark.parametrize(
    ("changed", "encoding", "shown"),
    [
        ({}, "utf-8", True),
        ({"COLORTERM": "24bit"}, "utf-8", True),
        ({"COLORTERM": "", "WT_SESSION": "1"}, "utf-8", True),
        ({"COLORTERM": ""}, "utf-8", False),
        ({"NO_COLOR": "1"}, "utf-8", False),
        ({"NO_COLOR": ""}, "utf-8", True),
        ({"TERM": "dumb"}, "utf-8", False),
        ({}, "latin-1", False),
        ({}, None, False),
    ],
)
def test_which_terminals_show_pictures(changed: dict[str, str], encoding: str | None, shown: bool) -> None:
    stream = Terminal()
    stream.encoding = encoding
    assert shows_pictures(stream, DEEP | changed) is shown
    assert shows_pictures(StringIO(), DEEP | changed) is False


def test_elsewhere_there_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert heading("natural") == "natural" and prior_blocks(load_prior("notmnist-7x7"), rows=2) == ""


def in_a_terminal(*arguments: str, folder: Path, **variables: str) -> str:
    """What the command prints to a terminal of 100 characters."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    root = str(Path(__file__).parents[1])
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **DEEP, **variables}
    command = [sys.executable, "-m", "dwp_init", *arguments]
    with subprocess.Popen(command, stdout=theirs, env=environment, cwd=folder) as running:
        os.close(theirs)
        content = b""
        try:
            while part := os.read(ours, 65536):
                content += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert running.returncode == 0
    return content.decode().replace("\r\n", "\n")


def test_commands_show_kernels_in_a_terminal(tmp_path: Path) -> None:
    shown = in_a_terminal("show", "notmnist-5x5", folder=tmp_path)
    assert "\x1b[1mfamily: mixture\x1b[0m\n" in shown
    kernels = load_prior("notmnist-5x5").sample(16, torch.Generator().manual_seed(0))
    sheet = kernel_sheet(kernels, 8, 1).long()
    assert torch.equal(pixels_of("\n".join(shown.splitlines()[-len(sheet) // 2 :]))[: len(sheet)], sheet)
    drawn = in_a_terminal("draw", "natural", "-n", "12", folder=tmp_path)
    assert re.findall(r"^(\d): .*\n\x1b\[38;2;", drawn, re.MULTILINE) == list("12345")
    plain = in_a_terminal("show", "natural", folder=tmp_path, NO_COLOR="1")
    assert "\x1b" not in plain and "natural-stem" in plain


class Closed(StringIO):
    """An output that nobody reads, as Windows says it."""

    def flush(self) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize(
    ("error", "open_output", "closed_output"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), (True, True), (True, True)),
        (OSError(errno.EINVAL, "Invalid argument"), (False, False), (False, True)),
        (OSError(errno.ENOSPC, "No space left on device"), (False, False), (False, False)),
        (ValueError("other"), (False, False), (False, False)),
    ],
)
def test_whether_the_reader_of_the_output_stopped(
    error: Exception, open_output: tuple[bool, bool], closed_output: tuple[bool, bool]
) -> None:
    for output, expected in ((StringIO(), open_output), (Closed(), closed_output)):
        assert tuple(reader_stopped(error, output, platform) for platform in ("linux", "win32")) == expected
