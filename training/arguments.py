"""The arguments of ``python -m training``: one function a command."""

import argparse
import re
from pathlib import Path
from typing import TypeAlias

import torch

from training.engine.ray import Ray
from training.engine.workers import Engine, Processes
from training.fits.authors import UNSTATED
from training.fits.base import FITS
from training.fits.evaluate import SCALES
from training.images.own import FORMS, UNLICENSED
from training.kernels.groups import MIN_NORM, MIN_NORM_FILTER, Settings
from training.kernels.kinds import LAYER_KINDS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
OWN_IMAGES = ("prior_natural_stem", "prior_tinyimagenet")  # the recipes that take images of the user
WITH_SETTINGS = ("run", "fit")  # commands that also take stage.field=value


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses a command line; settings such as ``fit.epochs=3`` are in ``settings``, the command's name in ``command``.

    Raises:
        SystemExit: The command line is not valid, or asks for help.
    """
    parser = argparse.ArgumentParser(prog="python -m training", description="The pipeline: from images to priors.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="list the recipes")
    for add in (_run, _fit, _evaluate, _kernels, _import_authors, _bundle, _cards, _check, _publish):
        add(commands)
    options, settings = parser.parse_known_args(arguments)
    unknown = [word for word in settings if word.startswith("-") or options.command not in WITH_SETTINGS]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.settings = settings
    if named := getattr(options, "only", None):  # settings may follow the stages
        options.settings += [word for word in named if "=" in word]
        options.only = [word for word in named if "=" not in word]
        if not options.only:
            parser.error(f"argument --only: expected at least one stage; got settings alone: {' '.join(named)}")
    return options


def _run(commands: Commands) -> None:
    usage = "%(prog)s RECIPE [stage.field=value ...] [options]"
    parser = commands.add_parser("run", usage=usage, help="run the stages of a recipe; finished stages are reused")
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument(
        "--smoke", action="store_true", help="a run of seconds on a CPU, with synthetic data; --data is checked"
    )
    parser.add_argument("--out", type=Path, help="folder for the stages (default: runs/ and the recipe's folder)")
    images = f"images for {' or '.join(OWN_IMAGES)}: {FORMS}; add @64 to resize"
    parser.add_argument("--data", metavar="KIND:PATH", help=images)
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the data sets (default: data)")
    parser.add_argument("--download", action="store_true", help="download data sets that are missing")
    stages = "run these stages alone, and those they need; may be repeated"
    parser.add_argument("--only", action="extend", nargs="+", metavar="STAGE", help=stages)
    parser.add_argument("--record", action="store_true", help="copy the tables and figures to training/results")
    from_record = "count the runs in training/results as done, if the recipe keeps them there; so does --record"
    parser.add_argument("--from-record", action="store_true", help=from_record)
    _add_engine(parser)
    _add_device(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="number of processes that train networks in parallel (default: 1)")
    engine = "local: in processes of this machine; ray: on the nodes of a Ray cluster (default: %(default)s)"
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help=engine)
    address = "of the Ray cluster: auto for one on this machine, or HOST:PORT (default: starts Ray on this machine)"
    parser.add_argument("--address", metavar="ADDRESS", help=address)
    parser.add_argument("--cpus", type=int, metavar="N", help="CPUs and threads of a training on Ray (default: 1)")
    gpus = "GPUs of a training on Ray, such as 0.25 (default: 1 with --device cuda)"
    parser.add_argument("--gpus", type=float, metavar="SHARE", help=gpus)


def engine_of(options: argparse.Namespace, folder: Path) -> Engine:
    """Returns the engine that options of ``run`` ask for.

    Args:
        options: The options.
        folder: The folder that holds the stages' folders.

    Raises:
        ValueError: An option would have no effect, or a training on Ray no GPU to compute on.
    """
    of_ray = {name: value for name in ("address", "cpus", "gpus") if (value := getattr(options, name)) is not None}
    if options.engine == "local":
        if of_ray:
            raise ValueError(f"--{next(iter(of_ray))} is for --engine ray; add it, or leave out --{next(iter(of_ray))}")
        return Processes(1 if options.workers is None else options.workers)
    if options.workers is not None:
        raise ValueError("--workers is for --engine local; on Ray as many trainings run as the cluster has room for")
    on_gpu = options.device != "cpu"
    if on_gpu != bool(of_ray.setdefault("gpus", float(on_gpu))) or (on_gpu and options.device != "cuda"):
        raise ValueError(
            f"--device {options.device} does not go with --gpus {of_ray['gpus']:g}; with Ray give --device cpu, or "
            "--device cuda with --gpus above 0, because Ray chooses among GPUs"
        )
    return Ray(folder, **of_ray)


def _fit(commands: Commands) -> None:
    usage = "%(prog)s --kernels FILE --out DIR [fit.field=value ...] [options]"
    parser = commands.add_parser("fit", usage=usage, help="fit a prior to your own kernels")
    kernels = ".npy or .safetensors file of kernels (n, k, k) or (n, c, k, k), or a kernels.safetensors with its split"
    parser.add_argument("--kernels", type=Path, required=True, help=kernels)
    family = "default: %(default)s; mixture-by-depth takes the depths of a harvest"
    parser.add_argument("--family", choices=sorted(FITS), default="mixture", help=family)
    parser.add_argument("--out", type=Path, required=True, help="folder for the kernels, the fit and the prior")
    parser.add_argument("--name", help="name of the prior (default: the name of the folder)")
    licence = "licence under which others may use the prior, such as MIT, for publish (default: %(default)s)"
    parser.add_argument("--license", default=UNLICENSED, help=licence)
    parser.add_argument("--smoke", action="store_true", help="two epochs and one restart")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="device to compute on (default: %(default)s)")


def _evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="compare priors on kernels: log p, and statistics of their samples")
    prior = "one or more; may be repeated"
    parser.add_argument("--prior", action="extend", nargs="+", required=True, metavar="NAME|FOLDER", help=prior)
    kernels = "kernels.safetensors of a kernels stage, whose test kernels are used; or a file of kernels (n, k, k)"
    parser.add_argument("--kernels", type=Path, required=True, help=kernels)
    scale = (
        "given: kernels and priors as they are; best: each prior at the scale best for the kernels held out of log p"
    )
    parser.add_argument("--scale", choices=SCALES, default="given", help=f"{scale} (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table, one row per prior")
    parser.add_argument("--smoke", action="store_true", help="30 latents per kernel instead of 1,000")


def _kernels(commands: Commands) -> None:
    parser = commands.add_parser("kernels", help="collect kernels from existing checkpoints, to fit a prior to them")
    place = "a folder; a .safetensors, .onnx, .pth or .pt file; user/name or user/name@revision on the Hub; "
    place += "pypi:NAME==VERSION/FILE; https://…#sha256=…; or a manifest of these, .toml; may be repeated"
    parser.add_argument("--from", dest="sources", action="append", required=True, metavar="PLACE", help=place)
    parser.add_argument("--out", type=Path, required=True, help="gets one folder per kind and size, such as dense-3x3")
    parser.add_argument("--kind", choices=LAYER_KINDS, help="kind of layer (default: all)")
    size = "kernel size, such as 1x7; 3 for 3×3, and for 3 and 3×3×3 too (default: all)"
    parser.add_argument("--size", type=_size, metavar="K", help=size)
    transposed = "names of transposed convolutions, where shapes do not tell, such as '*.up.weight'; may be repeated"
    parser.add_argument("--transposed", action="append", default=[], metavar="PATTERN", help=transposed)
    per_layer = "maximum number of kernels per tensor, drawn at random (default: %(default)s)"
    parser.add_argument("--per-layer", type=int, default=Settings.per_layer, metavar="N", help=per_layer)
    min_norm = "drop kernels below this share of the 95 %% quantile of the norms in their tensor (default: "
    min_norm += f"{MIN_NORM}, and {MIN_NORM_FILTER} in stems and depthwise layers)"
    parser.add_argument("--min-norm", type=float, metavar="SHARE", help=min_norm)
    raw_scale = "keep the scale of kernels; by default each tensor is scaled to a root mean square of 1"
    parser.add_argument("--raw-scale", action="store_true", help=raw_scale)
    test = "families of checkpoints to hold out for the test, such as 'folder/*'; may be repeated (default: at random)"
    parser.add_argument("--test", action="append", default=[], metavar="PATTERN", help=test)
    parser.add_argument("--seed", type=int, default=Settings.seed, help="seed of the choice and of the split")


def _size(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]+(x[0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"a kernel size is a number, or one a side such as 1x7; got {text!r}")
    return tuple(map(int, text.split("x")))


def _import_authors(commands: Commands) -> None:
    parser = commands.add_parser("import-authors", help="convert a VAE of the paper's released code into a prior")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="vae_params.torch, written by train-vae.py")
    parser.add_argument("--kernel-size", type=int, required=True, help="7 or 5")
    parser.add_argument("--out", type=Path, required=True, help="folder for the prior")
    parser.add_argument("--name", help="name of the prior (default: the name of the folder)")
    parser.add_argument("--license", default=UNSTATED, help="license of the checkpoint (default: %(default)s)")
    var = "variance of the decoder, where the checkpoint was trained with train-vae.py --var, such as 0.001"
    parser.add_argument("--var", type=float, metavar="VARIANCE", help=var)


def _bundle(commands: Commands) -> None:
    parser = commands.add_parser("bundle", help="copy the finished priors of a recipe into the package")
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--out", type=Path, help="folder of its stages (default: runs/ and the recipe's folder)")


def _cards(commands: Commands) -> None:
    parser = commands.add_parser("cards", help="write the card of a prior; without FOLDER all pages of this repository")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="folder of your prior; gets a README.md")
    address = "repository on the Hub that the card names (default: user/ and the name of the prior)"
    parser.add_argument("--address", metavar="USER/REPO", help=address)


def _check(commands: Commands) -> None:
    parser = commands.add_parser("check", help="check that records, bundled priors and pages are as committed")
    parser.add_argument("--update", action="store_true", help="accept the records and bundled priors as they are now")


def _publish(commands: Commands) -> None:
    parser = commands.add_parser("publish", help="upload a prior to the Hugging Face Hub; by default a dry run")
    files = "folder with config.json and model.safetensors, and optionally README.md and *.png"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=files)
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="repository; created if it does not exist")
    parser.add_argument("--tag", default="v1", help="version; a tag is never moved (default: %(default)s)")
    parser.add_argument("--push", action="store_true", help="upload; without it, only print what would be done")
    parser.add_argument("--pin", action="store_true", help="enter the published release in the registry of this clone")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--allow-synthetic", action="store_true", help="allow priors made with --smoke, to try it out")
