"""What the Hub reads of a card, and what is refused before a card is published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from dwp_init import Gaussian, GaussianMixture, KernelVAE, load_prior, save_prior
from tests.training.publish.example_priors import FILES, licensed
from training.__main__ import main
from training.publish.cards import render_card
from training.publish.check import card_metadata, check_card, check_sources, shortfall


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        ("mnist", ["ylecun/mnist"]),
        ("cifar10", ["uoft-cs/cifar10"]),
        ("cifar100", ["uoft-cs/cifar100"]),
        ("notmnist", None),
        ([], None),
    ],
)
def test_data_sets_are_named_by_their_ids_on_the_hub(data: Any, ids: list[str] | None) -> None:
    prior = licensed(source={"dataset": data})
    assert card_metadata(prior).datasets == ids
    prior.details["source"]["synthetic"] = True
    assert card_metadata(prior).datasets is None


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("My Own, 1.0", {"license": "other", "license_name": "my-own-1.0"}),
        ("许可", {"license": "other", "license_name": "custom"}),
    ],
)
def test_licences_are_named_as_the_hub_names_them(license: str, expected: dict[str, str]) -> None:
    data = card_metadata(licensed(license=license)).to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


@pytest.mark.parametrize("license", [None, "", " \n", 1])
def test_a_prior_without_a_licence_gets_no_card(license: Any, tmp_path: Path) -> None:
    prior = licensed(license=license)
    for refused in (lambda: card_metadata(prior), lambda: render_card(prior, "user/prior")):
        with pytest.raises(ValueError, match=r"a published prior needs a licence; .*: set details\[\"license\"\]"):
            refused()
    save_prior(prior, tmp_path)
    assert main(["cards", str(tmp_path)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_channels_are_in_tags_() -> None:
    prior = licensed(Gaussian((3, 5, 7)))
    assert {"kernel-5x7", "kernel-channels-3"} <= set(card_metadata(prior).to_dict()["tags"])


def test_a_prior_of_many_shapes_has_the_tag_of_the_largest() -> None:
    tags = card_metadata(load_prior("natural-stem")).to_dict()["tags"]
    assert [tag for tag in tags if tag.startswith("kernel")] == ["kernel-up-to-16x16"]


def _edit(old: str, new: str) -> Callable[[str], str]:
    def edited(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edited


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.split("---\n", 2)[2], "it has no YAML front matter"),
        (_edit("license: mit", "license: [mit"), "its front matter is not YAML"),
        (lambda text: "---\n- a\n---\n" + text.split("---\n", 2)[2], "its front matter is a list, expected a mapping"),
        (_edit("license: mit\n", ""), "license is None, expected 'mit'"),
        (_edit("license: mit", "license: apache-2.0"), "license is 'apache-2.0', expected 'mit'"),
        (_edit("license: mit", "license: mit\nlicense_name: x"), "license_name is 'x', expected None"),
        (_edit("library_name: dwp_init", "library_name: timm"), "library_name is 'timm', expected 'dwp_init'"),
        (_edit("- dwp-prior\n", ""), "tags lacks 'dwp-prior'"),
        (_edit("- kernel-5x5\n", ""), "tags lacks 'kernel-5x5'"),
        (_edit("tags:\n", "tags: dwp-prior\nothers:\n"), "tags lacks 'dwp-prior'; tags lacks 'kernel-5x5'"),
        (_edit("license:", "datasets: ylecun/mnist\nlicense:"), "datasets is 'ylecun/mnist', expected a list of ids"),
        (_edit("license:", "datasets: [a/b/c, 1]\nlicense:"), r"datasets is \['a/b/c', 1\], expected a list of ids"),
        (_edit("    metrics:\n", "    measures:\n"), "huggingface_hub cannot read its metadata"),
        (_edit("  - task:\n", "  - source: x\n    task:\n"), "huggingface_hub cannot read its metadata"),
        (_edit("license:", "1: 2\nlicense:"), "huggingface_hub cannot read its metadata"),
        (_edit("(kernels.png)", "(other.png)"), "it links to 'other.png', which is not published with it"),
        (_edit("## Use", '[a](<b c.md> "t") ## Use'), "it links to 'b c.md'"),
        (_edit("## Use", "<img src='a.png'>\n## Use"), "it links to 'a.png'"),
        (_edit("## Use", '<a id=1 href="../x">x</a>\n## Use'), r"it links to '\.\./x'"),
        (_edit("## Use", "[x]: far/away.md\n\n## Use"), "it links to 'far/away.md'"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(change: Callable[[str], str], message: str) -> None:
    prior = load_prior("notmnist-5x5")
    text = change(render_card(prior, "notmnist-5x5"))
    with pytest.raises(ValueError, match=rf"README\.md cannot be published: .*{message}.*python -m training cards"):
        check_card(text, prior, FILES)


def test_everything_wrong_is_said_at_once() -> None:
    prior = licensed()
    with pytest.raises(ValueError, match=r"license is.*library_name is.*dwp-prior.*kernel-3x3.*datasets.*links to 'x'"):
        check_card("---\ndatasets: 1\n---\n[x](x)", prior, FILES)


def test_links_that_lead_somewhere_pass() -> None:
    prior = load_prior("notmnist-5x5")
    text = render_card(prior, "notmnist-5x5")
    text += "\n[a](https://x.org/y) [b](#use) [c](mailto:a@b.c) [d](//x.org) [e](./config.json?raw=1#top) [f](a%20b)\n"
    text += "`[g](no)` \\[h\\](no)\n```\nx[0](no)\n```\n"
    check_card(text.replace("\n", "\r\n"), prior, [*FILES, "a b"])
    check_card(text, prior, [*FILES, "a b"])


def test_yaml_survives_a_round_trip() -> None:
    prior = licensed(KernelVAE((1, 7, 7)), name="ein: Name # 'x' \"y\" — ü", metrics={"log_prob": -1e-7})
    text = render_card(prior, "user/prior")
    again = ModelCard(text)
    assert again.data.to_dict() == card_metadata(prior).to_dict()
    check_card(str(again), prior, [*FILES, "latent.png"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((2.0, 1.0, 1.0), ""),
        ((2.0, None, None), ""),
        ((-1.0, 1.0, -3.0), "-1.0 nats under this prior, 1.0 under a Gaussian with a full covariance: fit"),
        ((1.0, 0.0, 1.0), "1.0 nats under this prior, 1.0 under white noise of their scale: fit it to more"),
    ],
)
def test_a_prior_that_is_no_better_than_a_gaussian_is_named_so(values: tuple[float | None, ...], said: str) -> None:
    names = ("log_prob", "gaussian_log_prob", "white_noise_log_prob")
    metrics = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    prior = licensed(GaussianMixture((1, 3, 3), 2), metrics=metrics)
    assert (said in shortfall(prior)) if said else not shortfall(prior)


@pytest.mark.parametrize("names", ["a", {"a": 1}, ["a"], [{"a": 1}], [1]])
@pytest.mark.parametrize(
    "origins", [None, "a", ["a"], {}, {"a": "MIT"}, {"a": {"license": " "}}, {"a": {"license": ["MIT"]}}]
)
def test_any_record_without_licences_is_refused(names: Any, origins: Any) -> None:
    with pytest.raises(ValueError, match=r"1 of 1 networks .* have no licence entry"):
        check_sources(licensed(source={"checkpoints": names, "origins": origins}))


def test_priors_that_were_not_harvested_need_no_entries() -> None:
    assert [check_sources(licensed(source=source)) for source in ({}, {"checkpoints": []}, {"file": "a"})] == [""] * 3
