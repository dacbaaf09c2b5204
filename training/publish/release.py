"""Prepares a release, the files and the card of a prior, without a network; and enters it in the registry."""

import hashlib
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dwp_init import Prior
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL, read_files
from dwp_init.registry import BUNDLED, REGISTRY, registry
from dwp_init.storage import write_files, write_json
from training.engine.run import locked
from training.fits.statistics import describe
from training.publish.cards import CARD, write_card
from training.publish.check import check_card, check_sources
from training.publish.details import Details, number, section
from training.publish.templates import CARDS

COMPARED_DRAWS, GROUPS = 4000, 20  # drawn to compare with the recorded statistics; groups that give the standard error
STATISTICS = ("rms", "roughness")
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_TAG = re.compile(r"\w[\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Release:
    """A prior that is ready to be published.

    Args:
        prior: The prior.
        repo: ``user/name``.
        tag: The version, such as ``v1``.
        files: Contents of the files, by name.
        checks: What was checked, one line for each check.
    """

    prior: Prior
    repo: str
    tag: str
    files: dict[str, bytes]
    checks: list[str]

    @property
    def name(self) -> str:
        """The name of the prior in the registry."""
        return self.prior.details.get("name") or self.repo.partition("/")[2]

    @property
    def next_tag(self) -> str:
        """The version after this one: v1 → v2."""
        number = re.search(r"\d+$", self.tag)
        return f"{self.tag}.1" if number is None else f"{self.tag[: number.start()]}{int(number[0]) + 1}"

    @property
    def sha256(self) -> dict[str, str]:
        """The digests that a pin holds."""
        return digests(self.files)


def prepare(folder: Path, repo: str, tag: str = "v1", allow_synthetic: bool = False) -> Release:
    """Reads a prior's folder and checks all that can be checked without a network.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors``. Its ``README.md`` is the card, which is
            published with the folder's ``.png`` files. Without one, the card of the bundled prior with these files is
            used, or one is written from the configuration.
        repo: ``user/name`` on the Hub.
        tag: The version.
        allow_synthetic: Whether a prior of ``--smoke`` may be published.

    Raises:
        FileNotFoundError: The folder lacks one of the two files.
        ValueError: The files do not fit each other, the card is not fit to be published, draws do not have the
            statistics recorded, the prior was made from synthetic images, or a name is malformed.
    """
    if not _REPO.fullmatch(repo):
        raise ValueError(f"--repo is user/name; got {repo!r}")
    if not _TAG.fullmatch(tag) or tag == "main" or _COMMIT.fullmatch(tag):
        raise ValueError(f"--tag is a version such as v1, not a branch or a commit; got {tag!r}")
    if not (folder / CONFIG).exists() and (folder / "prior" / CONFIG).exists():
        raise ValueError(f"{folder} is a stage's folder; the prior is in {folder / 'prior'}")
    files = read_files(folder)
    prior = parse_prior(files, folder)
    if Details.of(prior).synthetic and not allow_synthetic:
        raise ValueError(
            f"{folder} was made from synthetic images, under --smoke, and is only useful to try out publishing; "
            "add --allow-synthetic to publish it anyway"
        )
    checks = [f"the folder loads: {prior.family}, kernels {'×'.join(map(str, prior.kernel_shape))}"]
    checks += [check for check in (check_sources(prior), _compare_statistics(prior)) if check]
    card, origin = _card(folder, files, prior, repo)
    files |= card
    check_card(files[CARD].decode(), prior, sorted(files))
    checks.append(f"the card ({origin}) has the metadata that the Hub and this prior need")
    return Release(prior, repo, tag, files, checks)


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the digests of a prior's two files, by name."""
    return {name: hashlib.sha256(files[name]).hexdigest() for name in (CONFIG, MODEL)}


def registry_entry(prior: Prior, sha256: Mapping[str, str], **pin: str) -> dict[str, Any]:
    """Describes a prior for the registry.

    Args:
        prior: The prior.
        sha256: The digests of its files.
        pin: ``repo`` and ``revision`` on the Hub, if it is published.
    """
    details = Details.of(prior)
    return {
        "kernel_shape": list(prior.kernel_shape),
        **({"kernels": prior.kernels_text} if prior.joint else {}),
        "family": prior.family,
        "source": details.data or "unknown",
        "license": prior.details["license"],
        "log_prob": details.metrics.log_prob,
        "sha256": dict(sha256),
        **pin,
    }


def check_pin(release: Release) -> None:
    """Raises ``ValueError`` if a release cannot be entered in the registry under its name."""
    name, known = release.name, registry().get(release.name, {})
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the prior is called {name!r}, which cannot be a registry name: only letters, digits, -, _ and . are "
            "allowed; save it with another details['name']"
        )
    if known.get("repo", release.repo) != release.repo:
        raise ValueError(f"{name!r} is pinned to {known['repo']}; save the prior with another details['name']")
    if (BUNDLED / name).exists() and known.get("sha256") != release.sha256:
        raise ValueError(
            f"{name!r} is bundled with other files than those of this release, and the pin would disable the bundled "
            "copy; bundle these files, or save the prior with another details['name']"
        )


def write_entry(name: str, entry: dict[str, Any]) -> None:
    """Writes an entry into the package's registry, whole or not at all, beside those that others write meanwhile."""
    with locked(REGISTRY.parent, seconds=60):
        registry.cache_clear()  # others may have written since it was read
        write_json(REGISTRY, dict(sorted({**registry(), name: entry}.items())))
        registry.cache_clear()


def _compare_statistics(prior: Prior) -> str:
    """Compares draws with what the configuration records of them; raises ValueError beyond five standard errors."""
    drawn = section(prior.details, "metrics", "samples", "drawn")
    if not any(key in drawn for key in STATISTICS):
        return "draws were not compared, because the configuration records no statistics of samples"
    groups = [describe(part) for part in prior.sample(COMPARED_DRAWS, torch.Generator().manual_seed(0)).chunk(GROUPS)]
    shown = []
    for key in STATISTICS:
        if key not in drawn or (drawn[key] is None and groups[0][key] is None):  # kernels of one row have no roughness
            continue
        recorded_value = number(drawn[key])
        expected = math.nan if recorded_value is None else recorded_value  # no draws have that
        each = [math.nan if group[key] is None else group[key] for group in groups]
        values = torch.tensor(each, dtype=torch.float64)
        found, error = values.mean().item(), values.std().item() / GROUPS**0.5
        spread = error * (1 + COMPARED_DRAWS / 1000) ** 0.5  # a record is of 1,000 draws or more
        allowed = 5 * spread + 1e-3 * abs(expected)
        if not abs(found - expected) <= allowed:
            raise ValueError(
                f"draws have {key} {found:.4g} ± {error:.2g}, the configuration records {drawn[key]!r}: the record is "
                "not of these tensors; fit the prior again"
            )
        shown.append(f"{key} {found:.4g} ({expected:.4g})")
    return f"draws have the statistics recorded: {', '.join(shown)}"


def _card(folder: Path, files: Mapping[str, bytes], prior: Prior, repo: str) -> tuple[dict[str, bytes], str]:
    """Returns the card with its pictures, and where it comes from."""
    name = prior.details.get("name")
    if (folder / CARD).exists():
        return _read_card(folder), f"{folder / CARD}"
    if name in registry() and (BUNDLED / name).exists() and read_files(BUNDLED / name) == files:
        return _read_card(CARDS / name), "that of the bundled prior"
    with tempfile.TemporaryDirectory() as scratch:
        write_files({Path(scratch) / file: content for file, content in files.items()})
        write_card(Path(scratch), repo)
        return _read_card(Path(scratch)), "written from its configuration"


def _read_card(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / CARD, *sorted(folder.glob("[!.]*.png")))}
