"""``dwp-init pull``: a prior is downloaded."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from dwp_init.access import Access
from dwp_init.files import parse_prior
from dwp_init.registry import find, obtain


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
        print(f"{self.prior}: {prior.kernels_text}, {prior.family}, {size:.2f} MB, {origin}")
        print(files.folder)
