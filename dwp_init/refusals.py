"""Why a plan is refused: a pattern without a layer, no layer to initialise, or a strict plan that is not complete.

The messages name the reason of most layers first, then what the model has, then what can be done.
"""

from collections import Counter

from dwp_init.choice import NO_PRIOR
from dwp_init.layers import Layer
from dwp_init.plan import Plan
from dwp_init.report import kernel_text, listed, size_text, there_text
from dwp_init.rules import Rule
from dwp_init.text import few


def check_plan(plan: Plan, rules: list[Rule], strict: bool) -> None:
    """Raises ``ValueError`` if a pattern matches no layer, no layer takes a prior, or a strict plan is incomplete."""
    check_patterns(plan, rules)
    if not plan.choices:
        raise ValueError(_nothing_to_do(plan, rules))
    if strict:
        _check_complete(plan, rules)


def check_patterns(plan: Plan, rules: list[Rule]) -> None:
    """Raises ``ValueError`` if a pattern of the priors matches no layer of a model that has some."""
    names = [layer.name for layer in plan.convolutions]
    for rule in rules if names else ():
        if not any(layer.matches(rule.pattern) for layer in plan.convolutions):
            there = there_text(rule.pattern, names)
            raise ValueError(f"the pattern {rule.pattern!r} of prior= matches no convolution; {there}")


def _nothing_to_do(plan: Plan, rules: list[Rule]) -> str:
    """Says why no layer takes a prior: the reason of most layers first, and what can be done."""
    start = "no layer can be initialised: "
    asked = [layer for layer in plan.convolutions if layer.asked]
    if not plan.convolutions:
        return f"{start}the model has no convolution"
    if not asked:
        return (
            f"{start}layers= leaves out all convolutions; {there_text('', [layer.name for layer in plan.convolutions])}"
        )
    misfits, others = _by_fit(asked, plan)
    meant = [layer for layer in misfits if any(layer.matches(rule.pattern) for rule in rules)]
    misfits = meant or ([] if others else misfits)
    spatial = any(layer.is_spatial for layer in asked)
    others = {layer: reason for layer, reason in others.items() if layer.is_spatial or not spatial}
    lines = _by_reason(others)
    concerned = [layer for layer in misfits if layer.is_spatial or not spatial]
    if len(concerned) > len(others):
        return start + "; ".join([_misfit(misfits, plan, rules), *lines])
    return start + "; ".join([*lines, *([f"{NO_PRIOR} {_counts(concerned, rules)}"] if concerned else [])])


def _check_complete(plan: Plan, rules: list[Rule]) -> None:
    left = [layer for layer in plan.convolutions if layer.is_spatial and layer.name in plan.skipped]
    misfits, others = _by_fit([layer for layer in left if plan.skipped[layer.name].wanted], plan)
    sizes = [f"{size} ({listed(names, 24)})" for size, names in _sizes(misfits, rules)]
    parts = [f"{NO_PRIOR} {few(sizes)}"] if sizes else []
    parts += _by_reason(others) + [f"no layer took {name!r}" for name in plan.unused]
    if parts:
        resize = "resize=True, " if any("resize=True" in _hint(layer, plan) for layer in misfits) else ""
        raise ValueError(f"strict: {'; '.join(parts)}; add a prior, {resize}narrow layers=, or leave strict off")


def _by_fit(layers: list[Layer], plan: Plan) -> tuple[list[Layer], dict[Layer, str]]:
    """Returns the layers that no prior fits, and those that are skipped for another reason, with the reason."""
    reasons = {layer: plan.skipped[layer.name].reason for layer in layers}
    misfits = [layer for layer, reason in reasons.items() if reason.startswith(NO_PRIOR)]
    return misfits, {layer: reason for layer, reason in reasons.items() if layer not in misfits}


def _misfit(layers: list[Layer], plan: Plan, rules: list[Rule]) -> str:
    """Says for which kernels the priors are, and which kernels the layers have that take none of them."""
    first = min(layers, key=lambda layer: (not layer.is_spatial, not _hint(layer, plan)))
    hint = _hint(first, plan)
    if "resize=True" not in hint:
        hint = "; ".join(filter(None, (hint, "list_priors() names the priors there are")))
    whose = "the model has" if all(layer.asked for layer in plan.convolutions) else "the layers asked for have"
    return f"{_purposes(rules)}; {whose} {_counts(layers, rules)}; {hint}"


def _hint(layer: Layer, plan: Plan) -> str:
    """Says what ``resize=True`` would do with a layer that no prior fits, or why it would leave it; or nothing."""
    return plan.skipped[layer.name].reason.partition("; ")[2]


def _counts(layers: list[Layer], rules: list[Rule]) -> str:
    sizes = _sizes(layers, rules)
    return few([f"{size} ({len(names)} layer{'s' * (len(names) > 1)})" for size, names in sizes], 4)


def _sizes(layers: list[Layer], rules: list[Rule]) -> list[tuple[str, list[str]]]:
    """Names layers by kernel size, and by kind if a rule has one; the most frequent first."""
    by_kind = any(rule.kind for rule in rules)
    sizes: dict[str, list[str]] = {}
    for layer in layers:
        size = size_text(layer.size) + (f" {layer.kinds[0]}" if by_kind else "")
        sizes.setdefault(size, []).append(layer.name)
    return sorted(sizes.items(), key=lambda item: -len(item[1]))


def _purposes(rules: list[Rule]) -> str:
    """Says for which kernels the priors are; a set is named as a whole."""
    sizes: dict[str, dict[str | None, list[str]]] = {}
    for rule in rules:
        given = f"{rule.given_as!r}" + ("" if rule.pattern == "*" else f" in {rule.pattern!r}")
        channels, *size = rule.prior.kernel_shape
        in_colour = rule.kind == "stem" and channels == 3
        kind, text = ("RGB stem", size_text(size)) if in_colour else (rule.kind, kernel_text(rule.prior.kernel_shape))
        if rule.prior.joint:
            kind, text = "stem", rule.prior.kernels_text
        sizes.setdefault(given, {}).setdefault(kind, []).append(text)
    kinds = {given: [_of_kind(*item) for item in by_kind.items()] for given, by_kind in sizes.items()}
    return few([f"{given} is for {', '.join(each)} kernels" for given, each in kinds.items()])


def _of_kind(kind: str | None, sizes: list[str]) -> str:
    return few(sizes, 4) + (f" {kind}" if kind else "")


def _by_reason(skipped: dict[Layer, str]) -> list[str]:
    """Returns the two reasons of most layers, each with the names of the first layers, and counts the others."""
    lines: list[str] = []
    counts = Counter(skipped.values()).most_common()
    for reason, _ in counts[:2]:
        names = [layer.name for layer, why in skipped.items() if why == reason]
        lines.append(reason if names == [""] else f"{reason} ({listed(names)})")
    rest = sum(count for _, count in counts[2:])
    return lines + ([f"{rest} more layer{'s' * (rest > 1)} for other reasons"] if rest else [])
