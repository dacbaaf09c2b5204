import errno
import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from dwp_init import (
    Autoregressive,
    Flow,
    Gaussian,
    GaussianMixture,
    KernelChain,
    KernelDensity,
    KernelVAE,
    MixtureByDepth,
    PatchWhitening,
    load_prior,
    save_prior,
)
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL, read_files
from dwp_init.priors import FAMILIES
from dwp_init.storage import safetensors_bytes, sealed_json, tensor_bytes

PRIORS = {
    "gaussian": lambda: Gaussian((2, 3, 3)),
    "dense": lambda: KernelVAE((1, 3, 3), latent_dim=2, hidden=4, dropout=0.2, min_scale=0.1, whiten=False),
    "paper": lambda: KernelVAE((1, 7, 7), network="paper", latent_dim=2),
    "mixture": lambda: GaussianMixture((1, 3, 3), components=3, scales=(0.5, 1.0)),
    "by-depth": lambda: MixtureByDepth((1, 3, 3), (0.2, 1.0), (3, 2), (0.5, 1.0)),
    "kde": lambda: KernelDensity((2, 3, 3), count=100),
    "flow": lambda: Flow((1, 3, 3), transforms=2, hidden=8),
    "flow-coupling": lambda: Flow((1, 3, 3), network="nsf", transforms=2, hidden=8, coupling=True),
    "autoregressive": lambda: Autoregressive((1, 3, 3), hidden=8, mixtures=2, dropout=0.1),
    "patch-whitening": lambda: PatchWhitening((2, 3, 3)),
    "chain": lambda: KernelChain((1, 3, 3), transitions=2, latent_dim=2, hidden=8),
}
DETAILS = {"name": "tést-3x3", "source": {"networks": 8}, "metrics": {"log_prob": 1.5, "none": None}, "list": [1, "a"]}


def make(kind="dense"):
    torch.manual_seed(0)
    prior = PRIORS[kind]()
    kernels = torch.randn(100, prior.dim)
    if hasattr(prior, "fit_"):
        prior.fit_(kernels.view(-1, *prior.kernel_shape))
    elif not isinstance(prior, MixtureByDepth):  # whose mixtures start as densities
        prior.whitening.fit_(kernels)
    with torch.no_grad():
        for parameter in prior.parameters():  # away from networks that start at zero
            parameter += 0.05 * torch.randn_like(parameter)
    prior.details = dict(DETAILS)
    return prior.eval()


@pytest.fixture(params=PRIORS)
def prior(request):
    return make(request.param)


@pytest.fixture
def folder(tmp_path):
    return save_prior(make(), tmp_path / "prior")


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def change_config(folder, **changes):
    """Changes a configuration, as of format 1, which has no digest of its own."""
    config = json.loads((folder / CONFIG).read_text()) | {"format_version": 1, "config_sha256": ...} | changes
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def change_tensors(folder, **changes):
    tensors = load((folder / MODEL).read_bytes()) | {name.replace("__", "."): value for name, value in changes.items()}
    (folder / MODEL).write_bytes(
        safetensors_bytes({name: value for name, value in tensors.items() if value is not None})
    )


# There and back


def test_every_family_is_asked():
    assert {type(make()) for make in PRIORS.values()} == set(FAMILIES.values())


def test_round_trip_is_bit_for_bit(prior, tmp_path):
    folder = save_prior(prior, tmp_path / "deep" / "folder")
    state = torch.get_rng_state()
    loaded = load_prior(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(prior) and loaded.arguments() == prior.arguments() and loaded.details == DETAILS
    assert loaded.kernel_shape == prior.kernel_shape and not loaded.training and loaded.device.type == "cpu"
    assert not any(p.requires_grad for p in loaded.parameters())
    expected, found = prior.state_dict(), loaded.state_dict()
    assert list(found) == list(expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    assert all(tensor_bytes(found[name]) == tensor_bytes(expected[name]) for name in expected)
    first, second = (p.sample(20, torch.Generator().manual_seed(7)) for p in (prior, loaded))
    assert torch.equal(first, second)
    options = [{} if prior.exact else {"generator": torch.Generator().manual_seed(8)} for _ in range(2)]
    assert torch.equal(prior.log_prob(first, **options[0]), loaded.log_prob(first, **options[1]))
    assert files(save_prior(loaded, tmp_path / "again")) == files(folder)


def test_loads_whatever_the_defaults_of_torch_are(folder):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        loaded = load_prior(folder)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert loaded.device.type == "cpu" and loaded.dtype == torch.float32


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


# What cannot be saved


def test_only_priors_are_saved(tmp_path):
    with pytest.raises(TypeError, match="save_prior needs a dwp_init Prior; got Linear"):
        save_prior(nn.Linear(1, 1), tmp_path / "a")
    assert not list(tmp_path.iterdir())


class Unnamed(Gaussian):
    """A class without a family of its own."""


class Named(Gaussian):
    """A class whose family is not registered."""

    family = "named"


@pytest.mark.parametrize("kind", [Unnamed, Named])
def test_families_that_are_not_registered_are_not_saved(tmp_path, kind):
    message = f"{kind.__name__} is not a registered family, .* decorate it with @dwp_init.register"
    with pytest.raises(TypeError, match=message):
        save_prior(kind((1, 3, 3)), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def put(name, place, value):
    def do(prior):
        prior.state_dict()[name].view(-1)[place] = value

    return do


def detail(**details):
    return lambda prior: prior.details.update(details)


UNSAVABLE = [
    (lambda prior: prior.double(), "is torch.float64, expected torch.float32; call .float"),
    (detail(family="x", arguments={}), "details uses arguments, family, which are keys of the configuration"),
    *((detail(name=name), "details has the name .*, expected a string") for name in (3, None, "a\nb")),
    (lambda prior: prior.to("meta"), "is on the meta device; give it values first"),
    (
        detail(x=torch.zeros(1)),
        "details and arguments\\(\\) must be JSON, without NaN: .*Tensor is not JSON serializable; convert or drop",
    ),
    (detail(x=float("nan")), "details and arguments\\(\\) must be JSON, without NaN: "),
    (detail(x="\ud800"), "details and arguments\\(\\) must be JSON, without NaN: "),
]


@pytest.mark.parametrize(("change", "message"), UNSAVABLE)
def test_save_errors_leave_the_old_files(folder, change, message):
    old, prior = files(folder), make()
    change(prior)
    with pytest.raises(ValueError, match=message):
        save_prior(prior, folder)
    assert files(folder) == old


SPOILED = [
    ("dense", put("whitening.loc", 1, torch.nan), "whitening.loc of .* has 1 NaN or infinite values of 9; all"),
    ("dense", put("decoder.heads.weight", 1, torch.inf), "decoder.heads.weight of .* has 1 NaN or inf"),
    ("dense", put("whitening.scale", 1, 0.0), "whitening of .* is not valid: every scale must be above 0"),
    ("dense", put("whitening.scale", 1, -2.0), "every scale must be above 0; the smallest is -2"),
    ("dense", put("whitening.basis", 1, 3.0), "basisᵀ basis is up to .* from the identity; fit the prior again"),
    ("mixture", put("weight", 1, -0.5), "is not a density: weight must be 0 or more and .* is -0.5"),
    ("mixture", lambda p: p.weight[0].add_(torch.tensor([-1.0, 1.0])), "sum to 1; its minimum is -0.*, its sum 1;"),
    ("mixture", put("weight", slice(None), 0.5), "its minimum is 0.5, its sum 3;"),
    ("mixture", put("scale_tril", 81 + 1, 0.1), "scale_tril must be lower triangular; 1 numbers above"),
    ("mixture", put("scale_tril", 81, 0.0), "diagonal of scale_tril must be above 1e-12; its minimum is 0;"),
    ("mixture", put("scale_tril", 81, -0.3), "must be above 1e-12; its minimum is -0.3; fit the"),
    ("mixture", put("whitening.scale", 2, 0.0), "is not valid: every scale must be above 0; the smallest is 0; fit"),
    ("mixture", put("loc", 2, torch.nan), "loc of .* has 1 NaN or infinite values of 27; all must be finite"),
    ("kde", put("bandwidth", 0, 0.0), "is not a density: bandwidth must be above 0.0001; it is 0; fit the prior again"),
    ("kde", put("bandwidth", 0, -0.1), "is not a density: bandwidth must be above 0.0001; it is -0.1; fit"),
    ("kde", put("learned", 5, torch.inf), "learned of .* has 1 NaN or infinite values of 1800; all must be finite"),
    ("autoregressive", put("whitening.tril", 0, 0.0), "is not valid: the diagonal of tril must be above 1e-12"),
    ("autoregressive", put("whitening.tril", 3, 0.1), "is not valid: tril must be lower triangular; 1"),
    ("flow", put("whitening.basis", 1, 3.0), "is not valid: basis must be orthogonal; basisᵀ basis is up to"),
    ("chain", put("reverse_steps.1.heads.bias", 0, torch.nan), "reverse_steps.1.heads.bias of .* has 1 NaN"),
]


@pytest.mark.parametrize(("kind", "change", "message"), SPOILED)
def test_parameters_that_are_no_density_are_neither_saved_nor_loaded(tmp_path, kind, change, message):
    prior = make(kind)
    folder = save_prior(prior, tmp_path)
    old = files(folder)
    change(prior)
    with pytest.raises(ValueError, match=message):
        save_prior(prior, folder)
    assert files(folder) == old
    (folder / MODEL).write_bytes(safetensors_bytes(prior.state_dict()))
    with pytest.raises(ValueError, match=message) as error:
        load_prior(folder)
    assert str(folder / MODEL) in str(error.value)


def test_the_architecture_of_a_flow_is_fixed_by_its_arguments(tmp_path):
    folder = save_prior(make("flow"), tmp_path)
    tensors = load((folder / MODEL).read_bytes())
    order, mask = tensors["flow.transforms.1.order"], tensors["flow.transforms.0.hyper.0.mask"]
    changes = [
        ("flow.transforms.1.order", order.flip(0), r"order, which its arguments fix, has 8 other values of 9;"),
        ("flow.transforms.1.order", order.float(), r"order is torch.float32 \(9,\), expected torch.int64 \(9,\)"),
        ("flow.transforms.0.hyper.0.mask", mask.logical_not(), "its arguments fix, has 72 other values of 72"),
    ]
    for name, value, message in changes:
        (folder / MODEL).write_bytes(safetensors_bytes(tensors | {name: value}))
        with pytest.raises(ValueError, match=message):
            load_prior(folder)


# Corrupt model.safetensors


def header_length(content):
    return int.from_bytes(content[:8], "little")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[: header_length(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"#" + content[9:],
        lambda content: content.replace(b'"F32"', b'"F99"', 1),
        lambda content: content.replace(b'"shape":[', b'"shape":[9', 1),
        lambda content: b"<html>404</html>" * 20,
    ],
)
def test_corrupt_safetensors(folder, change):
    path = folder / MODEL
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"model.safetensors is not a complete safetensors file \(.*get the prior's folder"
    ):
        load_prior(folder)


def test_the_configuration_holds_the_digest_of_its_tensors(folder):
    content = (folder / MODEL).read_bytes()
    assert not {"model_sha256", "config_sha256"} & set(load_prior(folder).details)
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    (folder / MODEL).write_bytes(flipped)
    with pytest.raises(
        ValueError, match=f"does not fit config.json: its sha256 is {hashlib.sha256(flipped).hexdigest()}"
    ):
        load_prior(folder)
    change_config(folder, model_sha256=hashlib.sha256(flipped).hexdigest())
    load_prior(folder)


def test_one_flipped_bit_is_refused_in_every_byte_of_both_files(tmp_path):
    whole = read_files(save_prior(make("gaussian"), tmp_path))
    accepted = []
    for name, content in whole.items():
        for place, byte in enumerate(content):
            flipped = bytearray(content)
            flipped[place] = byte ^ 1 << place % 8
            try:
                parse_prior(whole | {name: bytes(flipped)}, "here")
            except ValueError:
                continue
            accepted.append((name, place))
    assert sum(map(len, whole.values())) > 1000 and accepted == []


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


def test_values_in_errors_are_short(folder):
    change_config(folder, family="x" * 10**5)
    with pytest.raises(ValueError, match=r"the family 'xxx+ … x+' \(100,002 characters\), but") as error:
        load_prior(folder)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whitening__loc": None}, "does not fit config.json: tensors missing: whitening.loc; unknown: none; get both"),
        ({"extra": torch.ones(1)}, "tensors missing: none; unknown: extra"),
        ({"whitening__loc": torch.ones(8)}, r"whitening.loc is torch.float32 \(8,\), expected torch.float32 \(9,\)"),
        ({"whitening__loc": torch.ones(9).double()}, r"is torch.float64 \(9,\), expected torch.float32 \(9,\)"),
        ({"whitening__loc": torch.ones(9).int()}, r"is torch.int32 \(9,\), expected torch.float32 \(9,\)"),
    ],
)
def test_tensors_that_do_not_fit(folder, changes, message):
    change_tensors(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_prior(folder)


@pytest.mark.parametrize("name", [CONFIG, MODEL])
def test_missing_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist; a prior's folder holds config.json and model"):
        load_prior(folder)
    (folder / name).mkdir()
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        load_prior(folder)


# Bad config.json


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
        (arguments(min_scale=float("nan")), "min_scale must be a number above 0 .*got nan"),
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
        ("kde", {"count": 7}, r"learned is torch.float32 \(100, 18\), expected torch.float32 \(7, 18\)"),
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


# Writing


class _Full:
    """A file on a disk that fills up half-way."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("writes_before", [0, 1])
def test_full_disk_leaves_the_old_files(folder, monkeypatch, writes_before):
    old, opened = files(folder), []

    def open_(path, mode="r", *rest):
        file = original(path, mode, *rest)
        if mode == "rb":
            return file
        opened.append(path)
        return _Full(file) if len(opened) > writes_before else file

    original = Path.open
    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(OSError, match="No space left"):
        save_prior(make("gaussian"), folder)
    monkeypatch.undo()
    assert len(opened) == writes_before + 1
    assert files(folder) == old


def test_save_replaces_a_prior_and_keeps_other_files(folder):
    (folder / "README.md").write_text("card")
    save_prior(make("gaussian"), folder)
    assert type(load_prior(folder)) is Gaussian
    assert sorted(files(folder)) == ["README.md", CONFIG, MODEL]


def test_a_link_is_replaced_and_its_target_stays(folder, tmp_path):
    target = tmp_path / "blob"
    shutil.move(folder / CONFIG, target)
    (folder / CONFIG).symlink_to(target)
    old = target.read_bytes()
    save_prior(make("gaussian"), folder)
    assert target.read_bytes() == old and not (folder / CONFIG).is_symlink()


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        save_prior(make(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
