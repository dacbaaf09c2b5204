"""What is read of untrusted details, and how text of theirs is made inert."""

from typing import Any

import pytest

from dwp_init import Gaussian, load_prior
from training.publish.details import Details, KernelSource, RecordedOrigin, TrainedNetworks, plain


def details(**values: Any) -> Details:
    prior = Gaussian((1, 3, 3))
    prior.details = values
    return Details.of(prior)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\n b\t\x00c", "a b c"),
        ("*a* _b_ `c` <d> |", r"\*a\* \_b\_ \`c\` \<d\> \|"),
        ("[l](x) ![p](x) # & ~ $ \\ {{ x }}", r"\[l\](x) !\[p\](x) \# \& \~ \$ \\ \{\{ x \}\}"),
        ("see https://x.org/a_b?c=d.", "see `https://x.org/a_b?c=d.`"),
        ("HTTP://x, www.x.org and ftp://x", "`HTTP://x`, `www.x.org` and `ftp://x`"),
        ("@user or me@x.org|@", r"`@user` or `me@x.org`\|`@`"),
        ("https://x/`<b>`", r"`https://x/`\`\<b\>\`"),
        ("user/name@0123", "`user/name@0123`"),
        (0.10, "0.1"),
        (True, "true"),
        (None, "null"),
        (["a|", {"b": 1e400}], r'\["a\|", \{"b": Infinity\}\]'),
        (300 * "x", 300 * "x"),
        (301 * "*", 299 * r"\*" + "…"),
    ],
)
def test_text_of_the_details_is_inert(value: object, expected: str) -> None:
    assert plain(value) == expected


def test_the_details_of_a_bundled_prior_are_read() -> None:
    prior = load_prior("tinyimagenet-3x3")
    found = Details.of(prior)
    assert (found.name, found.license, found.data) == ("tinyimagenet-3x3", "MIT", "tinyimagenet32-a")
    assert not found.synthetic and not found.bound and found.recorded == {}
    assert isinstance(found.source, TrainedNetworks)
    assert found.source.kernels == {"train": 10027, "validation": 5104, "test": 5050}
    assert found.source.layers[0] == "body.0.conv1" and found.source.shares == tuple(prior.details["source"]["kept"])
    assert found.source.held_out_networks is not None and found.source.held_out_networks["test"] == 1
    assert found.metrics.log_prob_at_depth == prior.details["metrics"]["log_prob_at_depth"]
    assert list(found.metrics.samples) == ["real", "drawn"]
    assert found.fit == prior.details["fit"]
    assert Details.of(load_prior("notmnist-7x7-h1")).bound


@pytest.mark.parametrize("value", ["text", [], {}, [{}], {"a": {}}, 7, -1, -0.5, True, None, 10**400, float("nan")])
def test_what_has_another_form_keeps_its_default(value: object) -> None:
    keys = ("name", "license", "source", "fit", "metrics")
    found = details(**dict.fromkeys(keys, value))
    assert found.source == KernelSource() and found.metrics == details().metrics
    found = details(source={"kept": value, "kernels": value, "held_out_networks": value, "dataset": value})
    assert found.source.total is None and found.source.shares == ()
    metrics = details(
        metrics={"log_prob": value, "log_prob_by_depth": value, "samples": value, "kernels": value}
    ).metrics
    assert metrics.log_prob == (value if type(value) in (int, float) and value in (7, -1, -0.5) else None)
    assert metrics.kernels == (7 if value == 7 else None)
    assert metrics.log_prob_by_depth == () and metrics.samples == {}


def test_the_kinds_of_sources() -> None:
    assert details(source={"file": "a|b"}).source == KernelSource(file=r"a\|b")
    found = details(source={"checkpoints": ["a", "b"], "kind": "stem", "file": "c"})
    assert (
        found.source == KernelSource(checkpoints=("a", "b"), kind="stem", file="c")
        and found.source.form == "checkpoints"
    )
    assert found.recorded == {"checkpoints": r'\["a", "b"\]', "kind": "stem", "file": "c"}
    origins = {"a|": {"license": "MIT", "attribution": "A|"}, "b": {"license": 1}, "c": None}
    found = details(source={"checkpoints": ["a|", "b"], "origins": origins})
    assert found.source.origins == {"a|": RecordedOrigin(license="MIT", attribution=r"A\|"), "b": RecordedOrigin()}
    assert "origins" not in found.recorded
    assert details(source={"kernels": {"train": 1}}).recorded == {"kernels": r'\{"train": 1\}'}
    assert details(source={"kernels": {"train": 1, "validation": 2, "test": 3}}).recorded == {}


@pytest.mark.parametrize("share", [0, 1e-300, 1.5, -0.5])
def test_shares_are_from_a_ten_thousandth_to_one(share: float) -> None:
    assert details(source={"kept": [0.5, share]}).source.shares == ()
    assert details(source={"kept": [0.5, 1]}).source.shares == (0.5, 1)
