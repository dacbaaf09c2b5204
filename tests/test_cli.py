import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwp_init import Gaussian, cli, registry, save_prior
from dwp_init.version import __version__


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


def test_marks_that_the_output_cannot_encode_are_escaped(tmp_path, monkeypatch):
    prior, raw = str(save_prior(Gaussian((1, 3, 3)), tmp_path / "mine")), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    for arguments in (["list"], ["show", prior], ["draw", prior, "-n", "2", "-o", str(tmp_path / "a.png")]):
        start = raw.tell()
        assert cli.main(arguments) == 0 and rb"3\xd73" in raw.getvalue()[start:]


def command_line(*arguments, **options):
    path = str(Path(registry.__file__).parents[1])
    command = [sys.executable, "-m", "dwp_init", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, **options)


def test_broken_pipe_is_quiet(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads
    done = command_line("show", str(save_prior(Gaussian((1, 3, 3)), tmp_path / "mine")), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_as_a_command():
    done = command_line("show", "nothing")
    assert done.returncode == 1 and done.stderr.startswith("error: no prior and no folder is called 'nothing'")
