"""The command line: ``dwp-init list | pull | show | draw | apply``."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from dwp_init.access import Access
from dwp_init.errors import PriorNotFoundError
from dwp_init.files import parse_prior
from dwp_init.hub import search
from dwp_init.initialize import Scale, apply_
from dwp_init.picture import Colors, kernel_sheet, write_png
from dwp_init.priors import Prior
from dwp_init.registry import find, list_priors, load_prior, obtain, registry
from dwp_init.report import size_text
from dwp_init.sets import SETS
from dwp_init.storage import safetensors_bytes, write_bytes
from dwp_init.version import __version__

PRIOR = "a name from `dwp-init list`, a folder, or user/repo[@revision] on the Hugging Face Hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; prints ``error: ...`` instead of a traceback where the user can mend it.

    Args:
        arguments: The command line, ``sys.argv[1:]`` by default.

    Returns:
        The exit status: 0, or 1 after an error. Wrong usage exits with 2, from argparse.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output stopped, as in ``dwp-init list | head -1``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except (LookupError, AttributeError) as error:  # of the user's own layers: their text alone says too little
        print(f"error: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dwp-init", description="Initialises convolutions from learned priors.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="list the priors that come with this version, or those on the Hub")
    command.add_argument("--remote", action="store_true", help="those that anyone has published on the Hub")
    command.set_defaults(run=_list)

    command = commands.add_parser("pull", help="download a prior into the cache, for use without a network")
    command.add_argument("prior", metavar="NAME|USER/REPO[@REVISION]", help="a registered name, or a repository")
    command.add_argument("--cache-dir", metavar="DIR", help="default: HF_HUB_CACHE, as for every Hugging Face library")
    command.set_defaults(run=_pull)

    command = commands.add_parser("show", help="show a prior's config, metrics and provenance")
    command.add_argument("prior", metavar="PRIOR", help=PRIOR)
    command.set_defaults(run=_show)

    command = commands.add_parser("draw", help="draw kernels from a prior, as a picture")
    command.add_argument("prior", metavar="PRIOR", help=PRIOR)
    command.add_argument("-n", type=_whole(1, 10_000), default=64, metavar="N", help="how many kernels (%(default)s)")
    command.add_argument("-o", dest="output", default="kernels.png", metavar="FILE.png", help="default: %(default)s")
    command.add_argument("--seed", type=_whole(0, 2**63 - 1), default=0, metavar="N", help="default: %(default)s")
    command.add_argument("--mean", action="store_true", help="leave out the noise: decoder means, learned kernels")
    command.add_argument("--colors", choices=get_args(Colors), default="diverging", help="default: %(default)s")
    command.set_defaults(run=_draw)

    command = commands.add_parser("apply", help="say what apply_ would do to a model; with --save, do it")
    command.add_argument("model", metavar="MODULE:FACTORY", help="a function, class or model, such as my.nets:make_net")
    command.add_argument(
        "--prior", action="append", required=True, metavar="PRIOR", help=f"{PRIOR}, or a set; repeatable"
    )
    command.add_argument("--layers", action="extend", nargs="+", metavar="PATTERN", help="only layers with such names")
    command.add_argument("--scale", choices=get_args(Scale), help="He's scale of each layer, or the prior's own")
    command.add_argument(
        "--orthogonal", action=argparse.BooleanOptionalAction, help="whether output channels are made orthogonal"
    )
    command.add_argument("--resize", action="store_true", help="kernels of a size that no prior has, from the nearest")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    command.add_argument("--save", metavar="FILE.safetensors", help="draw the kernels and save the model's state_dict")
    command.set_defaults(run=_apply)
    return parser


def _whole(low: int, high: int) -> Any:
    """Returns an argparse type for a whole number in [low, high]."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}; got {text!r}")
        return int(text)

    return parse


def _list(options: argparse.Namespace) -> None:
    if options.remote:
        _list_remote()
    else:
        _list_registered()


def _list_registered() -> None:
    names = list_priors()
    if not names:
        raise ValueError("this dwp_init comes without priors; install it anew, or pass a prior's folder")
    rows = [("name", "kernel", "family", "source", "log p")]
    for name in names:
        entry = registry()[name]
        log_prob = entry.get("log_prob")
        shown = "-" if log_prob is None else f"{log_prob:.1f}"
        rows.append((name, size_text(entry["kernel_shape"]), entry["family"], entry["source"], shown))
    _print_table(rows)
    print("log p: nats per kernel, on kernels of held-out networks")
    for name, prior_set in SETS.items():
        members = ", ".join(f"{like} ({kind})" for kind, like in prior_set)
        print(f"sets, for `dwp-init apply`: {name}: {members}")


def _list_remote() -> None:
    found = search(Access())
    if not found:
        raise PriorNotFoundError("the Hub has no repository tagged dwp-prior; `dwp-init list` names those at hand")
    rows = [("repository", "kernel", "family", "size", "downloads", "updated")]
    for listing in found:
        kernel = listing.kernel.replace("x", "×") or "-"
        size = "-" if listing.size is None else f"{listing.size / 1e6:.2f} MB"
        rows.append((listing.repo, kernel, listing.family or "-", size, str(listing.downloads), listing.updated or "-"))
    _print_table([tuple(map(_plain, row)) for row in rows])
    print("size: of all revisions; downloads: in the last 30 days. Anyone can publish: pin a revision, user/repo@v1")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _pull(options: argparse.Namespace) -> None:
    place = find(options.prior)
    if isinstance(place, Path):
        raise ValueError(f"{options.prior!r} is a folder here, so there is nothing to download")
    files = obtain(place, Access(cache_dir=options.cache_dir))
    prior = parse_prior(files.contents, files.owner)
    size = sum(map(len, files.contents.values())) / 1e6
    origin = f"commit {files.commit}" if files.commit else "comes with this version, so there is nothing to download"
    print(f"{options.prior}: {size_text(prior.kernel_shape)}, {prior.family}, {size:.2f} MB, {origin}")
    print(files.folder)


def _show(options: argparse.Namespace) -> None:
    prior = load_prior(options.prior)
    details = dict(prior.details)
    about = {
        "name": details.pop("name"),
        "family": prior.family,
        "kernel": size_text(prior.kernel_shape),
        **prior.arguments(),
        "parameters": f"{prior.parameter_count:,}",
        "log_prob": "exact" if prior.exact else "a lower bound",
    }
    first = {key: details.pop(key) for key in ("metrics", "source", "license") if key in details}
    print("\n".join([*_lines(about), *_lines(first), *_lines(details)]))


def _draw(options: argparse.Namespace) -> None:
    prior = load_prior(options.prior)
    if options.mean and not prior.has_noise:
        raise ValueError(f"--mean has no effect: a {prior.family} prior has no noise step; leave it out")
    generator = torch.Generator().manual_seed(options.seed)
    kernels = prior.sample(options.n, generator, noise=not options.mean)
    pixels = kernel_sheet(kernels, colors=options.colors)
    path = write_png(_in_folder(options.output, "-o"), pixels)
    height, width, _ = pixels.shape
    print(f"{options.n} kernels of {_name(prior)} ({size_text(prior.kernel_shape)}): {path}, {width}×{height} pixels")


def _apply(options: argparse.Namespace) -> None:
    target = None if options.save is None else _checked_target(options.save)
    torch.manual_seed(options.seed % 2**63)  # so that the factory's own layers are reproducible too
    model = _load_model(options.model)
    chosen = {"orthogonal": options.orthogonal, "resize": options.resize}
    chosen |= {} if options.scale is None else {"scale": options.scale}
    priors, dry_run = list(options.prior), target is None
    report = apply_(model, priors, layers=options.layers, seed=options.seed, dry_run=dry_run, **chosen)
    if target is not None:
        state = _call("reading the model's state_dict", model.state_dict)
        write_bytes(target, _packed_state(state))
    print(report)
    print(f"saved: {target}" if target else "dry run: nothing was drawn; --save FILE.safetensors draws and saves")


def _checked_target(file: str) -> Path:
    target = Path(file)
    if target.suffix != ".safetensors":
        raise ValueError(f"--save writes safetensors, so the name must end in .safetensors; got {target.name!r}")
    return _in_folder(target, "--save")


def _in_folder(file: str | Path, option: str) -> Path:
    folder = Path(file).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{option}: the folder {str(folder)!r} does not exist; make it first")
    return Path(file)


def _load_model(spec: str) -> nn.Module:
    module_name, _, factory_name = spec.partition(":")
    names = [*module_name.split("."), *factory_name.split(".")]
    if not all(name.isidentifier() for name in names) or module_name.endswith(".py"):
        raise ValueError(f"the model is MODULE:FACTORY, such as my.nets:make_net, without .py; got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = _call(f"importing {module_name!r}", importlib.import_module, module_name)
    for name in factory_name.split("."):
        if not hasattr(found, name):
            there = [key for key in dir(found) if not key.startswith("_") and callable(getattr(found, key, None))]
            raise ValueError(f"{module_name!r} has no {factory_name!r}; it has {', '.join(there) or 'no function'}")
        found = getattr(found, name)
    if not isinstance(found, nn.Module):
        found = _call(f"calling {spec}", found) if callable(found) else found
    if not isinstance(found, nn.Module):
        raise TypeError(
            f"{spec} gives a {type(found).__name__}, expected a torch.nn.Module or a function that makes one"
        )
    return found


def _call(doing: str, function: Any, *arguments: Any) -> Any:
    """Calls the user's code; of an exception it keeps the kind, the message and the place."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({frame.filename}, line {frame.lineno})"
        where = "" if frame.filename in (__file__, importlib.__file__) or "<frozen" in frame.filename else place
        raise ValueError(f"{doing} failed: {type(error).__name__}: {error}{where}") from error


def _packed_state(state: dict[str, Any]) -> bytes:
    """Packs a state_dict as ``safetensors.torch.save_model`` does: of tensors that are the same, the first name."""
    kept: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, tensor in sorted(state.items()):
        key: tuple[Any, ...] = (name,)
        if isinstance(tensor, torch.Tensor) and tensor.numel() and not tensor.is_meta:
            key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if kept.setdefault(key, name) == name:
            tensors[name] = tensor
        else:
            aliases[name] = kept[key]
    return safetensors_bytes(tensors, aliases)


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    """Formats nested values, a line each; what could steer a terminal is escaped."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{_plain(key)}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{_plain(key)}: {', '.join(map(_plain, value))}")
        else:
            lines.append(f"{indent}{_plain(key)}: {_plain(value)}")
    return lines


def _plain(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else ascii(text)


def printable(text: str) -> str:
    """Escapes what could steer a terminal; lines stay lines."""
    return "".join(mark if mark.isprintable() or mark == "\n" else ascii(mark)[1:-1] for mark in text)


def _name(prior: Prior) -> str:
    return _plain(prior.details["name"])


if __name__ == "__main__":
    sys.exit(main())
