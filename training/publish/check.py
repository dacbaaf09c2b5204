"""Makes and checks what the Hugging Face Hub reads of a card: its front matter and its links."""

import re
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import unquote

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from dwp_init import Gaussian, PatchWhitening, Prior
from dwp_init.report import size_text
from training.fits.authors import UNSTATED
from training.images.own import UNLICENSED
from training.publish.details import Details, section, single_line

ON_THE_HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
# The SPDX ids of https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0
ms-pl ncsa ofl-1.1 osl-3.0 postgresql unlicense wtfpl zlib
"""
LICENSES = frozenset(_LICENSES.split())
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1|(`+)(?!`).+?(?<!`)\2(?!`)", re.DOTALL | re.MULTILINE)
_LINKS = (
    re.compile(r"(?<!\\)\]\(\s*(?:<([^>\n]*)>|([^\s)]+))"),
    re.compile(r"""<[^>]*?\b(?:src|href)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE),
    re.compile(r"^ {0,3}\[[^\]\n]+\]:\s*(?:<([^>\n]*)>|(\S+))", re.MULTILINE),
)


def card_metadata(prior: Prior) -> ModelCardData:
    """Returns what the Hub reads of a card: licence, tags, data sets and the held-out log p in nats per kernel.

    A licence that the Hub does not list becomes ``license: other`` with its name in ``license_name``; a data set that
    is not on the Hub is left out.

    Args:
        prior: The prior; its ``details`` must name a licence.

    Raises:
        ValueError: They name none.
    """
    details = Details.of(prior)
    data = None if details.synthetic else ON_THE_HUB.get(details.data)
    results = _eval_results(prior, details)
    index: dict[str, Any] = {"model_name": details.name or f"{prior.family}-{_size(prior)}", "eval_results": results}
    return ModelCardData(
        library_name="dwp_init",
        **_license(prior, details),
        tags=_tags(prior, details),
        datasets=[data] if data else None,
        **(index if results else {}),
    )


def check_card(text: str, prior: Prior, files: Collection[str]) -> None:
    """Raises ``ValueError`` if a card cannot be published with its prior; makes no request.

    Args:
        text: The card, possibly edited by its owner.
        prior: The prior.
        files: Names of the files that are published, including the card.

    Raises:
        ValueError: The front matter is missing or unreadable, ``license``, ``library_name``, ``tags``, ``datasets`` or
            ``model-index`` are not what the Hub or the prior needs, or a relative link leads to no file. One message
            lists all faults. Or ``details`` of the prior names no licence.
    """
    found = [*_metadata_faults(text, prior), *_link_faults(text, files)]
    if found:
        raise ValueError(
            f"README.md cannot be published: {'; '.join(found)}. Edit it, or remove it and write a new one with "
            "python -m training cards FOLDER"
        )


def check_sources(prior: Prior) -> str:
    """Checks that the licence of each network from which a prior was harvested is recorded, or else that of the prior.

    Returns:
        What was checked; empty for a prior that was not harvested.

    Raises:
        ValueError: A network has no licence entry, or the maker of the prior has not said its licence.
    """
    source = section(prior.details, "source")
    names = source.get("checkpoints")
    if not names and prior.details.get("license") in (UNLICENSED, UNSTATED):
        raise ValueError(
            "nobody has said under which licence others may use this prior: give --license to python -m training fit, "
            'or set it, with prior = dwp_init.load_prior(FOLDER), prior.details["license"] = "MIT" and '
            "dwp_init.save_prior(prior, FOLDER)"
        )
    if not names:
        return ""
    names = [str(name) for name in names] if isinstance(names, list) else [str(names)]
    licenses = {name: section(source, "origins", name).get("license") for name in names}
    if unknown := [name for name, given in licenses.items() if not (isinstance(given, str) and given.strip())]:
        raise ValueError(
            f"{len(unknown)} of {len(names)} networks from which this prior was harvested have no licence entry, such "
            f"as {unknown[0]}: enter each in a manifest with its license, and harvest and fit from the manifest"
        )
    return f"licences of the networks that it was harvested from: {', '.join(sorted(set(map(str, licenses.values()))))}"


def shortfall(prior: Prior) -> str:
    """Says that held-out kernels are no more likely under a prior than under a Gaussian or white noise; or nothing."""
    found = Details.of(prior).metrics
    own = found.log_prob
    gaussian = None if isinstance(prior, Gaussian) else found.gaussian_log_prob
    others = {"a Gaussian with a full covariance": gaussian, "white noise of their scale": found.white_noise_log_prob}
    ahead = [f"{other:,} under {name}" for name, other in others.items() if other is not None and (own or 0) <= other]
    if own is None or not ahead:
        return ""
    return (
        f"warning: log p of held-out kernels is {own:,} nats under this prior, {' and '.join(ahead)}: fit it to more "
        "kernels, or take another --family"
    )


def _size(prior: Prior) -> str:
    return _joined(prior.kernel_shape[1:])


def _joined(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _tags(prior: Prior, details: Details) -> list[str]:
    return [
        "dwp-prior",
        "weight-initialization",
        "deep-weight-prior",
        *_kernel_tags(prior),
        *(["depthwise"] if details.source.kind == "depthwise" else []),
        f"family-{prior.family}",
        "pytorch",
        *(["synthetic"] if details.synthetic else []),
    ]


def _kernel_tags(prior: Prior) -> list[str]:
    """Returns the tags of a prior's kernels, first that of their size; one of many shapes has that of the largest."""
    if isinstance(prior, PatchWhitening):
        return [f"kernel-up-to-{_joined(prior.span)}"]
    channels = prior.kernel_shape[0]
    return [f"kernel-{_size(prior)}", *([f"kernel-channels-{channels}"] if channels > 1 else [])]


def _license(prior: Prior, details: Details) -> dict[str, Any]:
    known = details.license.lower()
    if not known:
        raise ValueError(
            f"a published prior needs a licence; details has license={prior.details.get('license')!r}: set "
            "details[\"license\"], such as 'MIT', and save the prior again"
        )
    if known in LICENSES:
        return {"license": known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.+]+", "-", known).strip("-") or "custom"}


def _eval_results(prior: Prior, details: Details) -> list[EvalResult]:
    if details.metrics.log_prob is None:
        return []
    bound = " (lower bound)" if details.bound else ""
    synthetic = ", from synthetic images" if details.synthetic else ""
    return [
        EvalResult(
            task_type="density-estimation",
            task_name="Density of convolution kernels",
            dataset_type="convolution-kernels",
            dataset_name=f"{size_text(prior.kernel_shape[1:])} kernels held out of the fit{synthetic}",
            metric_type="log_prob",
            metric_name=f"log p, nats per kernel{bound}",
            metric_value=details.metrics.log_prob,
        )
    ]


def _metadata_faults(text: str, prior: Prior) -> list[str]:
    wanted = card_metadata(prior)
    block = REGEX_YAML_BLOCK.search(text)
    if not block:
        return ["it has no YAML front matter between two lines of ---"]
    try:
        data = yaml.safe_load(block[2])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [f"its front matter is not YAML ({single_line(str(error))})"]
    if not isinstance(data, dict):
        return [f"its front matter is a {type(data).__name__}, expected a mapping such as license: mit"]
    found = [
        f"{key} is {data.get(key)!r}, expected {wanted.get(key)!r}"
        for key in ("license", "license_name", "library_name")
        if data.get(key) != wanted.get(key)
    ]
    tags: list[Any] = data["tags"] if isinstance(data.get("tags"), list) else []
    found += [f"tags lacks {tag!r}" for tag in ("dwp-prior", _kernel_tags(prior)[0]) if tag not in tags]
    ids = data.get("datasets", [])
    if not isinstance(ids, list) or not all(isinstance(item, str) and HUB_ID.fullmatch(item) for item in ids):
        found.append(f"datasets is {ids!r}, expected a list of ids on the Hub, user/name or name")
    try:
        log_prob = Details.of(prior).metrics.log_prob
        found += [
            f"model-index has log_prob {result.metric_value!r}, the configuration {log_prob!r}"
            for result in getattr(ModelCard(text).data, "eval_results", None) or []
            if result.metric_type == "log_prob" and result.metric_value != log_prob
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found.append(f"huggingface_hub cannot read its metadata ({single_line(str(error))})")
    return found


def _link_faults(text: str, files: Collection[str]) -> list[str]:
    """Names the relative links of a card that lead to none of the files."""
    prose = _CODE.sub("", REGEX_YAML_BLOCK.sub("", text, count=1))
    targets = dict.fromkeys(first or second for link in _LINKS for first, second in link.findall(prose))
    return [f"it links to {target!r}, which is not published with it" for target in targets if _is_lost(target, files)]


def _is_lost(target: str, files: Collection[str]) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:|//|#", target, re.IGNORECASE) or not target:
        return False
    return unquote(re.split(r"[?#]", target)[0]).removeprefix("./") not in files
