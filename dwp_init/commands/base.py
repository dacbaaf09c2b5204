"""What a command is, and the checks of options that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PRIOR = "a name from `dwp-init list`, a set, a folder, or user/repo[@revision] on the Hugging Face Hub"


class Command(Protocol):
    """A command; its fields are its options, and its docstring is its help text."""

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Declares the options, under the names of the fields."""

    def run(self) -> None:
        """Runs the command and prints what it found or did."""


def whole_option(low: int, high: int) -> Callable[[str], int]:
    """Returns an argparse type for a whole number in [low, high]."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}; got {text!r}")
        return int(text)

    return parse


def depth_option(text: str) -> float:
    """Parses a relative depth, a number in [0, 1]."""
    try:
        depth = float(text)
    except ValueError:
        depth = -1.0
    if not 0 <= depth <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0, the first layer, to 1, the last; got {text!r}")
    return depth


def in_folder(file: str | Path, option: str) -> Path:
    """Returns the path of a file to write, that of a link's target; raises ``FileNotFoundError`` without its folder."""
    path = Path(file).resolve() if Path(file).is_symlink() else Path(file)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: the folder {str(path.parent)!r} does not exist; create it first")
    return path
