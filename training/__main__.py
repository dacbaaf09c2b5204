"""``python -m training``: runs the commands that :mod:`training.arguments` describes."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dwp_init import PriorError, load_prior
from dwp_init.interrupts import run_command
from dwp_init.registry import REGISTRY
from dwp_init.terminal import escape_what_cannot_be_encoded
from dwp_init.text import printable
from training import recipes
from training.arguments import OWN_IMAGES, WITH_SETTINGS, engine_of, parse
from training.engine.options import only, override
from training.engine.records import RESULTS, print_table, read_done, write_table
from training.engine.run import run_stages
from training.engine.stage import Context, StageChangedError
from training.fits.authors import import_authors
from training.fits.base import FITS
from training.fits.evaluate import check_unseen, evaluate_priors, transposed
from training.fits.score import FITTED, SAMPLES, SMOKE
from training.images.own import short_name
from training.kernels.convolutions import LeftOut
from training.kernels.groups import BY_FAMILY, Settings
from training.kernels.harvest import harvest
from training.kernels.kernelset import KERNELS
from training.kernels.read import KernelFile, read_reference
from training.publish import cards, guard, hub, pages
from training.publish import release as releases
from training.publish.bundle import bundle
from training.publish.check import shortfall

MENDABLE = (ValueError, TypeError, OSError, ImportError, NotImplementedError, PriorError, StageChangedError)

DRY_RUN = "dry run: nothing was sent; --push does it"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 1 after an error that the user can mend, 130 or 143 after a signal."""
    escape_what_cannot_be_encoded()
    options = parse(arguments)
    way_on = "; run the same command again to resume" if options.command in WITH_SETTINGS else ""
    return run_command(lambda: _act(options), way_on)


def _act(options: argparse.Namespace) -> int:
    try:
        ACTIONS[options.command](options)
    except MENDABLE as error:
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
        folder += f"-{_in_a_path(short_name(options.data))}"
    else:
        others = " and ".join(OWN_IMAGES)
        raise ValueError(f"recipe {options.recipe!r} has its own images; --data is for {others} alone")
    stages = override(only(stages, options.only), options.settings)
    out = options.out or Path("runs") / folder
    context = Context(
        out=out,
        data_root=options.data_root,
        download=options.download,
        device=_device(options.device),
        engine=engine_of(options, out),
        smoke=options.smoke,
        from_record=options.from_record or options.record,
    )
    if options.record and (options.smoke or options.settings or options.data):
        raise ValueError("--record is for recipes as they are; leave out --smoke, --data and stage.field=value")
    if options.from_record and not any(stage.keeps_runs for stage in stages.values()):
        raise ValueError(f"these stages of {options.recipe!r} keep no runs on record; leave out --from-record")
    for folder in run_stages(stages, context, RESULTS if options.record else None).values():
        if (folder / FITTED).is_dir():
            print(f"a prior is in {folder / FITTED}")


def _in_a_path(name: str) -> str:
    """Returns a name with characters that every file system takes, and shells leave alone."""
    return re.sub(r"[^\w .@+-]+", "-", name).strip("-. ") or "images"


def _fit(options: argparse.Namespace) -> None:
    fit = FITS[options.family](name=options.name or options.out.resolve().name)
    if options.smoke:
        small: dict[str, Any] = {"epochs": 2, "restarts": 1}
        fit = dataclasses.replace(fit, **{key: value for key, value in small.items() if hasattr(fit, key)})
    stages = override({"kernels": KernelFile.of(options.kernels, options.license), "fit": fit}, options.settings)
    context = Context(out=options.out, device=_device(options.device), smoke=options.smoke)
    folder = run_stages(stages, context)["fit"]
    metrics = read_done(folder)["metrics"]
    print(f"log p of held-out kernels: {metrics['log_prob']} nats, of a Gaussian {metrics['gaussian_log_prob']}")
    print(f"the prior is in {folder / FITTED}; dwp_init.apply_(model, prior={str(folder / FITTED)!r})")


def _evaluate(options: argparse.Namespace) -> None:
    if options.out and options.out.is_dir():
        raise ValueError(
            f"--out is the file of a table, such as {options.out / 'scores.csv'}; {options.out} is a folder"
        )
    priors = {name: load_prior(name) for name in options.prior}
    check_unseen(options.kernels, priors)
    samples = SMOKE["samples"] if options.smoke else SAMPLES
    rows = evaluate_priors(priors, *read_reference(options.kernels), samples=samples, scale=options.scale)
    print_table(transposed(rows))
    if options.out:
        write_table(options.out, rows)
        print(f"wrote {options.out}")


def _kernels(options: argparse.Namespace) -> None:
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)}
    given |= {name: tuple(given[name]) for name in ("transposed", "test")}
    found = harvest(options.sources, options.out, Settings(**given))
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
        if done["source"]["split"] != BY_FAMILY:
            print(f"{name} is split {done['source']['split']}")
    for family, name in found.joined.items():
        print(f"{family} counts as one family with {name}, because they share a layer")
    _print_left_out(found.left_out)
    file = options.out / next(iter(found.folders)) / KERNELS
    print(f"next: python -m training fit --kernels {file} --out DIR")


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
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from error
    if device.type == "meta":
        raise ValueError(f"device {name!r} cannot be used (it has no memory); try --device cpu")
    return device


def _import_authors(options: argparse.Namespace) -> None:
    given = (options.checkpoint, options.kernel_size, options.out, options.name, options.license, options.var)
    folder = import_authors(*given)
    print(f"the prior is in {folder}; dwp_init.apply_(model, prior={str(folder)!r})")


def _bundle(options: argparse.Namespace) -> None:
    recipe = recipes.load(options.recipe)
    if not hasattr(recipe, "PRIORS"):
        raise ValueError(f"recipe {options.recipe!r} makes no priors; the names of recipes that do start with prior_")
    print(f"bundled {', '.join(bundle(recipe, options.out or Path('runs') / recipe.FOLDER))}")


def _cards(options: argparse.Namespace) -> None:
    if options.folder is None and options.address:
        raise ValueError(f"--address {options.address} is for the card of your own prior; name its FOLDER too")
    written = pages.write_pages() if options.folder is None else _write_card(options.folder, options.address)
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
    release = releases.prepare(options.folder, options.repo, options.tag, options.allow_synthetic)
    if options.pin:
        releases.check_pin(release)
    print("\n".join(["checked:", *(f"  {check}" for check in release.checks)]))
    if said := shortfall(release.prior):
        print(said)
    try:
        state = hub.look_up(release, options.private)
    except OSError as error:
        if options.push or options.pin:
            raise
        print(f"not checked, as the Hub could not be asked: what {release.repo} holds, and who may write: {error}")
        print("\n".join(["to do, if it does not exist yet:", *_steps(release, hub.State(), options.private), DRY_RUN]))
        return
    if options.pin and not (options.push or state.tagged):
        raise ValueError(f"--pin needs a published release, and {release.repo}@{release.tag} is not there: add --push")
    print("\n".join(["to do:", *_steps(release, state, options.private)]))
    if not (options.push or state.tagged):
        print(DRY_RUN)
        return
    commit = hub.push(release, state, options.private)
    print(f"downloaded by commit and by tag into an empty cache, with the same draws: {release.repo}@{commit}")
    entry = releases.registry_entry(release.prior, release.sha256, repo=release.repo, revision=commit)
    print(json.dumps({release.name: entry}, indent=2, ensure_ascii=False))
    if options.pin:
        releases.write_entry(release.name, entry)
        print(f"pinned in {REGISTRY}")


def _steps(release: releases.Release, state: hub.State, private: bool) -> list[str]:
    return [f"  {line}" for line in hub.plan(release, state, private)]


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": _list,
    "run": _run,
    "fit": _fit,
    "evaluate": _evaluate,
    "kernels": _kernels,
    "import-authors": _import_authors,
    "bundle": _bundle,
    "cards": _cards,
    "check": _check,
    "publish": _publish,
}

if __name__ == "__main__":
    sys.exit(main())
