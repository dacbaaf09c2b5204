"""The command line: ``dwp-init list | pull | show | draw | apply``."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dwp_init.commands.apply import ApplyCommand
from dwp_init.commands.base import Command
from dwp_init.commands.draw import DrawCommand
from dwp_init.commands.list import ListCommand
from dwp_init.commands.pull import PullCommand
from dwp_init.commands.show import ShowCommand
from dwp_init.interrupts import run_command
from dwp_init.terminal import escape_what_cannot_be_encoded, reader_stopped
from dwp_init.text import printable
from dwp_init.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; prints ``error: ...`` instead of a traceback if the user can correct the error.

    Args:
        arguments: The command line, ``sys.argv[1:]`` by default.

    Returns:
        The exit status: 0, 1 after an error, 130 after SIGINT or 143 after SIGTERM. After wrong usage argparse exits
        with 2.
    """
    escape_what_cannot_be_encoded()
    options = vars(_parser().parse_args(arguments))
    command: Callable[..., Command] = options.pop("command")
    return run_command(lambda: _act(command, options))


def _act(command: Callable[..., Command], options: dict[str, Any]) -> int:
    try:
        command(**options).run()
        sys.stdout.flush()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if reader_stopped(error, sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except (LookupError, AttributeError) as error:  # from the user's own layers; their text alone says too little
        print(f"error: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


_COMMANDS: dict[str, type[Command]] = {
    "list": ListCommand,
    "pull": PullCommand,
    "show": ShowCommand,
    "draw": DrawCommand,
    "apply": ApplyCommand,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dwp-init", description="Initialises convolutions from learned priors.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        chosen = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        command.add_options(chosen)
        chosen.set_defaults(command=command)
    return parser
