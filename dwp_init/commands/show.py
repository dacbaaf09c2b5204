"""``dwp-init show``: what is known of a prior, or of the priors of a set."""

import argparse
from dataclasses import dataclass

from dwp_init.access import Access
from dwp_init.commands.base import PRIOR
from dwp_init.layers import KINDS
from dwp_init.priors import Prior
from dwp_init.registry import load_prior
from dwp_init.rules import Rule, load_rules
from dwp_init.sets import SETS, PriorSet
from dwp_init.terminal import heading, prior_blocks
from dwp_init.text import aligned, outline


@dataclass(frozen=True)
class ShowCommand:
    """Shows a prior's configuration, metrics and provenance, or the priors of a set."""

    prior: str

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prior", metavar="PRIOR", help=PRIOR)

    def run(self) -> None:
        if self.prior in SETS:
            _show_set(SETS[self.prior])
        else:
            _show_prior(load_prior(self.prior))


def _show_prior(prior: Prior) -> None:
    details = dict(prior.details)
    about = {
        "name": details.pop("name"),
        "family": prior.family,
        "kernel": prior.kernels_text,
        **prior.arguments(),
        "parameters": f"{prior.parameter_count:,}",
        "log_prob": "exact" if prior.exact else "a lower bound",
    }
    first = {key: details.pop(key) for key in ["metrics", "source", "license"] if key in details}
    lines = [*outline(about), *outline(first), *outline(details)]
    print("\n".join(line if line.startswith(" ") else heading(line) for line in lines))
    _print_picture(prior, rows=2)


def _show_set(prior_set: PriorSet) -> None:
    rules = load_rules(prior_set, Access())
    kinds = [kind for kind in KINDS if prior_set.makes_orthogonal(kind)]
    made = f"made orthogonal in {', '.join(kinds)} layers" if kinds else "left as they are drawn"
    print(f"{prior_set.name}: a set of {len(rules)} priors; output channels are {made} by default\n")
    head = ("for layers", "kernel", "prior", "family", "parameters", "log p", "depths")
    print(aligned([head, *map(_member, rules)]))
    print("\nlog p: nats per kernel, on kernels of held-out networks; depths: 0 is the first layer, 1 the last")
    for rule in rules:
        _print_picture(rule.prior, rows=1, title=rule.name)


def _member(rule: Rule) -> tuple[str, ...]:
    prior = rule.prior
    log_prob = prior.details.get("metrics", {}).get("log_prob")
    return (
        str(rule.kind),
        prior.kernels_text,
        rule.name,
        prior.family,
        f"{prior.parameter_count:,}",
        "-" if log_prob is None else f"{log_prob:.1f}",
        ", ".join(f"{depth:.2g}" for depth in prior.depths) or "any",
    )


def _print_picture(prior: Prior, rows: int, title: str = "") -> None:
    """Prints kernels drawn from a prior below a title, on terminals that can show them."""
    picture = prior_blocks(prior, rows)
    if picture:
        print(f"\n{heading(title)}\n{picture}" if title else f"\n{picture}")
