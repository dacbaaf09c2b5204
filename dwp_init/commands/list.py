"""``dwp-init list``: the priors that there are."""

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

from dwp_init.access import Access
from dwp_init.errors import PriorNotFoundError
from dwp_init.hub import Listing, search
from dwp_init.registry import list_priors, listed_priors, registry
from dwp_init.sets import SETS


@dataclass(frozen=True)
class ListCommand:
    """Lists the priors that come with this version, or those on the Hub."""

    remote: bool
    json: bool

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--remote", action="store_true", help="the priors that anyone has published on the Hub")
        parser.add_argument("--json", action="store_true", help="as JSON, with the sets of priors")

    def run(self) -> None:
        if self.remote:
            self._list_remote()
        else:
            self._list_registered()

    def _list_registered(self) -> None:
        names = list_priors()
        if not names:
            raise ValueError("this dwp_init comes without priors; install it again, or pass a prior's folder")
        if self.json:
            entries = [{"name": name} | registry()[name] for name in names]
            priors = [{key: value for key, value in entry.items() if key != "sha256"} for entry in entries]
            print(json.dumps({"priors": priors, "sets": _sets()}, indent=2))
            return
        print(names)
        print("log p: nats per kernel, on kernels of held-out networks")
        for name, prior_set in SETS.items():
            print(f"a set of {len(list(prior_set))} priors, which apply takes too: {name} (dwp-init show {name})")

    def _list_remote(self) -> None:
        found: list[Listing] = search(Access())
        if self.json:
            print(json.dumps({"priors": [asdict(listing) for listing in found]}, indent=2))
            return
        if not found:
            raise PriorNotFoundError("the Hub has no repository tagged dwp-prior; `dwp-init list` names local priors")
        print(listed_priors(found))
        print(
            "size: of all revisions; downloads: in the last 30 days. Anyone can publish: pin a revision, user/repo@v1"
        )


def _sets() -> dict[str, dict[str, list[str]]]:
    sets: dict[str, dict[str, list[str]]] = {}
    for name, prior_set in SETS.items():
        kinds: dict[str, Any] = sets.setdefault(name, {})
        for kind, like in prior_set:
            kinds.setdefault(kind, []).append(str(like))
    return sets
