"""The configuration of a prior: what it states, and how what is damaged, edited or wrong is refused."""

import hashlib
import json
import time

import pytest

from dwp_init import KernelVAE, load_prior, save_prior
from dwp_init.folder import CONFIG, MODEL
from dwp_init.storage import sealed_json
from tests.saved import DETAILS, change_config, make


@pytest.fixture
def folder(tmp_path):
    return save_prior(make(), tmp_path / "prior")


def test_config_keys(folder):
    content = (folder / CONFIG).read_bytes()
    config = json.loads(content)
    zeros = content.replace(config["config_sha256"].encode(), b"0" * 64)
    assert config == {
        "config_sha256": hashlib.sha256(zeros).hexdigest(),
        "library_name": "dwp_init",
        "format_version": 2,
        "family": "vae",
        "kernel_shape": [1, 3, 3],
        "arguments": make().arguments(),
        "model_sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
        **DETAILS,
    }


@pytest.mark.parametrize("missing", ["dropout", "whiten", "hidden"])
def test_arguments_with_a_default_may_be_missing(tmp_path, missing):
    prior = KernelVAE((1, 3, 3), latent_dim=2)
    folder = save_prior(prior, tmp_path)
    arguments = prior.arguments()
    del arguments[missing]
    change_config(folder, arguments=arguments)
    assert load_prior(folder).arguments() == prior.arguments()


def test_an_edited_configuration_is_refused_and_says_how_to_keep_the_edit(folder):
    config = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps(config | {"name": "mine"}))
    message = "config.json differs from what was saved, by its config_sha256; .* set format_version to 1, remove c"
    with pytest.raises(ValueError, match=message):
        load_prior(folder)
    change_config(folder, name="mine")
    assert load_prior(save_prior(load_prior(folder), folder)).details["name"] == "mine"


def test_format_2_states_both_digests(folder):
    config = json.loads((folder / CONFIG).read_bytes())
    for key in ("config_sha256", "model_sha256"):
        left = {name: value for name, value in config.items() if name not in (key, "config_sha256")}
        sealed = json.dumps(left).encode() if key == "config_sha256" else sealed_json(left, "config_sha256")
        (folder / CONFIG).write_bytes(sealed)
        with pytest.raises(ValueError, match="differs from what was saved"):
            load_prior(folder)


def test_a_key_that_stands_twice_is_refused(folder):
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace('"family"', '"family": "flow", "family"'))
    with pytest.raises(ValueError, match="is not JSON \\(it has the key 'family' twice\\)"):
        load_prior(folder)


def test_text_that_is_no_unicode_is_refused(folder):
    change_config(folder, note="\ud800")
    with pytest.raises(
        ValueError, match=r"config.json is not JSON \('utf-8' codec can't encode .*surrogates not allow"
    ):
        load_prior(folder)


def test_a_number_beyond_those_of_floats_is_refused(folder):
    change_config(folder, note="large")
    (folder / CONFIG).write_text((folder / CONFIG).read_text().replace('"large"', "1e999"))
    with pytest.raises(ValueError, match=r"config.json is not JSON \(it has the number 1e999, which is not finite\)"):
        load_prior(folder)


def test_values_in_errors_are_short(folder):
    change_config(folder, family="x" * 10**5)
    with pytest.raises(ValueError, match=r"the family 'xxx+ … x+' \(100,002 characters\), but") as error:
        load_prior(folder)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\xfa", b"[" * 100_000, b'{"a": 1' + b"0" * 9999 + b"}}", b"{'a': 1}"]
)
def test_config_is_not_json(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json is not JSON \(.*\); get the prior's folder again"):
        load_prior(folder)


@pytest.mark.parametrize(("content", "kind"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"x"', "str")])
def test_config_is_no_object(folder, content, kind):
    (folder / CONFIG).write_text(content)
    with pytest.raises(ValueError, match=f"config.json holds a {kind}, expected an object with format_version, family"):
        load_prior(folder)


@pytest.mark.parametrize("key", ["format_version", "family", "kernel_shape", "arguments"])
def test_config_lacks_a_key(folder, key):
    change_config(folder, **{key: ...})
    with pytest.raises(
        ValueError, match=f"config.json lacks {key}; a prior's config has format_version, family, kernel"
    ):
        load_prior(folder)


def arguments(**changes):
    return {"arguments": make().arguments() | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, "format_version 3, this dwp_init reads up to 2; upgrade dwp_init"),
        *(({"format_version": v}, "expected a whole number from 1 to 2") for v in (0, -1, 1.0, True, "1", None)),
        *(({"family": v}, "names the family .*, but this dwp_init knows autoregressive, .* vae; upgrade dwp_init, or")
          for v in ("Flow", None, [], 1)),
        ({"arguments": []}, r"arguments must be an object and kernel_shape a list; got \[\] and"),
        *(({"kernel_shape": v}, "arguments must be an object and kernel_shape a list") for v in ("133", None, 3)),
        *(({"kernel_shape": v}, r"does not describe a vae prior: kernel_shape must be \(channels, \*size\) with 1 to 3")
          for v in ([1], [1, 3, 3, 3, 3], [1, 3.0, 3], [True, 3, 3], [1, -3, -3], [1, 0, 3], ["1", 3, 3], [[1], 3, 3])),
        ({"kernel_shape": [1, 10**12, 10**12]}, "kernel_shape must hold at most 1048576 numbers"),
        ({"kernel_shape": [1, 5, 5]}, r"model.safetensors does not fit config.json: whitening.loc is .*expected"),
        *(({"name": v}, "has the name .*, expected a string of printable characters") for v in (3, None, "a\x1b[2J")),
        (arguments(color="red"), "does not describe a vae prior: .*unexpected keyword argument 'color'"),
        (arguments(kernel_shape=[1, 3, 3]), "does not describe a vae prior: .*multiple values for argument"),
        (arguments(latent_dim="2"), "does not describe a vae prior: latent_dim must be a whole number .*got '2'"),
        (arguments(min_scale="x"), "does not describe a vae prior: min_scale must be a number above 0 .*got 'x'"),
        (arguments(min_scale=float("nan")), r"config.json is not JSON \(it has the number NaN, which is not finite\)"),
        ({"details": {"a": [float("-inf")]}}, r"is not JSON \(it has the number -Infinity, which is not finite\)"),
        (arguments(hidden=10**12), "hidden must be a whole number from 1 to 1048576; got 1000000000000"),
        (arguments(latent_dim=10**30), "latent_dim must be a whole number from 1 to 1048576"),
        (arguments(hidden=2**20), "not describe a vae prior: it needs more numbers than the [0-9,]+ bytes of its"),
        (arguments(network="paper", hidden=None, dropout=0.0), "not describe a vae prior: the paper has networks for"),
    ],
)  # fmt: skip
def test_bad_config_fails_fast_and_without_memory(folder, changes, message):
    change_config(folder, **changes)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as error:  # 2**20 hidden units would take 16 TB
        load_prior(folder)
    assert time.perf_counter() - start < 2
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("kde", {"count": 7}, r"learned is torch.float32 \(200, 9\), expected torch.float32 \(7, 9\)"),
        ("kde", {"count": "7"}, "not describe a kde prior: count must be a whole number from 1 to 1048576; got '7'"),
        ("mixture", {"components": 2}, r"is torch.float32 \(3, .*\), expected torch.float32 \(2, .*\); get both files"),
        ("mixture", {"scales": [1.0]}, r"weight is torch.float32 \(3, 2\), expected torch.float32 \(3, 1\)"),
        ("mixture", {"scales": [0.5, -1]}, "not describe a mixture prior: scales must be a number above 0 .*; got -1"),
        ("mixture", {"scales": {}}, "scales must be one or more positive numbers; got {}"),
        ("flow", {"network": "glow"}, "describe a flow prior: network must be one of 'maf', 'nsf'; got 'glow'"),
        ("flow", {"transforms": 3}, "tensors missing: flow.transforms.2.*; unknown: none; get both"),
        ("flow", {"transforms": 2**20}, "transforms must be a whole number from 1 to 100; got 1048576"),
        ("flow", {"hidden": 2**20}, "transforms=2 and hidden=1048576 over kernels of 9 numbers has up to .* weights"),
        ("autoregressive", {"mixtures": 0}, "mixtures must be a whole number from 1 to 1048576; got 0"),
        ("autoregressive", {"hidden": 2**20}, "it needs more numbers than the [0-9,]+ bytes of its tensors can hold"),
        ("chain", {"transitions": 1}, "tensors missing: none; unknown: forward_steps.1.*, … [0-9]+ more; get both"),
        ("chain", {"transitions": 1001}, "transitions must be a whole number from 0 to 1000; got 1001"),
    ],
)
def test_arguments_that_do_not_fit_the_tensors(tmp_path, kind, arguments, message):
    prior = make(kind)
    folder = save_prior(prior, tmp_path)
    change_config(folder, arguments=prior.arguments() | arguments)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        load_prior(folder)
    assert time.perf_counter() - start < 2


def test_arguments_of_another_family(tmp_path):
    folder = save_prior(make("gaussian"), tmp_path)
    change_config(folder, arguments={"hidden": 4})
    with pytest.raises(ValueError, match=r"does not describe a gaussian prior: .*unexpected keyword argument 'hidden'"):
        load_prior(folder)
