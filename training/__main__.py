"""``python -m training list | run | fit | evaluate | kernels | import-authors | bundle | cards | check | publish``."""

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path

import torch

from dwp_init import PriorError, load_prior
from dwp_init.cli import printable
from dwp_init.layers import KINDS
from training import recipes
from training.engine.options import override
from training.engine.records import RESULTS, print_table, read_done, write_table
from training.engine.run import publish_records, run_stages
from training.engine.stage import Context, StageChangedError
from training.fits.authors import UNSTATED, import_authors
from training.fits.base import FITS
from training.fits.evaluate import check_unseen, evaluate_priors, transposed
from training.fits.score import PRIOR, SAMPLES, SMOKE
from training.images.own import short_name
from training.kernels.convolutions import LeftOut
from training.kernels.harvest import BY_CHECKPOINT, Settings, harvest
from training.kernels.kernelset import KERNELS
from training.kernels.read import KernelFile, read_reference
from training.publish import cards, guard
from training.publish import hub as publish
from training.publish.bundle import bundle


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status (1 after an error that the user can mend)."""
    parser = _parser()
    options, settings = parser.parse_known_args(arguments)
    unknown = [word for word in settings if word.startswith("-") or options.command not in (_run, _fit)]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.settings = settings
    try:
        options.command(options)
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError, PriorError, StageChangedError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


def _list(options: argparse.Namespace) -> None:
    for name in recipes.names():
        print(f"{name:24} {recipes.summary(name)}")


def _run(options: argparse.Namespace) -> None:
    recipe = recipes.load(options.recipe)
    folder = recipe.FOLDER + ("-smoke" if options.smoke else "")
    if options.data is None:
        stages = recipe.stages(smoke=options.smoke)
    elif hasattr(recipe, "DATA"):
        stages = recipe.stages(smoke=options.smoke, data=options.data)
        folder += f"-{short_name(options.data)}"
    else:
        raise ValueError(f"recipe {options.recipe!r} has its own images; --data is for those that make natural priors")
    stages = override(stages, options.settings)
    context = Context(
        out=options.out or Path("runs") / folder,
        data_root=options.data_root,
        download=options.download,
        device=_device(options.device),
        workers=options.workers,
        smoke=options.smoke,
    )
    if options.record and (options.smoke or options.settings or options.data):
        raise ValueError("--record keeps what the recipe itself gives; leave out --smoke, --data and stage.field=value")
    folders = run_stages(stages, context)
    if options.record:
        for folder in folders.values():
            for path in publish_records(folder, RESULTS):
                print(f"recorded {path}")


def _fit(options: argparse.Namespace) -> None:
    fit = FITS[options.family](name=options.name or options.out.resolve().name)
    if options.smoke:
        small = {"epochs": 2, "restarts": 1}
        fit = dataclasses.replace(fit, **{key: value for key, value in small.items() if hasattr(fit, key)})
    stages = override({"kernels": KernelFile.of(options.kernels), "fit": fit}, options.settings)
    context = Context(out=options.out, device=_device(options.device), smoke=options.smoke)
    folder = run_stages(stages, context)["fit"]
    metrics = read_done(folder)["metrics"]
    print(f"log p of held-out kernels: {metrics['log_prob']} nats, of a Gaussian {metrics['gaussian_log_prob']}")
    print(f"the prior is in {folder / PRIOR}; dwp_init.apply_(model, prior={str(folder / PRIOR)!r})")


def _evaluate(options: argparse.Namespace) -> None:
    priors = {name: load_prior(name) for name in options.prior}
    check_unseen(options.kernels, priors)
    rows = evaluate_priors(
        priors, *read_reference(options.kernels), samples=SMOKE["samples"] if options.smoke else SAMPLES
    )
    print_table(transposed(rows))
    if options.out:
        write_table(options.out, rows)
        print(f"wrote {options.out}")


def _kernels(options: argparse.Namespace) -> None:
    names = [field.name for field in dataclasses.fields(Settings)]
    found = harvest(options.sources, options.out, Settings(**{name: getattr(options, name) for name in names}))
    print_table(
        [
            {
                "kernels": name,
                "checkpoints": len(done["source"]["checkpoints"]),
                "tensors": done["source"]["tensors"],
                **done["kernels"],
            }
            for name, done in found.folders.items()
        ]
    )
    for name, done in found.folders.items():
        if done["source"]["split"] != BY_CHECKPOINT:
            print(f"{name} is split {done['source']['split']}")
    _print_left_out(found.left_out)
    file = options.out / next(iter(found.folders)) / KERNELS
    print(f"to go on: python -m training fit --kernels {file} --out DIR")


def _print_left_out(left_out: list[LeftOut]) -> None:
    by_reason: dict[str, list[LeftOut]] = {}
    for item in left_out:
        by_reason.setdefault(item.reason, []).append(item)
    if by_reason:
        print_table(
            [
                {"left out": reason, "how many": len(items), "such as": _one_left_out(items[0])}
                for reason, items in by_reason.items()
            ]
        )


def _one_left_out(item: LeftOut) -> str:
    where = f"{item.tensor} of {item.checkpoint}" if item.tensor else item.checkpoint
    return printable(f"{where}: {item.detail}" if item.detail else where)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from error


def _import_authors(options: argparse.Namespace) -> None:
    folder = import_authors(options.checkpoint, options.kernel_size, options.out, options.name, options.license)
    print(f"the prior is in {folder}; dwp_init.apply_(model, prior={str(folder)!r})")


def _bundle(options: argparse.Namespace) -> None:
    recipe = recipes.load(options.recipe)
    if not hasattr(recipe, "PRIORS"):
        raise ValueError(f"recipe {options.recipe!r} makes no priors; those that do are called prior_…")
    print(f"bundled {', '.join(bundle(recipe, options.out or Path('runs') / recipe.FOLDER))}")


def _cards(options: argparse.Namespace) -> None:
    if options.folder is None and options.address:
        raise ValueError(f"--address {options.address} is for the card of a prior of your own; name its FOLDER too")
    written = cards.write_pages() if options.folder is None else _write_card(options.folder, options.address)
    for path in written:
        print(f"wrote {path}")


def _check(options: argparse.Namespace) -> None:
    if options.update:
        print(f"wrote {guard.update()}")
    guard.check()
    print("the records, the bundled priors and every page are as committed")


def _write_card(folder: Path, address: str | None) -> list[Path]:
    if address is None:
        name = re.sub(r"[^\w.-]+", "-", load_prior(folder).details["name"], flags=re.ASCII).strip("-") or "prior"
        address = f"user/{name}"
        print(f"the card says prior={address!r}; give --address for another repository")
    return cards.write_card(folder, address)


def _publish(options: argparse.Namespace) -> None:
    release = publish.prepare(options.folder, options.repo, options.tag, options.allow_synthetic)
    if options.pin:
        publish.check_pin(release)
    state = publish.look_up(release, private=options.private)
    if options.pin and not (options.push or state.tagged):
        raise ValueError(f"--pin needs a published release, and {release.repo}@{release.tag} is not there: add --push")
    print("\n".join(["checked:", *(f"  {check}" for check in release.checks), "to do:"]))
    print("\n".join(f"  {line}" for line in publish.plan(release, state, options.private)))
    if not (options.push or state.tagged):
        print("dry run: nothing was sent; --push does it")
        return
    commit = publish.push(release, state, private=options.private)
    print(f"read back into an empty cache, by commit and by tag, and it draws the same: {release.repo}@{commit}")
    name, entry = release.name, publish.registry_entry(release, commit)
    print(json.dumps({name: entry}, indent=2, ensure_ascii=False))
    if options.pin:
        publish.pin(name, entry)
        print(f"pinned in {publish.REGISTRY}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    commands = parser.add_subparsers(required=True)
    commands.add_parser("list", help="the recipes, a line each").set_defaults(command=_list)
    usage = "%(prog)s RECIPE [stage.field=value ...] [options]"
    run = commands.add_parser("run", usage=usage, help="run a recipe's stages; finished ones are reused")
    run.set_defaults(command=_run)
    run.add_argument("recipe", metavar="RECIPE")
    run.add_argument("--smoke", action="store_true", help="seconds on a CPU, on synthetic data")
    run.add_argument("--out", type=Path, help="folder for the stages (default: runs/<the recipe's folder>)")
    own = "other images for prior_tinyimagenet: imagefolder:PATH, parquet:PATH or parquet:user/name, @64 to reduce them"
    run.add_argument("--data", metavar="KIND:PATH", help=own)
    run.add_argument("--data-root", type=Path, default=Path("data"), help="folder with the data sets (default: data)")
    run.add_argument("--download", action="store_true", help="fetch a data set that is missing")
    run.add_argument("--record", action="store_true", help="copy the tables and figures to training/results")
    run.add_argument("--device", default=device)
    run.add_argument("--workers", type=int, default=1, help="networks trained side by side, a process each")
    usage = "%(prog)s --kernels FILE --out DIR [fit.field=value ...] [options]"
    fit = commands.add_parser("fit", usage=usage, help="fit a prior to kernels of your own")
    fit.set_defaults(command=_fit)
    families = [family for family, kind in FITS.items() if kind.one_layer]
    kernels = ".npy or .safetensors, (n, k, k) or (n, c, k, k); or kernels.safetensors of `kernels`, which is split"
    fit.add_argument("--kernels", type=Path, required=True, help=kernels)
    fit.add_argument("--family", choices=families, default="mixture", help="default: %(default)s")
    fit.add_argument("--out", type=Path, required=True, help="folder for the kernels, the fit and the prior")
    fit.add_argument("--name", help="what the prior is called (default: the folder's name)")
    fit.add_argument("--smoke", action="store_true", help="two epochs, one start")
    fit.add_argument("--device", default=device)
    evaluate = commands.add_parser("evaluate", help="compare priors on kernels: log p and what their samples are like")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--prior", nargs="+", required=True, metavar="NAME|FOLDER")
    kernels = "a kernels stage's kernels.safetensors, of which the test kernels count; or a file of kernels (n, k, k)"
    evaluate.add_argument("--kernels", type=Path, required=True, help=kernels)
    evaluate.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table, a row per prior")
    evaluate.add_argument("--smoke", action="store_true", help="30 latents per kernel instead of 1,000")
    harvested = commands.add_parser("kernels", help="harvest kernels from checkpoints that exist already, to fit")
    harvested.set_defaults(command=_kernels)
    place = "a folder, a .safetensors file, or user/name or user/name@revision on the Hub; may be given several times"
    harvested.add_argument("--from", dest="sources", action="append", required=True, metavar="PLACE", help=place)
    harvested.add_argument("--out", type=Path, required=True, help="gets a folder per kind and size, as dense-3x3")
    harvested.add_argument("--kind", choices=KINDS, help="default: all")
    harvested.add_argument("--size", type=int, metavar="K", help="3 for 3×3 kernels (default: all)")
    per_layer = "kernels taken of each tensor at most, at random (default: %(default)s)"
    harvested.add_argument("--per-layer", type=int, default=Settings.per_layer, metavar="N", help=per_layer)
    min_norm = "drop kernels of less than this times the 95 %% quantile of their tensor's norms (default: %(default)s)"
    harvested.add_argument("--min-norm", type=float, default=Settings.min_norm, metavar="SHARE", help=min_norm)
    raw_scale = "keep kernels as they are; else those of a tensor are scaled to a root mean square of 1"
    harvested.add_argument("--raw-scale", action="store_true", help=raw_scale)
    harvested.add_argument("--seed", type=int, default=Settings.seed, help="of what is taken, and of the split")
    authors = commands.add_parser("import-authors", help="turn a VAE of the paper's released code into a prior")
    authors.set_defaults(command=_import_authors)
    authors.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the vae_params.torch of train-vae.py")
    authors.add_argument("--kernel-size", type=int, required=True, help="7 or 5")
    authors.add_argument("--out", type=Path, required=True, help="folder for the prior")
    authors.add_argument("--name", help="what the prior is called (default: the folder's name)")
    authors.add_argument("--license", default=UNSTATED, help="of the checkpoint (default: %(default)s)")
    bundled = commands.add_parser("bundle", help="put a recipe's finished priors into the package")
    bundled.set_defaults(command=_bundle)
    bundled.add_argument("recipe", metavar="RECIPE")
    bundled.add_argument("--out", type=Path, help="folder with its stages (default: runs/<the recipe's folder>)")
    pages = commands.add_parser("cards", help="write the card of a prior; without FOLDER, all pages of this repository")
    pages.set_defaults(command=_cards)
    pages.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a prior of your own: gets a README.md")
    pages.add_argument("--address", metavar="USER/REPO", help="where it will be on the Hub (default: user/<its name>)")
    checking = commands.add_parser("check", help="whether records, bundled priors and pages are as committed")
    checking.set_defaults(command=_check)
    checking.add_argument("--update", action="store_true", help="take the records and bundled priors as they are now")
    publishing = commands.add_parser(
        "publish", help="send a prior's folder to the Hugging Face Hub; a dry run by default"
    )
    publishing.set_defaults(command=_publish)
    publishing.add_argument(
        "folder", type=Path, metavar="FOLDER", help="config.json, model.safetensors; maybe README.md, *.png"
    )
    publishing.add_argument("--repo", required=True, metavar="USER/NAME", help="made if need be")
    publishing.add_argument("--tag", default="v1", help="the version, which is never moved (default: %(default)s)")
    publishing.add_argument("--push", action="store_true", help="do it; without, say what would be done")
    publishing.add_argument(
        "--pin", action="store_true", help="write the registry entry of what is published into this clone"
    )
    publishing.add_argument("--private", action="store_true", help="make the repository a private one")
    publishing.add_argument("--allow-synthetic", action="store_true", help="publish what --smoke made, to try this out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
