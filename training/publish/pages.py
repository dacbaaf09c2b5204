"""The pages of this repository that are written from results: which there are, and what their templates get."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dwp_init import load_prior
from dwp_init.folder import CONFIG, MODEL
from dwp_init.registry import BUNDLED, registry
from dwp_init.storage import make_folder, write_bytes
from training.engine.records import ROOT
from training.experiments.paper import FEW_LABELS, RANDOM_FEATURES, STEPS_TO
from training.publish import benchmark_page, results
from training.publish.cards import CARD, render_card
from training.publish.details import Details
from training.publish.faults import fault_values
from training.publish.few_labels_page import read_few_labels
from training.publish.templates import CARDS, render, render_macro
from training.recipes import prior_domains

README = ROOT / "README.md"
BLOCKS = ("benchmark", "facts", "priors")  # of the README; macros of readme.md.jinja
FIRST_PRIORS = "tinyimagenet-"  # how names of the first edition's priors begin
OTHER_FAMILIES = ("-h1", "-vae")  # of the same kernels; they are not in the README's table


def pages() -> dict[Path, str]:
    """Returns every page that is written from results, with its text: the cards, those of ``PAGES``, and the README."""
    bundled = [name for name in registry() if (BUNDLED / name).exists()]
    written = {CARDS / name / CARD: render_card(load_prior(name), name) for name in bundled}
    for page, values in PAGES.items():
        written[CARDS / f"{page}.md"] = render(f"{page}.md.jinja", **values())
    return written | {README: fill_blocks(README.read_text(encoding="utf-8"), blocks())}


def write_pages() -> list[Path]:
    """Writes :func:`pages`, and draws the figures of the benchmark's page."""
    written = pages()
    for path, text in written.items():
        make_folder(path.parent)
        write_bytes(path, text.encode())
    benchmark_page.draw_pictures(CARDS)
    return list(written)


def blocks() -> dict[str, str]:
    """Renders the README's blocks, by name."""
    names = [name for name in registry() if not name.endswith(OTHER_FAMILIES)]
    others = [name for name in names if name.startswith(FIRST_PRIORS) or name in prior_domains.PRIORS]
    values = benchmark_page.summary_values(benchmark_page.read_tasks()) | {
        "bundled": [_row(name) for name in names if name not in others],
        "first_edition": [name for name in others if name not in prior_domains.PRIORS],
        "other_domains": sorted(prior_domains.PRIORS),
        "effects": results.effects(),
        "public": results.by(results.read_record("public_models_summary"), "start"),
        "coverage": results.by(results.read_record("public_models_coverage"), "layers_of"),
        "natural_costs": results.by(results.read_record("apply_cost_natural"), "network"),
    }
    return {name: render_macro("readme.md.jinja", name, **values) for name in BLOCKS}


def fill_blocks(text: str, written: dict[str, str]) -> str:
    """Replaces what stands between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: The text lacks one of the blocks.
    """
    for name, block in written.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise ValueError(f"README.md has no block <!-- {name} --> … <!-- /{name} --> to fill")
        text = f"{before}{start}{block}\n{end}{after}"
    return text


def _families() -> dict[str, Any]:
    return {
        "effects": results.effects(),
        "densities": {size: results.densities(size) for size in results.SIZES},
        "costs": results.by(results.read_record("decoding"), "prior"),
        "joint": results.read_record("joint_stem"),
        "choice": results.recorded_leads("choose_family", "scale mixture"),
    }


def _few_labels() -> dict[str, Any]:
    draws = results.by(results.read_record("table1_semi_implicit_draws"), "latents", "trained_by", "draws")
    steps = results.by(results.read_record("inference_step_semi_implicit"), "draws", "kernels_per_layer")
    return _bayes() | {
        "semi_implicit": draws["encoder"],
        "semi_implicit_steps": steps,
        "warm": read_few_labels("fig2a_mnist"),
        "cold": read_few_labels("fig2a_mnist_cold"),
        "paper": FEW_LABELS["mnist"],
        "estimators": results.read_record("estimators_resnet"),
    }


def _paper_figures() -> dict[str, Any]:
    paper = STEPS_TO | {"fig3a": RANDOM_FEATURES["mnist"], "fig3b": RANDOM_FEATURES["cifar10"]}
    return {"effects": results.effects(), "figures": results.figures(), "paper": paper}


def _benchmark_200_steps() -> dict[str, Any]:
    return {"benchmarks": results.first_benchmarks(), "scales": results.first_scales()}


def _lifecycles() -> dict[str, Any]:
    return {"rows": results.read_record("lifecycles")}


PAGES: dict[str, Callable[[], dict[str, Any]]] = {  # by the names of their templates, what they get
    "families": _families,
    "few_labels": _few_labels,
    "paper_figures": _paper_figures,
    "benchmark": benchmark_page.page_values,
    "benchmark_200_steps": _benchmark_200_steps,
    "lifecycles": _lifecycles,
    "faults": fault_values,
}


def _bayes() -> dict[str, Any]:
    """What the auxiliary bound gives away, and what a step of variational inference costs."""
    return {
        "gaps": results.by(results.read_record("table1_gap"), "layer", "prior"),
        "gaps_h1": results.by(results.read_record("table1_gap_h1"), "layer", "prior"),
        "steps": results.by(results.read_record("inference_step"), "priors", "kernels_per_layer"),
    }


def _row(name: str) -> dict[str, Any]:
    """Returns what the README says of a bundled prior; with rows of densities where it is in a table of record."""
    prior, size = load_prior(name), results.size_of_record(name)
    found = {} if size is None else results.densities(size)
    return {
        "name": name,
        "shape": prior.kernel_shape,
        "kernels": prior.kernels_text,
        "joint": prior.joint,
        "details": Details.of(prior),
        "depths": prior.depths,
        "row": found.get(name),
        "gaussian": found.get(f"notmnist-{size}-gaussian"),
        "bytes": sum((BUNDLED / name / file).stat().st_size for file in (CONFIG, MODEL)),
    }
