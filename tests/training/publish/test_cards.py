"""The card of any prior: what it says of the details, and that the details cannot break it."""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dwp_init
from dwp_init import Gaussian, KernelVAE, MixtureByDepth, Prior, load_prior, save_prior
from tests.toy_family import Spherical
from tests.training.publish.example_priors import FILES, NETWORKS, card_data, licensed, parts
from training.__main__ import main
from training.fits.base import FITS, Fit
from training.publish.cards import has_a_plane, render_card, write_card
from training.publish.check import card_metadata, check_card

HEADINGS = [
    "Use",
    "Source of the kernels",
    "Family and size",
    "Density of held-out kernels",
    "Effect on training",
    "Statistics of its draws",
    "Limitations",
    "Cost of drawing",
    "Citation",
    "Licence",
]
DENSITY = "Density of held-out kernels"
HOSTILE = (
    "a\n---\nlicense: other\n{{ 1/0 }} {% raise %} | x | <script>alert(1)</script> [l](evil.png) ![p](p.png) `$$` @me "
    'https://evil.org www.evil.org me@evil.org "\\'
)


def files_of(prior: Prior) -> list[str]:
    return [*FILES, "latent.png"] if has_a_plane(prior) else [*FILES]


def rendered(prior: Prior) -> str:
    """The card of a prior of a user's own, which must be fit to be published."""
    text = render_card(prior, "user/prior")
    check_card(text, prior, files_of(prior))
    assert list(parts(text)) == HEADINGS
    return text


# What is measured here


def test_tables_of_record_are_only_for_the_bundled_prior_under_its_own_name() -> None:
    name = "notmnist-5x5"
    assert "1-NN recalls" in render_card(load_prior(name), name)
    changed = load_prior(name)
    next(changed.buffers()).mul_(2)
    for prior, address in ((load_prior(name), "user/prior"), (load_prior(name), "notmnist-7x7"), (changed, name)):
        text = render_card(prior, address)
        assert "1-NN recalls" not in text
        assert f'prior="{address}"' in text
        assert "| Gaussian with a full covariance | 43.588 | |" in text
        assert parts(text)["Effect on training"].startswith("Not measured")
        check_card(text, prior, FILES)


def test_a_card_says_where_the_effect_of_its_set_is_measured() -> None:
    prior = load_prior("tinyimagenet-dw7x7")
    effect = parts(render_card(prior, "tinyimagenet-dw7x7"))["Effect on training"]
    assert '`prior="natural-v1"`' in effect and "`model_cards/benchmark.md`" in effect
    assert parts(rendered(prior))["Effect on training"].startswith("Not measured")


# What the details say


def test_a_prior_of_which_nothing_is_known_has_every_section() -> None:
    text = rendered(licensed())
    assert "# user/prior\n" in text
    found = parts(text)
    assert found["Source of the kernels"] == "The source of the kernels is not recorded."
    assert found["Family and size"] == "A Gaussian with a full covariance. 99 numbers; its tensors take 0.000396 MB."
    for heading in [*HEADINGS[3:6], "Cost of drawing"]:
        assert found[heading].startswith("Not measured: ")
        assert len(found[heading].splitlines()) == 1
    data = card_data(text).to_dict()
    assert data.keys() == {"library_name", "license", "tags"}


PAPER = "24 of the paper's Appendix H.2, with {} filters (256 and 512 there)"
QUARTER = "of norm ≥ 0.25 times the 95 % quantile of the fitting networks"
COUNTS = {"kernels": {"train": 4, "validation": 2, "test": 2}, "norm_threshold": 0.125}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"filters": [32, 64]}, f"| networks | {PAPER.format('32 and 64')} |"),
        ({"filters": [4, 8], "network": "mnist"}, f"| networks | {PAPER.format('4 and 8')} |"),
        ({"filters": [128], "network": "convmixer"}, "| networks | 24 of kind convmixer, 128 filters |"),
        ({"filters": [16, 32, 64], "network": "resnet"}, "| networks | 24 of kind resnet, 16/32/64 filters |"),
        ({"filters": ["|"], "network": "<b>|"}, r"| networks | 24 of kind \<b\>\|, \| filters |"),
        ({"network": None}, "| networks | 24 of kind null, 1/2 filters |"),
        ({}, "| their training | 1 epoch, batches of 2, Adam 0.1, linear decay, l2 0.2, float32 |"),
        ({"layer": ["a"], "networks": 1, "images": 1}, "1 layer of 1 small network, trained on notMNIST (1 image)."),
        ({"epochs": 2000}, "| their training | 2,000 epochs, batches of 2, "),
        ({"init_scale": 1.0}, "l2 0.2, float32 |"),
        ({"init_scale": 0.1}, "float32, spatial kernels from 0.1 of their usual initial scale |"),
        ({"layer": ["a", "b"]}, "| layers | a, b |"),
        ({"layer": ["a", "b"]}, "The kernels of 2 layers of 24 small networks, trained on notMNIST (5 images)."),
        ({"layer": "a"}, "The kernels of one layer of 24 small networks, trained on notMNIST (5 images)."),
        ({"dataset": "a_b"}, r"trained on a\_b (5 images)."),
        ({"made_with": {"torch": "2_0", "processor": "x"}}, r"| made with | PyTorch 2\_0, x |"),
        ({**COUNTS, "kept": [1.0, 1.0]}, "All 8 kernels were kept."),
        ({**COUNTS, "kept": [1.0, 1.0]}, "| kernels kept | 100.0 % of each layer's |"),
        ({**COUNTS, "kept": 1.0}, "| kernels kept | 100.0 %, of norm ≥ 0.125 |"),
        ({**COUNTS, "kept": 0.5}, "8 of about 16 kernels were kept; smaller ones"),
        (
            {**COUNTS, "kept": 0.5, "min_norm": 0.25},
            f"| 50.0 %, of norm ≥ 0.125, {QUARTER.removeprefix('of norm ≥ ')} |",
        ),
        (
            {**COUNTS, "kept": [0.5, 1], "min_norm": 0.25},
            f"| kernels kept | 50.0 to 100.0 % of each layer's, {QUARTER} |",
        ),
        (
            {**COUNTS, "kept": [0.5, 1]},
            "8 kernels were kept, 50.0 to 100.0 % of each layer's; smaller ones were left out.",
        ),
        ({**COUNTS, "held_out_networks": {}}, "| kernels to fit / validate / test | 4 / 2 / 2, split by network |"),
    ],
)
def test_the_source_of_the_kernels_is_said(settings: dict[str, Any], said: str) -> None:
    assert said in rendered(licensed(source=NETWORKS | settings))


@pytest.mark.parametrize("kept", [[0.5, "1"], [], None, 2])
def test_a_share_that_is_not_known_is_left_out(kept: Any) -> None:
    text = rendered(licensed(source=NETWORKS | COUNTS | {"kept": kept}))
    assert "were kept" not in text and "kernels kept" not in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"checkpoint": "a|b"}, r"Not fitted here, but imported: a\|b."),
        ({"checkpoints": ["a", "b|"], "kind": "stem"}, r"The stem kernels of 2 trained networks: a, b\|."),
        (
            {"checkpoints": list(map(str, range(11)))},
            "The convolution kernels of 11 trained networks: 0, 1, 2, 3, 4, 5,",
        ),
        ({"checkpoints": list(map(str, range(11)))}, " 8, 9, …."),
        ({"checkpoints": []}, "The source of the kernels is not recorded."),
        ({"dataset": "mine", "fitted_images": 22, "kind": "stem"}, "pixels of 22 images of"),
        ({"file": "mine"}, "The maker's own kernels, from the file mine."),
        ({"file": "x", "kernels": COUNTS["kernels"], "kept": 1}, "from the file x. All 8 kernels were kept."),
    ],
)
def test_other_sources_are_said(source: dict[str, Any], said: str) -> None:
    assert said in rendered(licensed(source=source))


def test_licences_of_the_sources() -> None:
    origins = {"a|b": {"license": "MIT", "attribution": "A. Author", "trained_on": "ImageNet", "accuracy": "75 %"}}
    source = {"checkpoints": ["a|b", "c"], "origins": origins | {"c": {}}}
    said = parts(rendered(licensed(source=source)))["Licence"]
    rows = [r"| a\|b | MIT | A. Author | ImageNet | 75 % |", "| c | not stated |  |  |  |"]
    assert said.startswith("MIT.\n\nWhat was fitted or held out has licences of its own:\n\n|")
    assert said.splitlines()[-2:] == rows


def test_families_that_were_held_out_are_named() -> None:
    source = {"checkpoints": ["a", "b"], "held_out_families": {"test": ["b|", "c"], "x|y": ["d"]}}
    found = parts(rendered(licensed(source=source, metrics={"log_prob": 2.5, "kernels": 2})))
    assert found[DENSITY].startswith(r"Mean log p of 2 kernels of b\|, c, held out completely, in nats per kernel;")
    rows = [r"| held out for the test, completely | b\|, c |", r"| held out for the x\|y, completely | d |"]
    assert found["Source of the kernels"].splitlines()[-2:] == rows


def by_depth() -> Prior:
    """A prior by depth whose layers and kept shares are lists."""
    source = NETWORKS | {"dataset": "tinyimagenet32-a", "network": "convmixer", "filters": [8], "layer": ["a", "b"]}
    source |= {"kept": [1.0, 0.5], "kernels": {"train": 400, "validation": 2, "test": 2}, "kind": "depthwise"}
    source |= {"held_out_networks": {"validation": 1, "test": 1}, "min_norm": 0.25, "networks": 3}
    fit = {"components": [2], "shrinkages": [3.0], "restarts": 2, "most": 20}
    metrics = {"log_prob": 2.5, "kernels": 2, "kind": "exact", "gaussian_log_prob": 2.0}
    metrics |= {"log_prob_at_depth": 3.0, "gaussian_log_prob_at_depth": 3.25, "log_prob_by_depth": [-1.5, 7.5]}
    return licensed(MixtureByDepth((1, 3, 3), (0.25, 1.0), (2, 3)), source=source, fit=fit, metrics=metrics)


def test_a_prior_by_depth_says_so() -> None:
    text = rendered(by_depth())
    found = parts(text)
    assert found["Family and size"].startswith(
        "Gaussian scale mixtures by relative depth (0.25, 1), 5 components in all; each layer takes that of the depth"
    )
    assert "A prior over 3×3 depthwise convolution kernels, for" in text
    assert "| fit | at each depth expectation-maximisation with 2 components and a shrinkage of 3 kernels, the" in text
    assert found[DENSITY].splitlines() == [
        "Mean log p of 2 kernels of 1 network that was held out completely, in nats per kernel; this prior's is exact:",
        "",
        "| density | log p | over the Gaussian |",
        "|---|---|---|",
        "| **this prior**, depth unknown | 2.5 | +0.500 |",
        "| Gaussian with a full covariance | 2 | |",
        "| **this prior**, depth known | 3 | -0.250 |",
        "| Gaussian for each depth | 3.25 | |",
        "| mixture of Gaussians | not measured | |",
        "",
        "By relative depth, where 0 is the first layer: -1.5 at 0.25, 7.5 at 1.",
    ]
    limits = found["Limitations"]
    assert "from one kind of network and one data set: 3 of kind convmixer, 8 filters, trained on" in limits
    assert "to a test accuracy of 50.0 %." in limits
    assert "- Its kernels come from depthwise layers, and `apply_` gives it to such layers alone" in limits
    assert "fitted to few kernels" not in limits and "Knowing the depth does not help" not in limits


@pytest.mark.parametrize("values", [HOSTILE, [1.0], [1.0, HOSTILE], [1.0, 2.0, 3.0], {"a": 1}, None])
def test_log_p_by_depth_of_another_form_is_left_out(values: Any) -> None:
    metrics = {"log_prob": 1.0, "log_prob_at_depth": values, "log_prob_by_depth": values}
    found = parts(rendered(licensed(MixtureByDepth((1, 3, 3)), metrics=metrics)))
    assert found[DENSITY].endswith("| mixture of Gaussians | not measured | |")
    assert "| **this prior** | 1 |  |" in found[DENSITY]


def test_what_depth_and_few_kernels_do_not_give_is_said() -> None:
    metrics = {"log_prob": 2.0, "log_prob_at_depth": 1.0}
    prior = licensed(MixtureByDepth((1, 3, 3)), metrics=metrics, source={"kernels": {"train": 179}})
    said = rendered(prior)
    assert "- Knowing the depth does not help: held-out kernels are more likely under the average of all" in said
    assert "- It was fitted to few kernels, and so was the Gaussian: 179 of 9 values each, at 2 depths.\n" in said
    prior.details["source"]["kernels"]["train"] = 180
    assert "fitted to few kernels" not in rendered(prior)


def test_a_density_below_the_gaussian_is_said_to_be_worse() -> None:
    prior = licensed(metrics={"log_prob": 1.0, "gaussian_log_prob": 2.0})
    assert "- As a density it is worse than a Gaussian.\n" in rendered(prior)
    prior.details["metrics"]["log_prob"] = 2.0
    assert "As a density" not in rendered(prior)


def test_how_near_draws_are_to_the_kernels_of_the_fit() -> None:
    prior = load_prior("notmnist-7x7-vae")
    found = parts(rendered(prior))["Statistics of its draws"]
    real, drawn, mean = (prior.details["metrics"]["samples"][row]["fidelity"] for row in ("real", "drawn", "mean"))
    rows = f"| held-out kernels | {real} |\n| draws | {drawn} |\n| draws without noise | {mean} |\n"
    assert found.endswith(f"{rows}\nThat of white noise and of midpoints was not recorded when this prior was fitted.")
    prior.details["metrics"]["samples"]["real"] |= {"fidelity_noise": 2.5, "fidelity_interpolated": 0.75}
    found = parts(rendered(prior))["Statistics of its draws"]
    rows += "| midpoints of pairs of these kernels, at their rms | 0.75 |\n| white noise of their rms | 2.5 |"
    assert found.endswith(rows)


@pytest.mark.parametrize(("change", "said"), [({}, True), ({"synthetic": True}, False), ({"lr": "fast"}, False)])
def test_what_a_prior_has_seen_is_said_of_real_images_alone(change: dict[str, Any], said: bool) -> None:
    prior = load_prior("notmnist-7x7")
    prior.details["source"] |= change
    assert ("on notMNIST to a test accuracy of 91.5 %." in rendered(prior)) == said


def test_channels_are_in_the_text() -> None:
    text = rendered(licensed(Gaussian((3, 5, 7))))
    assert "A prior over 5×7 convolution kernels of 3 channels" in text
    assert "each scaled separately, its channels side by side, blue below" in text
    assert "the number of a layer's input channels must be a multiple of that" in text


@pytest.mark.parametrize("address", ["", "a/b/c", 'x"; import os #', "user/na me", "{{ x }}", "a\n"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="a card's address is a registry name, or user/repo on the Hub; got"):
        render_card(licensed(), address)


# Priors of every family and origin


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
    assert "The maker's own kernels, from the file mine.npy. All 100 kernels were kept." in text
    assert "| kernels to fit / validate / test | 80 / 10 / 10 |" in text
    assert re.search(r"^\| fit \| [a-zA-Z0-9]", text, re.MULTILINE), "no {…} of settings"
    log_prob = prior.details["metrics"]["log_prob"]
    assert f"| **this prior** | {log_prob:g} |" in found[DENSITY]
    assert ("a lower bound" in found[DENSITY]) == (family in ("vae", "chain"))
    assert "| draws |" in found["Statistics of its draws"]
    (result,) = card_data(text).eval_results
    assert result.metric_value == log_prob
    assert "synthetic" not in text


class FitSpherical(Fit):
    """The fit of a toy family."""

    @classmethod
    def describe(cls, settings: Mapping[str, Any]) -> str:
        return f"in {settings['steps']} *steps*"


def test_a_family_that_is_not_known_here_gets_a_true_card(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = licensed(Spherical((1, 3, 3)), fit={"steps": 3})
    text = rendered(prior)
    assert parts(text)["Family and size"].startswith("A toy: a normal distribution without covariances. 1 number;")
    assert r'| fit | \{"steps": 3\} |' in text
    assert "full covariance" not in text
    assert "family-spherical" in card_metadata(prior).to_dict()["tags"]
    monkeypatch.setitem(FITS, "spherical", FitSpherical)
    assert r"| fit | in 3 \*steps\* |" in rendered(prior)


def test_a_prior_from_synthetic_images_says_so_at_its_top(tmp_path: Path) -> None:
    assert main(["run", "prior_notmnist_7x7", "--smoke", "--out", str(tmp_path)]) == 0
    for stage in ("scale_mixture_7x7", "h1_7x7"):
        prior = load_prior(tmp_path / stage / "prior")
        text = rendered(prior)
        top = text.split("## Use")[0]
        assert (
            "**Made from synthetic images to test the pipeline. Not useful as a prior or as an initialisation.**" in top
        )
        assert "random images in place of notMNIST" in text
        assert "synthetic" in card_metadata(prior).to_dict()["tags"]
        assert card_data(text).eval_results[0].dataset_name.endswith(", from synthetic images")


def test_an_imported_prior_gets_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    data = card_data(text)
    assert (data.license, data.license_name) == ("other", "see-the-checkpoint-s-own-licence")
    assert "see the checkpoint's own licence." in parts(text)["Licence"]
    assert "Not fitted here, but imported: the authors' released checkpoint." in text
    assert "on raw kernels" in text
    assert "![Kernels in the two latent dimensions" in text


# Hostile details


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a JSON object, and of its first values in lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def is_inert(text: str) -> None:
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(evil|^\| [^|]*(?<!\\)\{\{", text)
    assert not re.search(r"evil\.org|@me", re.sub(r"`[^`\n]*`", "", text)), "a live link or mention"
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 6, 7)


@pytest.mark.parametrize(
    "value",
    [HOSTILE, [HOSTILE, 1], {HOSTILE: [HOSTILE]}, None, True, -1, 10**400, []],
    ids=["text", "list", "object", "null", "true", "negative", "huge", "empty"],
)
def test_no_value_of_the_details_can_break_a_card(value: Any) -> None:
    """Each value of complete details is replaced in turn."""
    found = by_depth()
    drawn = {"rms": 1, "norm_5_50_95": [1, 2, 3], "frechet": 2, "roughness": 3}
    found.details |= {"name": "name"}
    found.details["fit"] |= {"reaches": [0, 1], "scales": [1.0]}
    found.details["metrics"] |= {"samples": {"drawn": drawn, "real": drawn}}
    found.details["source"] |= {"made_with": {"torch": "2", "processor": "x"}, "norm_threshold": 1.0, "init_scale": 0.1}
    whole = found.details
    for *path, key in places(whole):
        found.details = copy.deepcopy(whole)
        place = found.details
        for step in path:
            place = place[step]
        place[key] = value
        if isinstance(found.details["license"], str):
            is_inert(rendered(found).split("---\n", 2)[2])


@pytest.mark.parametrize(
    "details",
    [
        {"name": HOSTILE.replace("\n", " "), "license": HOSTILE},
        {"source": {"file": HOSTILE, HOSTILE: HOSTILE, "list": [HOSTILE]}},
        {"source": {"checkpoint": HOSTILE, "dataset": HOSTILE}},
        {"source": {"checkpoints": [HOSTILE, {HOSTILE: HOSTILE}], "kind": HOSTILE}},
        {"source": {"kernels": {"train": 1, "validation": HOSTILE}, "kept": 0, HOSTILE: None}},
        {"source": {"kernels": {"train": 1, "validation": 1, "test": 1}, "kept": 1e-300, "file": ""}},
    ],
)
def test_a_hostile_prior_is_saved_loaded_and_gets_a_card(details: dict[str, Any], tmp_path: Path) -> None:
    save_prior(licensed(**details), tmp_path)
    prior = load_prior(tmp_path)
    write_card(tmp_path, "user/prior")
    text = (tmp_path / "README.md").read_text()
    check_card(text, prior, FILES)
    assert card_data(text).license == ("other" if "license" in details else "mit")
    assert list(parts(text)) == HEADINGS
    is_inert(text.split("---\n", 2)[2])


# Writing a card


@pytest.mark.parametrize("prior", [Gaussian((3, 5, 5)), Gaussian((1, 1, 1)), KernelVAE((1, 7, 7), latent_dim=2)])
def test_a_card_is_written_with_its_pictures_once(prior: Prior, tmp_path: Path) -> None:
    save_prior(licensed(prior), tmp_path)
    written = write_card(tmp_path, "user/prior")
    names = ["README.md", "kernels.png", "latent.png"] if has_a_plane(prior) else ["README.md", "kernels.png"]
    assert [path.name for path in written] == names
    before = {path: path.read_bytes() for path in written}
    assert all(before[path].startswith(b"\x89PNG") for path in written[1:])
    with pytest.raises(FileExistsError, match=r"holds README\.md and kernels\.png.* already; edit these files"):
        write_card(tmp_path, "user/prior")
    assert {path: path.read_bytes() for path in written} == before
    written[0].unlink()
    with pytest.raises(FileExistsError, match=r"holds kernels\.png"):
        write_card(tmp_path, "user/prior")
    for path in written[1:]:
        path.unlink()
    write_card(tmp_path, "user/prior")
    assert {path: path.read_bytes() for path in written} == before


def test_the_command_writes_one_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cards", "--address", "user/prior"]) == 1
    assert "name its FOLDER too" in capsys.readouterr().err
    assert main(["cards", str(tmp_path / "none")]) == 1
    prior = save_prior(licensed(name="ü (1)"), tmp_path / "prior")
    assert main(["cards", str(prior)]) == 0
    assert 'prior="user/1"' in (prior / "README.md").read_text()
    assert dwp_init.load_prior(prior).family == "gaussian"
