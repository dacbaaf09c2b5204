"""Cards: the pages of record, the card of any prior, and what is refused before a card is published."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import dwp_init
from dwp_init import Gaussian, KernelVAE, MixtureByDepth, Prior, load_prior, save_prior
from dwp_init.registry import registry
from training.__main__ import main
from training.publish import cards, tables, wording
from training.publish.check import card_metadata, check_card
from training.publish.wording import source_table

HEADINGS = [
    "Use",
    "What it was fitted on",
    "Family and size",
    "How likely held-out kernels are",
    "Effect on training",
    "What its draws are like",
    "Where it does not help",
    "Cost of drawing",
    "Citation",
    "Licence",
]
HOSTILE = (
    'a\n---\nlicense: other\n{{ 1/0 }} {% raise %} | x | <script>alert(1)</script> [l](evil.png) ![p](p.png) `$$` "\\'
)
FILES = ("README.md", "kernels.png", "config.json", "model.safetensors")


def licensed(prior: Prior, **details: Any) -> Prior:
    prior.details = {"license": "MIT", **details}
    return prior


def parts(text: str) -> dict[str, str]:
    """A card's sections by heading."""
    found = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {heading: body.strip() for heading, body in zip(found[1::2], found[2::2], strict=True)}


def files_of(prior: Prior) -> list[str]:
    return [*FILES, "latent.png"] if cards.has_a_plane(prior) else [*FILES]


# Pages of record


def test_pages_are_those_that_the_results_give() -> None:
    """No number by hand: cards and the README's tables are what ``python -m training cards`` writes."""
    pages = cards.pages()
    assert len(pages) == 16
    for path, text in pages.items():
        assert path.read_text() == text, f"{path} is stale; run python -m training cards"
        assert not re.search(r"\{\{|\{%|\n\n\n", text)
    assert sorted(path.name for path in cards.CARDS.glob("*.*")) == [
        "benchmark.md",
        "benchmark.md.jinja",
        "families.md",
        "families.md.jinja",
        "few_labels.md",
        "few_labels.md.jinja",
        "template.md.jinja",
    ]


def test_every_bundled_prior_has_a_card_with_a_picture() -> None:
    for path in cards.pages():
        if path.name == "README.md" and path.parent != cards.ROOT:
            pictures = re.findall(r"\]\((\w+\.png)\)", path.read_text())
            assert pictures == (
                ["kernels.png", "latent.png"] if path.parent.name == "notmnist-7x7-h1" else ["kernels.png"]
            )
            for picture in pictures:
                assert (path.parent / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", registry())
def test_a_bundled_card_says_what_its_config_says(name: str) -> None:
    prior = load_prior(name)
    text = (cards.CARDS / name / "README.md").read_text()
    check_card(text, prior, files_of(prior))
    data = ModelCard(text).data
    recorded = tables.size_of_record(name) is not None
    channels, *size = prior.kernel_shape
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "dwp_init", None)
    assert data.tags == [
        "dwp-prior",
        "weight-initialization",
        "deep-weight-prior",
        f"kernel-{size[0]}x{size[1]}",
        *([f"kernel-channels-{channels}"] if channels > 1 else []),
        *(["depthwise"] if prior.details["source"].get("kind") == "depthwise" else []),
        f"family-{prior.family}",
        "pytorch",
    ]
    assert data.datasets is None
    assert wording.DATA_SETS[registry()[name]["source"]] in text
    (result,) = data.eval_results
    assert data.model_name == name
    assert result.metric_value == prior.details["metrics"]["log_prob"] == registry()[name]["log_prob"]
    assert result.metric_name == "log p, nats per kernel" + ("" if prior.exact else " (lower bound)")
    assert list(parts(text)) == HEADINGS
    assert ("ot measured:" not in text) == recorded == name.startswith("notmnist-")
    assert "Made by `python -m training run prior_" in parts(text)["Licence"]
    assert f'report = dwp_init.apply_(model, prior="{name}")' in parts(text)["Use"]
    assert ("not shown to be better than a Gaussian" in text) == (name == "notmnist-7x7-h1")


def test_tables_of_record_are_only_for_the_bundled_prior_under_its_own_name() -> None:
    name = "notmnist-5x5"
    assert "1-NN recalls" in cards.render_card(load_prior(name), name)
    changed = load_prior(name)
    changed.weight.copy_(changed.weight.flip(0))
    for prior, address in ((load_prior(name), "user/prior"), (load_prior(name), "notmnist-7x7"), (changed, name)):
        text = cards.render_card(prior, address)
        assert "1-NN recalls" not in text
        assert f'prior="{address}"' in text
        assert "| Gaussian with a full covariance | 43.588 | |" in text
        assert parts(text)["Effect on training"].startswith("Not measured")
        check_card(text, prior, FILES)


def test_a_card_says_where_the_effect_of_its_set_is_measured() -> None:
    text = cards.render_card(load_prior("tinyimagenet-dw7x7"), "tinyimagenet-dw7x7")
    assert '`prior="natural"`' in parts(text)["Effect on training"]
    assert "`model_cards/benchmark.md`" in parts(text)["Effect on training"]
    text = cards.render_card(load_prior("tinyimagenet-dw7x7"), "user/prior")
    assert parts(text)["Effect on training"].startswith("Not measured")


def test_the_priors_of_record_are_in_a_table_of_densities() -> None:
    sizes = {"notmnist-7x7": "7x7", "notmnist-5x5-h1": "5x5", "notmnist-7x7-flow": "7x7", "tinyimagenet-7x7": None}
    assert {name: tables.size_of_record(name) for name in sizes} == sizes


def test_figures_of_the_paper_stand_beside_its_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.figures() == {}
    (tmp_path / "fig3b.csv").write_text("init,k,accuracy,sd,seeds\nXavier,0.125,60.25,0.5,3\nXavier,1.0,63.0,1.25,3\n")
    rows = "Xavier,-200.0,10.0,1.0,2,2\nXavier,-97.0,,,1,2\n"
    (tmp_path / "fig4a.csv").write_text(f"init,level,steps,steps_sd,reached,seeds\n{rows}")
    assert list(tables.figures()) == ["fig3b", "fig4a"]
    assert tables.figure_table("fig3b").splitlines() == [
        "| init | k = 1/8 | k = 1 |",
        "|---|---|---|",
        "| Xavier | 60.2 ± 0.5 | 63.0 ± 1.2 |",
        "| *the paper's dwp* | 63.7 ± 0.55 | 68.95 ± 0.63 |",
        "| *the paper's xavier* | 62.15 ± 0.46 | 65.6 ± 0.35 |",
        "| *the paper's filters* | 65.29 ± 1.53 | 71.02 ± 0.65 |",
    ]
    assert tables.figure_table("fig4a").splitlines()[2:] == [
        "| Xavier | 10.0 ± 1.0 | 1 of 2 get there |",
        "| *the paper's dwp* | 33 | 521 |",
        "| *the paper's filters* | 35 | 603 |",
        "| *the paper's xavier* | 101 | 837 |",
    ]


def test_a_missing_result_names_its_recipe_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m training list"):
        cards.pages()


def test_a_prior_without_a_row_of_cost_says_so() -> None:
    assert tables.draws_cost("other").startswith("Not measured")


# The card of any prior


def test_a_prior_of_which_nothing_is_known_has_every_section() -> None:
    prior = licensed(Gaussian((1, 3, 3)))
    text = cards.render_card(prior, "user/bare")
    check_card(text, prior, FILES)
    assert "# user/bare\n" in text
    found = parts(text)
    assert list(found) == HEADINGS
    assert found["What it was fitted on"] == "What it was fitted on is not recorded."
    assert found["Family and size"] == "A Gaussian with a full covariance. 99 numbers; its tensors take 0.000396 MB."
    for heading in [*HEADINGS[3:6], "Cost of drawing"]:
        assert found[heading].startswith("Not measured: ")
        assert len(found[heading].splitlines()) == 1
    data = ModelCard(text).data.to_dict()
    assert data.keys() == {"library_name", "license", "tags"}
    assert "kernel-3x3" in data["tags"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"filters": [32, 64]}, "24 of the paper's Appendix H.2, with 32 and 64 filters (256 and 512 there)"),
        (
            {"filters": [4, 8], "network": "mnist"},
            "24 of the paper's Appendix H.2, with 4 and 8 filters (256 and 512 there)",
        ),
        ({"filters": [128], "network": "convmixer"}, "24 of kind convmixer, 128 filters"),
        ({"filters": [16, 32, 64], "network": "resnet"}, "24 of kind resnet, 16/32/64 filters"),
        ({"filters": ["|"], "network": "<b>|"}, r"24 of kind \<b\>\|, \| filters"),
        ({"filters": [1], "network": None}, "24 of kind null, 1 filters"),
    ],
)
def test_source_networks_are_named(settings: dict[str, Any], said: str) -> None:
    counts = {"images": 5, "networks": 24, "epochs": 1, "batch_size": 2, "lr": 0.1, "l2": 0.2}
    source = counts | {"dataset": "d", "layer": "l", "precision": "float32", "test_accuracy_mean": 0.5} | settings
    assert f"\n| networks | {said} |\n" in source_table(licensed(Gaussian((1, 3, 3)), source=source))


@pytest.mark.parametrize(("scale", "said"), [({}, False), ({"init_scale": 1.0}, False), ({"init_scale": 0.1}, True)])
def test_an_initial_scale_of_the_sources_is_said(scale: dict[str, Any], said: bool) -> None:
    counts = {"images": 5, "networks": 24, "epochs": 1, "batch_size": 2, "lr": 0.1, "l2": 0.2, "filters": [1, 2]}
    source = counts | {"dataset": "d", "layer": "l", "precision": "float32", "test_accuracy_mean": 0.5} | scale
    table = source_table(licensed(Gaussian((1, 3, 3)), source=source))
    assert ("float32, spatial kernels from 0.1 of their usual initial scale |" in table) == said


def test_a_prior_by_depth_says_so() -> None:
    """Its layers are a list, and its kept shares too, for which there is no one number."""
    made = {
        "dataset": "tinyimagenet32-a",
        "images": 9,
        "networks": 3,
        "epochs": 1,
        "batch_size": 2,
        "lr": 0.1,
        "l2": 0.2,
    }
    made |= {"network": "convmixer", "filters": [8], "precision": "float32", "test_accuracy_mean": 0.5}
    made |= {"layer": ["a", "b"], "kept": [1.0, 0.5], "kernels": {"train": 400, "validation": 2, "test": 2}}
    made |= {"held_out_networks": {"validation": 1, "test": 1}, "min_norm": 0.25, "kind": "depthwise"}
    fit = {"components": [2], "shrinkages": [3.0], "restarts": 2, "most": 20}
    metrics = {"log_prob": 2.5, "kernels": 2, "kind": "exact", "gaussian_log_prob": 2.0}
    metrics |= {"log_prob_at_depth": 3.0, "gaussian_log_prob_at_depth": 3.25, "log_prob_by_depth": [-1.5, 7.5]}
    prior = MixtureByDepth((1, 3, 3), (0.25, 1.0), (2, 3))
    text = cards.render_card(licensed(prior, source=made, fit=fit, metrics=metrics), "user/deep")
    found = parts(text)
    assert found["Family and size"].startswith(
        "Gaussian scale mixtures by relative depth (0.25, 1), 5 components in all; each layer takes that of the depth"
    )
    assert "A prior over 3×3 depthwise convolution kernels, for" in text
    assert "The kernels of 2 layers of 3 small networks, trained on the first 100 classes of Tiny ImageNet at" in text
    assert "404 kernels were kept, 50.0 to 100.0 % of each layer's; smaller ones were left out." in text
    assert "| layers | a, b |" in text
    rule = "of norm ≥ 0.25 times the 95 % quantile of the fitting networks"
    assert f"| kernels kept | 50.0 to 100.0 % of each layer's, {rule} |" in text
    assert "| fit | at each depth expectation-maximisation with 2 components and a shrinkage of 3 kernels, the" in text
    assert "the average of 2 starts" in text
    assert found["How likely held-out kernels are"].splitlines() == [
        "Mean log p of 2 kernels of 1 network that was held out whole, in nats per kernel; this prior's is exact:",
        "",
        "| density | log p | over the Gaussian |",
        "|---|---|---|",
        "| **this prior**, depth unknown | 2.5 | +0.500 |",
        "| Gaussian with a full covariance | 2 | |",
        "| **this prior**, depth known | 3 | -0.250 |",
        "| Gaussian for each depth | 3.25 | |",
        "| mixture of Gaussians beside it | not measured | |",
        "",
        "By relative depth, 0 at the images: -1.5 at 0.25, 7.5 at 1.",
    ]
    limits = found["Where it does not help"]
    assert "from one kind of network and one data set: 3 of kind convmixer, 8 filters, trained on" in limits
    assert "to a test accuracy of 50.0 %." in limits
    assert "- Its kernels are of depthwise layers;" in limits
    assert "few kernels" not in limits and "Knowing the depth does not help" not in limits
    check_card(text, prior, FILES)


@pytest.mark.parametrize(
    ("kept", "said", "row"),
    [
        ([1.0, 1.0], "All 8 kernels were kept.", "| kernels kept | 100.0 % of each layer's |"),
        (1.0, "All 8 kernels were kept.", "| kernels kept | 100.0 %, of norm ≥ 0.125 |"),
        (0.5, "8 of about 16 kernels were kept; smaller ones", "| kernels kept | 50.0 %, of norm ≥ 0.125 |"),
        ([0.5, "1"], "", ""),
        ([], "", ""),
        (None, "", ""),
    ],
)
def test_the_share_of_kernels_that_was_kept(kept: Any, said: str, row: str) -> None:
    counts = {"images": 5, "networks": 24, "epochs": 1, "batch_size": 2, "lr": 0.1, "l2": 0.2, "filters": [1]}
    made = counts | {"dataset": "d", "layer": "l", "precision": "float32", "test_accuracy_mean": 0.5, "kept": kept}
    made |= {"kernels": {"train": 4, "validation": 2, "test": 2}, "norm_threshold": 0.125}
    text = cards.render_card(licensed(Gaussian((1, 3, 3)), source=made), "user/prior")
    assert said in text and row in text
    assert ("were kept" in text) == bool(said) and ("| kernels kept |" in text) == bool(row)


@pytest.mark.parametrize("values", [HOSTILE, [1.0], [1.0, HOSTILE], [1.0, 2.0, 3.0], {"a": 1}, None])
def test_log_p_by_depth_of_another_form_is_left_out(values: Any) -> None:
    metrics = {"log_prob": 1.0, "log_prob_at_depth": values, "log_prob_by_depth": values}
    found = parts(cards.render_card(licensed(MixtureByDepth((1, 3, 3)), metrics=metrics), "user/deep"))
    assert found["How likely held-out kernels are"].endswith("| mixture of Gaussians beside it | not measured | |")
    assert "| **this prior** | 1 |  |" in found["How likely held-out kernels are"]


def test_what_depth_and_few_kernels_do_not_give_is_said() -> None:
    metrics = {"log_prob": 2.0, "log_prob_at_depth": 1.0}
    source = {"kernels": {"train": 179, "validation": 2, "test": 2}}
    prior = licensed(MixtureByDepth((1, 3, 3)), metrics=metrics, source=source)
    few = "- There were few kernels to fit it to, and the Gaussian beside it: 179 of 9 numbers each, at 2 depths.\n"
    said = cards.render_card(prior, "user/deep")
    assert "- Knowing the depth does not help: held-out kernels are likelier under all its mixtures" in said
    assert few in said
    prior.details["source"]["kernels"]["train"] = 180
    assert "few kernels" not in cards.render_card(prior, "user/deep")


@pytest.mark.parametrize(
    ("prior", "kind", "note"),
    [
        (Gaussian((1, 7, 7)), None, "7×7"),
        (Gaussian((1, 7, 7)), "stem", "7×7"),
        (Gaussian((3, 7, 7)), "stem", "7×7 RGB stem"),
        (Gaussian((3, 7, 7)), HOSTILE, "7×7 of 3 channels"),
        (MixtureByDepth((1, 3, 3)), "dense", "3×3, by depth"),
        (MixtureByDepth((1, 3, 3)), "depthwise", "3×3 depthwise, by depth"),
    ],
)
def test_a_table_says_what_kernels_a_prior_has(prior: Prior, kind: str | None, note: str) -> None:
    prior.details = {"source": {"kind": kind}}
    assert wording.kernels_note(prior) == note


def test_what_a_prior_has_seen_is_said_of_real_images_alone() -> None:
    assert wording.source_limits(licensed(Gaussian((1, 3, 3)))) == []
    real = load_prior("notmnist-7x7")
    assert "on notMNIST to a test accuracy of 91.5 %." in wording.source_limits(real)[0]
    real.details["source"]["synthetic"] = True
    assert wording.source_limits(real) == []


def test_channels_are_in_tags_and_text() -> None:
    prior = licensed(Gaussian((3, 5, 7)))
    assert {"kernel-5x7", "kernel-channels-3"} <= set(card_metadata(prior).tags)
    text = cards.render_card(prior, "user/stem")
    assert "A prior over 5×7 convolution kernels of 3 channels" in text
    assert "each on its own scale, its channels side by side, blue below" in text
    assert "a layer's input channels must be a multiple of that" in text


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("gaussian", "A Gaussian with a full covariance."),
        ("mixture", "Gaussian scale mixtures with full covariances"),
        ("kde", "A kernel density: 80 learned kernels"),
        ("flow", "A normalizing flow (maf) of 3 autoregressive transforms"),
        ("autoregressive", "An autoregressive density"),
        ("vae", "A variational auto-encoder with two dense layers each way"),
        ("chain", "A Markov-chain prior (Eq. 9, T = 1)"),
    ],
)
def test_a_prior_fitted_to_kernels_of_ones_own_gets_a_card(family: str, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(100, 3, 3)).astype("float32"))
    fit = ["fit", "--kernels", str(tmp_path / "mine.npy"), "--family", family, "--device", "cpu", "--smoke"]
    assert main([*fit, "--out", str(tmp_path / "out"), "--name", "my kernels"]) == 0
    folder = tmp_path / "out" / "fit" / "prior"
    assert main(["cards", str(folder), "--address", "me/mine"]) == 0
    prior, text = load_prior(folder), (folder / "README.md").read_text()
    check_card(text, prior, files_of(prior))
    found = parts(text)
    assert said in found["Family and size"]
    assert "Kernels of its maker's own, from the file mine.npy. All 100 kernels were kept." in text
    assert "| kernels to fit / validate / test | 80 / 10 / 10 |" in text
    log_prob = prior.details["metrics"]["log_prob"]
    assert f"| **this prior** | {log_prob:g} |" in found["How likely held-out kernels are"]
    assert ("a lower bound" in found["How likely held-out kernels are"]) == (family in ("vae", "chain"))
    assert "| draws |" in found["What its draws are like"]
    (result,) = ModelCard(text).data.eval_results
    assert result.metric_value == log_prob
    assert "synthetic" not in text


def test_a_prior_from_synthetic_images_says_so_at_its_top(tmp_path: Path) -> None:
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path)]) == 0
    for stage in ("scale_mixture_7x7", "h1_7x7"):
        prior = load_prior(tmp_path / stage / "prior")
        text = cards.render_card(prior, "user/smoke")
        check_card(text, prior, files_of(prior))
        top = text.split("## Use")[0]
        assert "**Made from synthetic images, to test the pipeline: of no use, not even as an initialisation.**" in top
        assert "random images of its shape in the place of notMNIST" in text
        assert "synthetic" in card_metadata(prior).tags
        assert "from synthetic images" in card_metadata(prior).eval_results[0].dataset_name


def test_an_imported_prior_gets_a_card(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    theirs = {"encoder.body.": "encoder.features.", "decoder.body.": "decoder.decoder."}
    state = KernelVAE((1, 7, 7), "paper", latent_dim=2, whiten=False).state_dict()
    for ours, name in theirs.items():
        state = {key.replace(ours, name): value for key, value in state.items() if not key.startswith("whitening.")}
    torch.save(state, tmp_path / "vae_params.torch")
    words = ["import-authors", str(tmp_path / "vae_params.torch"), "--kernel-size", "7"]
    assert main([*words, "--out", str(tmp_path / "theirs")]) == 0
    assert main(["cards", str(tmp_path / "theirs")]) == 0
    assert "the card says prior='user/theirs'; give --address" in capsys.readouterr().out
    prior, text = load_prior(tmp_path / "theirs"), (tmp_path / "theirs" / "README.md").read_text()
    check_card(text, prior, [path.name for path in (tmp_path / "theirs").iterdir()])
    data = ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "see-the-checkpoint-s-own-licence")
    assert "see the checkpoint's own licence." in parts(text)["Licence"]
    assert "Not fitted here but imported: the authors' released checkpoint." in text
    assert "on raw kernels" in text
    assert "![Where kernels lie" in text


def test_a_density_below_the_gaussian_is_said_to_be_worse() -> None:
    prior = licensed(Gaussian((1, 3, 3)), metrics={"log_prob": 1.0, "gaussian_log_prob": 2.0})
    assert "- As a density it is worse than a Gaussian.\n" in cards.render_card(prior, "user/prior")
    prior.details["metrics"]["log_prob"] = 2.0
    assert "As a density" not in cards.render_card(prior, "user/prior")


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
    prior = licensed(Gaussian((1, 3, 3)), source={"dataset": data})
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
    data = card_metadata(licensed(Gaussian((1, 3, 3)), license=license)).to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


@pytest.mark.parametrize("license", [None, "", " \n", 1])
def test_a_prior_without_a_licence_gets_no_card(license: Any, tmp_path: Path) -> None:
    prior = licensed(Gaussian((1, 3, 3)), license=license)
    for refused in (lambda: card_metadata(prior), lambda: cards.render_card(prior, "user/prior")):
        with pytest.raises(ValueError, match=r"a published prior needs a licence; .*: set details\[\"license\"\]"):
            refused()
    save_prior(prior, tmp_path)
    assert main(["cards", str(tmp_path)]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("address", ["", "a/b/c", 'x"; import os #', "user/na me", "{{ x }}", "a\n"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="a card's address is a registry name, or user/repo on the Hub; got"):
        cards.render_card(licensed(Gaussian((1, 3, 3))), address)


# Hostile details


@pytest.mark.parametrize(
    "details",
    [
        {"name": HOSTILE.replace("\n", " ")},
        {"license": HOSTILE},
        {"source": {"file": HOSTILE, HOSTILE: HOSTILE, "list": [HOSTILE]}},
        {"source": {"checkpoint": HOSTILE, "dataset": HOSTILE}},
        {"source": HOSTILE, "fit": HOSTILE, "metrics": HOSTILE},
        {"source": [], "fit": {"epochs": HOSTILE}, "metrics": {"log_prob": HOSTILE, "samples": HOSTILE}},
        {"metrics": {"log_prob": 1.5, "kind": HOSTILE, "gaussian_log_prob": HOSTILE, "kernels": HOSTILE}},
        {"metrics": {"log_prob": 10**400, "samples": {"drawn": {"rms": HOSTILE}, "real": None}}},
        {"metrics": {"samples": {"drawn": {"rms": 1, "norm_5_50_95": [HOSTILE], "frechet": 2, "roughness": HOSTILE}}}},
        {"source": {"kernels": {"train": 1, "validation": HOSTILE}, "kept": 0, HOSTILE: None}},
        {"source": {"kernels": {"train": 1, "validation": 1, "test": 1}, "kept": 1e-300, "file": ""}},
    ],
)
def test_details_cannot_break_a_card(details: dict[str, Any], tmp_path: Path) -> None:
    save_prior(licensed(Gaussian((1, 3, 3)), **details), tmp_path)
    prior = load_prior(tmp_path)
    cards.write_card(tmp_path, "user/prior")
    text = (tmp_path / "README.md").read_text()
    check_card(text, prior, FILES)
    data = ModelCard(text).data
    assert data.license == ("other" if "license" in details else "mit")
    assert list(parts(text)) == HEADINGS
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(evil|^\| [^|]*(?<!\\)\{\{", text)
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 6)


# Checking a card


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
    text = change(cards.render_card(prior, "notmnist-5x5"))
    with pytest.raises(ValueError, match=rf"README\.md cannot be published: .*{message}.*python -m training cards"):
        check_card(text, prior, FILES)


def test_everything_wrong_is_said_at_once() -> None:
    prior = licensed(Gaussian((1, 3, 3)))
    with pytest.raises(ValueError, match=r"license is.*library_name is.*dwp-prior.*kernel-3x3.*datasets.*links to 'x'"):
        check_card("---\ndatasets: 1\n---\n[x](x)", prior, FILES)


def test_links_that_lead_somewhere_pass() -> None:
    prior = load_prior("notmnist-5x5")
    text = cards.render_card(prior, "notmnist-5x5")
    text += "\n[a](https://x.org/y) [b](#use) [c](mailto:a@b.c) [d](//x.org) [e](./config.json?raw=1#top) [f](a%20b)\n"
    text += "`[g](no)` \\[h\\](no)\n```\nx[0](no)\n```\n"
    check_card(text.replace("\n", "\r\n"), prior, [*FILES, "a b"])
    check_card(text, prior, [*FILES, "a b"])


def test_yaml_survives_a_round_trip() -> None:
    prior = licensed(KernelVAE((1, 7, 7)), name="ein: Name # 'x' \"y\" — ü", metrics={"log_prob": -1e-7})
    text = cards.render_card(prior, "user/prior")
    again = ModelCard(text)
    assert again.data.to_dict() == card_metadata(prior).to_dict()
    check_card(str(again), prior, files_of(prior))


# Writing a card


@pytest.mark.parametrize("prior", [Gaussian((3, 5, 5)), Gaussian((1, 1, 1)), KernelVAE((1, 7, 7), latent_dim=2)])
def test_a_card_is_written_with_its_pictures_once(prior: Prior, tmp_path: Path) -> None:
    save_prior(licensed(prior), tmp_path)
    written = cards.write_card(tmp_path, "user/prior")
    names = ["README.md", "kernels.png", "latent.png"] if cards.has_a_plane(prior) else ["README.md", "kernels.png"]
    assert [path.name for path in written] == names
    before = {path: path.read_bytes() for path in written}
    assert all(before[path].startswith(b"\x89PNG") for path in written[1:])
    with pytest.raises(FileExistsError, match=r"holds README\.md and kernels\.png.* already; edit what is there"):
        cards.write_card(tmp_path, "user/prior")
    assert {path: path.read_bytes() for path in written} == before
    written[0].unlink()
    with pytest.raises(FileExistsError, match=r"holds kernels\.png"):
        cards.write_card(tmp_path, "user/prior")
    for path in written[1:]:
        path.unlink()
    cards.write_card(tmp_path, "user/prior")
    assert {path: path.read_bytes() for path in written} == before


def test_the_command_writes_all_pages_or_one_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cards, "pages", lambda: {tmp_path / "new" / "page.md": "text"})
    assert main(["cards"]) == 0
    assert (tmp_path / "new" / "page.md").read_text() == "text"
    assert main(["cards", "--address", "user/prior"]) == 1
    assert "name its FOLDER too" in capsys.readouterr().err
    assert main(["cards", str(tmp_path / "none")]) == 1
    prior = save_prior(licensed(Gaussian((1, 3, 3)), name="ü (1)"), tmp_path / "prior")
    assert main(["cards", str(prior)]) == 0
    assert 'prior="user/1"' in (prior / "README.md").read_text()
    assert dwp_init.load_prior(prior).family == "gaussian"
