import errno
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from dwp_init import (
    Gaussian,
    load_prior,
    save_prior,
)
from dwp_init.files import parse_prior
from dwp_init.folder import CONFIG, MODEL, read_files
from dwp_init.storage import safetensors_bytes, tensor_bytes
from tests.priors.families import PRIORS
from tests.saved import DETAILS, change_config, change_tensors, files, make


@pytest.fixture(params=PRIORS)
def prior(request):
    return make(request.param)


@pytest.fixture
def folder(tmp_path):
    return save_prior(make(), tmp_path / "prior")


# There and back


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
