"""The command line: ``dwp-init list | pull | show | draw | apply``, one class for each command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args

import torch

from dwp_init.access import Access
from dwp_init.errors import PriorNotFoundError
from dwp_init.files import parse_prior
from dwp_init.hub import search
from dwp_init.initialize import Scale, apply_
from dwp_init.picture import Colors, kernel_sheet, write_png
from dwp_init.registry import find, list_priors, load_prior, obtain, registry
from dwp_init.report import kernel_text
from dwp_init.sets import SETS
from dwp_init.text import aligned, outline, printable, shown_value
from dwp_init.user_model import load_model, save_state
from dwp_init.version import __version__

PRIOR = "a name from `dwp-init list`, a folder, or user/repo[@revision] on the Hugging Face Hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; prints ``error: ...`` instead of a traceback if the user can correct the error.

    Args:
        arguments: The command line, ``sys.argv[1:]`` by default.

    Returns:
        The exit status: 0, or 1 after an error. After wrong usage argparse exits with 2.
    """
    options = vars(_parser().parse_args(arguments))
    command: Callable[..., Command] = options.pop("command")
    try:
        command(**options).run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output stopped, as in ``dwp-init list | head -1``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except (LookupError, AttributeError) as error:  # from the user's own layers; their text alone says too little
        print(f"error: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


class Command(Protocol):
    """A command; its fields are its options, and its docstring is its help text."""

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Declares the options, under the names of the fields."""

    def run(self) -> None:
        """Runs the command and prints what it found or did."""


@dataclass(frozen=True)
class ListCommand:
    """Lists the priors that come with this version, or those on the Hub."""

    remote: bool

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--remote", action="store_true", help="the priors that anyone has published on the Hub")

    def run(self) -> None:
        if self.remote:
            self._list_remote()
        else:
            self._list_registered()

    def _list_registered(self) -> None:
        names = list_priors()
        if not names:
            raise ValueError("this dwp_init comes without priors; install it again, or pass a prior's folder")
        rows = [("name", "kernel", "family", "source", "log p")]
        for name in names:
            entry = registry()[name]
            log_prob = entry.get("log_prob")
            shown = "-" if log_prob is None else f"{log_prob:.1f}"
            rows.append((name, kernel_text(entry["kernel_shape"]), entry["family"], entry["source"], shown))
        print(aligned(rows))
        print("log p: nats per kernel, on kernels of held-out networks")
        for name, prior_set in SETS.items():
            members = ", ".join(f"{like} ({kind})" for kind, like in prior_set)
            print(f"sets, for `dwp-init apply`: {name}: {members}")

    def _list_remote(self) -> None:
        found = search(Access())
        if not found:
            raise PriorNotFoundError("the Hub has no repository tagged dwp-prior; `dwp-init list` names local priors")
        rows = [("repository", "kernel", "family", "size", "downloads", "updated")]
        for listing in found:
            kernel, family = listing.kernel.replace("x", "×") or "-", listing.family or "-"
            size = "-" if listing.size is None else f"{listing.size / 1e6:.2f} MB"
            rows.append((listing.repo, kernel, family, size, str(listing.downloads), listing.updated or "-"))
        print(aligned(rows))
        print(
            "size: of all revisions; downloads: in the last 30 days. Anyone can publish: pin a revision, user/repo@v1"
        )


@dataclass(frozen=True)
class PullCommand:
    """Downloads a prior into the cache, for use without a network."""

    prior: str
    cache_dir: str | None

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prior", metavar="NAME|USER/REPO[@REVISION]", help="a registered name, or a repository")
        parser.add_argument("--cache-dir", metavar="DIR", help="default: HF_HUB_CACHE, as in huggingface_hub")

    def run(self) -> None:
        place = find(self.prior)
        if isinstance(place, Path):
            raise ValueError(f"{self.prior!r} is a folder here, so there is nothing to download")
        files = obtain(place, Access(cache_dir=self.cache_dir))
        prior = parse_prior(files.contents, files.owner)
        size = sum(map(len, files.contents.values())) / 1e6
        origin = (
            f"commit {files.commit}" if files.commit else "comes with this version, so there is nothing to download"
        )
        print(f"{self.prior}: {kernel_text(prior.kernel_shape)}, {prior.family}, {size:.2f} MB, {origin}")
        print(files.folder)


@dataclass(frozen=True)
class ShowCommand:
    """Shows a prior's configuration, metrics and provenance."""

    prior: str

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prior", metavar="PRIOR", help=PRIOR)

    def run(self) -> None:
        prior = load_prior(self.prior)
        details = dict(prior.details)
        about = {
            "name": details.pop("name"),
            "family": prior.family,
            "kernel": kernel_text(prior.kernel_shape),
            **prior.arguments(),
            "parameters": f"{prior.parameter_count:,}",
            "log_prob": "exact" if prior.exact else "a lower bound",
        }
        first = {key: details.pop(key) for key in ["metrics", "source", "license"] if key in details}
        print("\n".join([*outline(about), *outline(first), *outline(details)]))


@dataclass(frozen=True)
class DrawCommand:
    """Draws kernels from a prior, as a picture."""

    prior: str
    n: int
    output: str
    seed: int
    mean: bool
    colors: Colors

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        colors, default = get_args(Colors), "default: %(default)s"
        parser.add_argument("prior", metavar="PRIOR", help=PRIOR)
        parser.add_argument(
            "-n", type=_whole(1, 10_000), default=64, metavar="N", help="number of kernels (%(default)s)"
        )
        parser.add_argument("-o", dest="output", default="kernels.png", metavar="FILE.png", help=default)
        parser.add_argument("--seed", type=_whole(0, 2**63 - 1), default=0, metavar="N", help=default)
        parser.add_argument("--mean", action="store_true", help="without the noise: decoder means, learned kernels")
        parser.add_argument("--colors", choices=colors, default=colors[0], help=default)

    def run(self) -> None:
        prior = load_prior(self.prior)
        if self.mean and not prior.has_noise:
            raise ValueError(f"--mean has no effect: a {prior.family} prior has no noise step; drop it")
        generator = torch.Generator().manual_seed(self.seed)
        pixels = kernel_sheet(prior.sample(self.n, generator, noise=not self.mean), colors=self.colors)
        path = write_png(_in_folder(self.output, "-o"), pixels)
        height, width, _ = pixels.shape
        name, size = shown_value(prior.details["name"]), kernel_text(prior.kernel_shape)
        print(f"{self.n} kernels of {name} ({size}): {path}, {width}×{height} pixels")


@dataclass(frozen=True)
class ApplyCommand:
    """Shows what apply_ would do to a model; with --save, does it."""

    model: str
    prior: list[str]
    layers: list[str] | None
    scale: Scale
    orthogonal: bool | None
    resize: bool
    seed: int
    save: str | None

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        scales = get_args(Scale)
        parser.add_argument("model", metavar="MODULE:FACTORY", help="a function, class or model: my.nets:make_net")
        parser.add_argument(
            "--prior", action="append", required=True, metavar="PRIOR", help=f"{PRIOR}, or a set; repeatable"
        )
        parser.add_argument(
            "--layers", action="extend", nargs="+", metavar="PATTERN", help="only layers whose names match"
        )
        parser.add_argument(
            "--scale",
            choices=scales,
            default=scales[0],
            help="He's scale for each layer's fan-in, or the prior's own (%(default)s)",
        )
        parser.add_argument(
            "--orthogonal", action=argparse.BooleanOptionalAction, help="whether to make output channels orthogonal"
        )
        parser.add_argument(
            "--resize", action="store_true", help="resize kernels for layers of a size that no prior has"
        )
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
        parser.add_argument("--save", metavar="FILE.safetensors", help="draw kernels and save the model's state_dict")

    def run(self) -> None:
        target = None if self.save is None else _checked_target(self.save)
        torch.manual_seed(self.seed % 2**63)  # so that the factory's own layers are reproducible too
        model = load_model(self.model)
        report = apply_(
            model,
            self.prior,
            layers=self.layers,
            scale=self.scale,
            orthogonal=self.orthogonal,
            resize=self.resize,
            seed=self.seed,
            dry_run=target is None,
        )
        if target is not None:
            save_state(model, target)
        print(report)
        dry = "dry run: nothing was drawn; --save FILE.safetensors draws and saves"
        print(f"\nsaved: {target}" if target else f"\n{dry}")


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


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Returns an argparse type for a whole number in [low, high]."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}; got {text!r}")
        return int(text)

    return parse


def _checked_target(file: str) -> Path:
    target = Path(file)
    if target.suffix != ".safetensors":
        raise ValueError(f"--save writes safetensors, so the name must end in .safetensors; got {target.name!r}")
    return _in_folder(target, "--save")


def _in_folder(file: str | Path, option: str) -> Path:
    folder = Path(file).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{option}: the folder {str(folder)!r} does not exist; create it first")
    return Path(file)
