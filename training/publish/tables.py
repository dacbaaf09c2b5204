"""Tables of the README, the cards and the families' page, rendered from the results of record."""

from collections.abc import Mapping
from typing import Any

from dwp_init import Prior, load_prior
from dwp_init.registry import BUNDLED, registry
from training.engine.records import RESULTS, read_table
from training.experiments.converge import BASELINE, LEARNED
from training.experiments.few_labels import DWP, FROM_DWP
from training.experiments.paper import RANDOM_FEATURES, STEPS_TO
from training.publish import wording
from training.recipes import benchmark_init
from training.starts.fills import DEFAULT, DWP_ORTHOGONAL

SIZES = ("7x7", "5x5")  # of notMNIST's kernels, to which every family was fitted; each has a table of densities
EFFECT_STEPS = ("25", "120")
OTHER_FAMILIES = ("-h1", "-vae")
FAMILY_STEPS = ("25", "120", "200")
NATURAL = DWP_ORTHOGONAL  # what apply_ does with the set
EARLY = "50"  # of the 200 steps of benchmark_init
BENCHMARKS = {  # what the stages of benchmark_init are of
    "benchmark_convmixer": "ConvMixer, 7×7 depthwise",
    "benchmark_convnext": "ConvNeXt, 7×7 depthwise",
    "benchmark_resnet": "ResNet-20, 3×3",
    "benchmark_cifar": "the paper's CIFAR net, 7×7 and 5×5, no norm",
    "benchmark_vgg": "VGG, 3×3, no norm",
    "benchmark_mobilenet": "MobileNet, 3×3 depthwise",
    "benchmark_convmixer_1000_labels": "ConvMixer, 1,000 labels",
    "benchmark_convmixer_frozen": "ConvMixer, frozen depthwise kernels",
    "benchmark_resnet_1000_labels": "ResNet-20, 1,000 labels",
    "benchmark_cifar_frozen": "the paper's CIFAR net, frozen kernels",
}
FIGURES: dict[str, tuple[str, str, Mapping[str, Mapping[float, Any]]]] = {  # title, column, and the paper's values
    "fig3a": ("Fig. 3(a): features of fixed convolutions, MNIST; test accuracy, %", "k = {}", RANDOM_FEATURES["mnist"]),
    "fig3b": ("Fig. 3(b): the same on CIFAR-10; test accuracy, %", "k = {}", RANDOM_FEATURES["cifar10"]),
    "fig4a": ("Fig. 4(a): the image VAE on MNIST; steps to an ELBO in nats", "{}", STEPS_TO["fig4a"]),
    "fig4b": ("Fig. 4(b): the ConvNet on MNIST; steps to a test accuracy", "{} %", STEPS_TO["fig4b"]),
    "fig4c": ("Fig. 4(c): the ConvNet on CIFAR-10; steps to a test accuracy", "{} %", STEPS_TO["fig4c"]),
}
FAMILIES = {  # by the end of the prior's name: title, and what the effect table calls it
    "": ("**scale mixture**, bundled", "dwp"),
    "-mixture": ("mixture of Gaussians", "mixture"),
    "-gaussian": ("Gaussian", "Gaussian prior"),
    "-kde": ("kernel density", "kernel density"),
    "-flow": ("flow", "flow"),
    "-autoregressive": ("autoregressive", "autoregressive"),
    "-vae": ("dense VAE", "dense VAE"),
    "-chain": ("Markov chain", "Markov chain"),
    "-h1": ("the paper's VAE", "paper's VAE"),
}

PAPER_FIG2A = {  # Fig. 2(a), test accuracy in %, from the legend of the authors' notebook
    "dwp": (80.0, 86.7, 91.5, 94.5, 96.1),
    "log-uniform": (76.6, 83.9, 89.4, 93.8, 95.8),
    "standard normal": (71.7, 81.6, 89.0, 93.8, 95.9),
}


def effect_table(inits: tuple[str, ...]) -> str:
    """Renders rows of ``converge_mnist.csv``, Kaiming first, at the steps of record."""
    rows = read("converge_mnist.csv")
    found = {(row["init"], row["step"]): row for row in rows}
    lines = ["| init | " + " | ".join(f"{s} steps | over Kaiming | seeds ahead" for s in EFFECT_STEPS) + " |"]
    lines.append("|---" * (1 + 3 * len(EFFECT_STEPS)) + "|")
    for init in (BASELINE, *inits):
        cells = []
        for step in EFFECT_STEPS:
            row = found[init, step]
            ahead = "" if init == BASELINE else f"{row['ahead_of_kaiming']} of {row['seeds']}"
            over = (
                "" if init == BASELINE else f"{float(row['over_kaiming']):+.2f} ± {float(row['over_kaiming_sd']):.2f}"
            )
            cells.append(f"{float(row['accuracy']):.2f} | {over} | {ahead}")
        lines.append(f"| {init} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def effect_line() -> str:
    """Says how far ``converge_mnist.csv`` has dwp ahead of Kaiming, beside learned kernels and white noise."""
    found = {(row["init"], row["step"]): row for row in read("converge_mnist.csv")}
    leads = {
        init: " and ".join(_paired(found[init, step], "kaiming") for step in EFFECT_STEPS)
        for init in (DWP, LEARNED, "white noise, dwp's RMS")
    }
    accuracies = " and ".join(f"{float(found[BASELINE, step]['accuracy']):.1f}" for step in EFFECT_STEPS)
    steps, seeds = " and ".join(EFFECT_STEPS), found[BASELINE, EFFECT_STEPS[0]]["seeds"]
    return (
        f"The paper's network on MNIST, from the `notmnist` priors: after {steps} steps {accuracies} % from Kaiming's "
        f"initialisation, and over it, points ± sd of {seeds} paired seeds, "
        + "; ".join(f"{lead} from {init}" for init, lead in leads.items())
        + "."
    )


def priors_table() -> str:
    """Renders the bundled priors but for other families of the same kernels, and their density on held-out networks."""
    lines = ["| prior | kernels | log p | Gaussian's log p | over the Gaussian | size |", "|---|---|---|---|---|---|"]
    for name in registry():
        if name.endswith(OTHER_FAMILIES):
            continue
        prior = load_prior(name)
        size = sum(path.stat().st_size for path in (BUNDLED / name).iterdir())
        cells = [f"[`{name}`](model_cards/{name}/README.md)", wording.kernels_note(prior), *_density_cells(prior, name)]
        lines.append(f"| {' | '.join(cells)} | {size / 1e6:.2f} MB |")
    return "\n".join(lines)


def _density_cells(prior: Prior, name: str) -> tuple[str, str, str]:
    """Renders log p, the Gaussian's and the difference: from the table of record, or the prior's own metrics."""
    size = size_of_record(name)
    if size is None:
        return wording.density_cells(prior)
    rows = {row["prior"]: row for row in read(f"density_notmnist_{size}.csv")}
    row, gaussian = rows[name], rows[f"notmnist-{size}-gaussian"]
    return f"{row['log_prob']} ± {row['standard_error']}", gaussian["log_prob"], margin(row, "gaussian")


def size_of_record(name: str) -> str | None:
    """Returns which of ``SIZES`` has a prior in its table of densities; None for a prior that is in none."""
    found = {row["prior"]: size for size in SIZES for row in read(f"density_notmnist_{size}.csv")}
    return found.get(name)


def families_table() -> str:
    """Renders every family: density at both sizes, effect on training, cost of drawing."""
    effect = {(row["init"], row["step"]): row for row in read("converge_mnist.csv")}
    cost = {row["prior"].removeprefix("notmnist-5x5"): row for row in read("decoding.csv")}
    densities = {
        size: {row["prior"].removeprefix(f"notmnist-{size}"): row for row in read(f"density_notmnist_{size}.csv")}
        for size in SIZES
    }
    steps = " | ".join(f"{step} steps, over Kaiming | over learned kernels" for step in FAMILY_STEPS)
    lines = [f"| family | log p, 7×7 | log p, 5×5 | | {steps} | draws, of `kaiming_normal_`'s time |"]
    lines.append("|---" * (5 + 2 * len(FAMILY_STEPS)) + "|")
    for suffix, (title, init) in FAMILIES.items():
        rows = [densities[size][suffix] for size in SIZES]
        cells = [title, *(f"{row['log_prob']} ± {row['standard_error']}" for row in rows), rows[0]["kind"]]
        lines.append(f"| {' | '.join([*cells, *_effects(effect, init)])} | {cost[suffix]['over_kaiming']}× |")
    others = {"dense VAE, decoder means": "dense VAE, decoder mean", "learned kernels at random": LEARNED}
    for title, init in others.items():
        lines.append(f"| {' | '.join([title, '', '', '', *_effects(effect, init)])} | |")
    return "\n".join(lines)


def _effects(effect: dict[tuple[str, str], dict[str, str]], init: str) -> list[str]:
    """Renders paired differences of one initialisation, at each step over Kaiming and over learned kernels."""
    others = ("kaiming", "learned")
    cells = [(_paired(effect[init, step], other), other) for step in FAMILY_STEPS for other in others]
    return ["" if init == LEARNED and other == "learned" else cell for cell, other in cells]


def _paired(row: dict[str, str], other: str) -> str:
    return f"{float(row[f'over_{other}']):+.2f} ± {float(row[f'over_{other}_sd']):.2f}"


def density_table(size: str, chosen: str = "") -> str:
    """Renders the densities of one kernel size, the chosen prior in bold."""
    lines = [
        "| prior | log p | | over the Gaussian | over a mixture of 5 to 10 | ELBO | 1-NN recalls |",
        "|---" * 7 + "|",
    ]
    for row in read(f"density_notmnist_{size}.csv"):
        label = f"**{row['prior']}**" if row["prior"] == chosen else row["prior"]
        cells = [label, f"{row['log_prob']} ± {row['standard_error']}", row["kind"], margin(row, "gaussian")]
        cells += [margin(row, "mixture"), row["elbo"], f"{row['recall_real']} / {row['recall_samples']}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def density_line(size: str, name: str) -> str:
    """Says what log p of held-out kernels is under a prior, and how far that is from a Gaussian's and a mixture's."""
    row = next(row for row in read(f"density_notmnist_{size}.csv") if row["prior"] == name)
    kind = "is" if row["kind"] == "exact" else "is at least"
    return (
        f"Log p of held-out kernels {kind} {row['log_prob']} nats per kernel: {margin(row, 'gaussian')} over a "
        f"full-covariance Gaussian, {margin(row, 'mixture')} over the best mixture of 5 to 10 Gaussians."
    )


def joint_table() -> str:
    """Renders colour stems drawn jointly and by channel."""
    lines = [
        "| draws | correlation of two channels | log p | jointly, over by channel | median |",
        "|---|---|---|---|---|",
    ]
    for row in read("joint_stem.csv"):
        over = row["over_by_channel"] and f"{float(row['over_by_channel']):+} ± {row['over_by_channel_error']}"
        cells = [row["prior"], row["channel_correlation"], row["log_prob"], over, row["over_by_channel_median"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_line() -> str:
    """Says what drawing a network's kernels costs."""
    bundled, dense, paper = read("apply_cost.csv")
    return (
        f"Drawing the {int(bundled['kernels']):,} kernels of the paper's CIFAR network on a CPU takes "
        f"{bundled['ratio_median']} times as long as `kaiming_normal_` (median; {dense['ratio_median']} times with the "
        f"dense VAE, {paper['ratio_median']} times with the paper's) and {bundled['extra_memory_mb']} MB of extra "
        f"memory ({dense['extra_memory_mb']} MB, {paper['extra_memory_mb']} MB)."
    )


def bayes_line() -> str:
    """Says what the auxiliary bound gives away, and what a step of variational inference costs."""
    gaps = {row["prior"]: row for row in read("table1_gap.csv") if row["layer"] == "bound"}
    paper = next(row for row in read("table1_gap_h1.csv") if (row["layer"], row["prior"]) == ("bound", "dwp"))
    costs = {(row["priors"], row["kernels_per_layer"]): row for row in read("inference_step.csv")}
    dense = "notmnist-7x7-vae + notmnist-5x5-vae"
    some, every = (costs[dense, kernels]["over_standard_normal_median"] for kernels in ("512", "all"))
    h1 = costs[dense.replace("-vae", "-h1"), "512"]["over_standard_normal_median"]
    trained, fixed = (f"{float(gaps[prior]['gap_per_kernel']):.2f}" for prior in ("dwp", "dwp-fixed"))
    return (
        f"With the dense VAEs the bound of Algorithm 1 gives away {trained} nats per kernel (Table 1; the paper's "
        f"figures amount to 3.25), {fixed} if the reverse model stays the encoder; with the paper's VAEs "
        f"{float(paper['gap_per_kernel']):.2f}. A step on a CPU takes {some} times as long as with a standard normal "
        f"prior when it looks at 512 kernels of a layer, {every} times at all of them; with the paper's VAEs {h1} "
        "times at 512."
    )


def benchmarks() -> dict[str, list[dict[str, str]]]:
    """Returns the records of ``benchmark_init`` that there are, by stage, in the order of the recipe."""
    return {name: read(f"{name}.csv") for name in benchmark_init.stages() if (RESULTS / f"{name}.csv").exists()}


def benchmark_table(every: bool = True) -> str:
    """Renders for each network how far ``natural`` is ahead of Kaiming's initialisation, and its channel rank.

    Args:
        every: Whether those with few labels or frozen convolutions are shown too.
    """
    lines = [
        "| network | Kaiming, % | `natural`, over Kaiming | early | steps to Kaiming's final accuracy | channel rank "
        "| PyTorch default, over Kaiming |",
        "|---" * 7 + "|",
    ]
    for name, rows in benchmarks().items():
        if not every and name.removeprefix("benchmark_") in benchmark_init.VARIANTS:
            continue
        found = {(row["init"], row["step"]): row for row in rows}
        last = rows[-1]["step"]
        ours, base = found[NATURAL, last], found[BASELINE, last]
        cells = [BENCHMARKS[name], base["accuracy"], _over(ours), f"{_over(found[NATURAL, EARLY])} at {EARLY} steps"]
        cells += [f"{ours['steps_to_kaiming'] or 'not reached'} of {last}", _rank(ours, base)]
        cells.append(_over(found[DEFAULT, last]) if (DEFAULT, last) in found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def benchmark_of(name: str) -> str:
    """Renders one stage of ``benchmark_init``: each initialisation's rate, accuracies and state at the start."""
    rows = benchmarks()[name]
    steps = list(dict.fromkeys(row["step"] for row in rows))
    base = next(row for row in rows if row["init"] == BASELINE)
    lines = [
        f"| init | rate | {' | '.join(f'{step} steps' for step in steps)} | over Kaiming | ahead | steps to Kaiming's "
        "final | channel rank | activations |",
        "|---" * (7 + len(steps)) + "|",
    ]
    for init in dict.fromkeys(row["init"] for row in rows):
        by_step = {row["step"]: row for row in rows if row["init"] == init}
        end = by_step[steps[-1]]
        cells = [f"**{init}**" if init == NATURAL else init, f"{float(end['rate']):g}"]
        cells += [f"{float(by_step[step]['accuracy']):.1f}" for step in steps]
        cells += ["", ""] if init == BASELINE else [_over(end), f"{end['ahead_of_kaiming']} of {end['seeds']}"]
        cells += [end["steps_to_kaiming"] or "not reached", _rank(end, base)]
        cells.append(f"{float(end['scale_min']):.2g} to {float(end['scale_max']):.2g}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figures() -> dict[str, str]:
    """Returns the titles of the figures of the paper that are recorded, by recipe."""
    return {name: title for name, (title, *_) in FIGURES.items() if (RESULTS / f"{name}.csv").exists()}


def figure_table(name: str) -> str:
    """Renders a figure of the paper, a row per initialisation: mean ± standard deviation, and the paper's beside."""
    rows, (_, title, theirs) = read(f"{name}.csv"), FIGURES[name]
    column, value = ("k", "accuracy") if "k" in rows[0] else ("level", "steps")
    columns = list(dict.fromkeys(float(row[column]) for row in rows))
    titles = [title.format(f"1/{1 / each:g}" if 0 < each < 1 else f"{each:g}") for each in columns]
    lines = [f"| init | {' | '.join(titles)} |", "|---" * (1 + len(columns)) + "|"]
    for init in dict.fromkeys(row["init"] for row in rows):
        found = {float(row[column]): row for row in rows if row["init"] == init}
        lines.append(f"| {init} | {' | '.join(_spread(found[each], value) for each in columns)} |")
    for init, by in theirs.items():
        shown = [by.get(each, "") for each in columns]
        cells = [f"{each[0]:g} ± {each[1]:g}" if isinstance(each, tuple) else f"{each}" for each in shown]
        lines.append(f"| *the paper's {init}* | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(row: dict[str, str], value: str) -> str:
    if not row[value]:
        return f"{row['reached']} of {row['seeds']} get there"
    sd = row["sd" if value == "accuracy" else f"{value}_sd"]
    return f"{float(row[value]):.1f} ± {float(sd):.1f}"


def _over(row: dict[str, str]) -> str:
    return f"{float(row['over_kaiming']):+.1f} ± {float(row['over_kaiming_95']):.1f}"


def _rank(row: dict[str, str], base: dict[str, str]) -> str:
    """Renders the channel rank, the mean over layers and the last layer's, as a share of Kaiming's."""
    return " / ".join(f"{float(row[key]) / float(base[key]):.2f}" for key in ("channel_rank", "channel_rank_last"))


def few_labels_accuracy(record: str) -> str:
    """Renders a record of ``fig2a_mnist``: accuracy of the ensemble, a row per prior, the paper's three last."""
    rows, sizes = _few_labels(record)
    lines = [f"| prior | from draws of | {' | '.join(sizes)} |", "|---" * (2 + len(sizes)) + "|"]
    for (prior, init), found in rows.items():
        cells = [f"{float(found[size]['accuracy']):.1f} ± {float(found[size]['accuracy_sd']):.1f}" for size in sizes]
        lines.append(f"| {prior} | {init} | {' | '.join(cells)} |")
    for prior, accuracies in PAPER_FIG2A.items():
        cells = [f"{accuracy:.1f}" for accuracy in accuracies]
        lines.append(f"| *the paper's {prior}* | {FROM_DWP if prior == DWP else '?'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def few_labels_lead(record: str) -> str:
    """Renders how far dwp from its own draws is ahead of everything else on the same splits, in points."""
    rows, sizes = _few_labels(record)
    lines = [f"| dwp, over | from draws of | {' | '.join(sizes)} |", "|---" * (2 + len(sizes)) + "|"]
    for (prior, init), found in rows.items():
        if (prior, init) != (DWP, FROM_DWP):
            pairs = [(-float(found[size]["over_dwp"]), float(found[size]["over_dwp_sd"])) for size in sizes]
            cells = [f"{mean:+.1f} ± {error:.1f}" for mean, error in pairs]
            lines.append(f"| {prior} | {init} | {' | '.join(cells)} |")
    return "\n".join(lines)


def few_labels_calibration(record: str) -> str:
    """Renders log loss in nats, calibration error in % and the AUROC of unknown images in %, of the ensemble."""
    rows, sizes = _few_labels(record)
    lines = [f"| prior | from draws of | {' | '.join(sizes)} |", "|---" * (2 + len(sizes)) + "|"]
    for (prior, init), found in rows.items():
        each = [[float(found[size][name]) for name in ("nll", "ece", "ood_auroc")] for size in sizes]
        cells = [f"{nll:.2f} / {ece:.1f} / {auroc:.0f}" for nll, ece, auroc in each]
        lines.append(f"| {prior} | {init} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _few_labels(record: str) -> tuple[dict[tuple[str, str], dict[str, dict[str, str]]], list[str]]:
    """Reads a record of ``fig2a_mnist``: rows by size for every prior and initialisation, and the sizes."""
    rows: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in read(f"{record}.csv"):
        rows.setdefault((row["prior"], row["init"]), {})[row["size"]] = row
    return rows, list(next(iter(rows.values())))


def draws_cost(name: str) -> str:
    """Says what drawing from a bundled prior costs, as far as it was measured."""
    together = [row for row in read("apply_cost.csv") if name in row["priors"].split(" + ")]
    alone = [row for row in read("decoding.csv") if row["prior"] == name]
    found = [
        f"Drawing the {int(row['kernels']):,} kernels of the paper's CIFAR network from {row['priors']} takes "
        f"{row['ratio_median']} times as long as `kaiming_normal_` (median, a CPU, {row['threads']} threads), and "
        f"{row['extra_memory_mb']} MB of extra memory."
        for row in together
    ]
    found += [
        f"Drawing {int(row['kernels']):,} kernels from this prior alone takes {row['seconds']} s, "
        f"{row['over_kaiming']} times as long as `kaiming_normal_` (a CPU, {row['threads']} threads)."
        for row in alone
    ]
    return "\n".join(found) or "Not measured: how long drawing takes, beside `kaiming_normal_`."


def margin(row: dict[str, str], control: str) -> str:
    """Renders how far a row of a density table is above a control, in nats; empty for the control itself."""
    if row["prior"].endswith(f"-{control}"):
        return ""
    return f"{float(row[f'over_{control}']):+} ± {row[f'over_{control}_error']}"


def read(name: str) -> list[dict[str, str]]:
    """Reads a table of record; ``FileNotFoundError`` where it is missing."""
    return read_table(RESULTS / name)
