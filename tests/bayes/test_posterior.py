import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dwp_init
from dwp_init.bayes import (
    BayesConv2d,
    RelativeBayesConv2d,
    bayesian_layers,
    bayesianize_,
    load_posterior,
    posterior_mean_,
    predict_samples,
    save_posterior,
)
from dwp_init.storage import sealed_safetensors
from tests.bayes.small import KINDS


def network(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, groups=width),
        nn.Conv2d(width, 3, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = network()
    bayesianize_(model, ["0", "2"], scale=0.2)
    return save_posterior(model, tmp_path / "new" / "posterior.safetensors")


@pytest.mark.parametrize("already", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_round_trip_bit_for_bit(dtype: torch.dtype, kind: type[BayesConv2d], already: bool, tmp_path: Path) -> None:
    model = network().to(dtype)
    bayesianize_(model, ["0", "2"], kind=kind)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.1)
    path = save_posterior(model, tmp_path / "posterior.safetensors")
    other = network(seed=5).to(dtype)
    if already:
        bayesianize_(other, ["0", "2"], kind=kind)
    parameters = {id(value) for value in other.parameters()}
    assert load_posterior(other, path) is other and parameters <= {id(value) for value in other.parameters()}
    assert type(other[2]) is kind and type(other[3]) is nn.Conv2d
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    pictures = torch.rand(3, 1, 8, 8, dtype=dtype)
    first, second = (predict_samples(each, pictures, 2, torch.Generator().manual_seed(0)) for each in (model, other))
    assert torch.equal(first, second)


def test_both_kinds_in_one_network(tmp_path: Path) -> None:
    model = network()
    bayesianize_(model, "0")
    bayesianize_(model, "2", kind=RelativeBayesConv2d)
    loaded = load_posterior(network(1), save_posterior(model, tmp_path / "a.safetensors"))
    assert [type(layer) for layer in (loaded[0], loaded[2])] == [BayesConv2d, RelativeBayesConv2d]


def test_a_file_that_was_changed_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="differs from what was saved, by its file_sha256; get it again"):
        load_posterior(network(), saved)
    saved.write_bytes(bytes(content[:-9]))
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_posterior(network(), saved)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            network(width=5),
            r"of another model: 0\.weight is torch.float32 \(4, 1, 3, 3\), here torch.float32 \(5,",
        ),
        (network().double(), r"0\.weight is torch.float32 \(4, 1, 3, 3\), here torch.float64 \(4, 1, 3, 3\)"),
        (
            nn.Sequential(nn.BatchNorm2d(1), *network()[1:]),
            "has a Bayesian layer '0', but the model has a BatchNorm2d there; build the saved model",
        ),
        (network()[:2], "has a Bayesian layer '2', but the model has no such layer"),
        (network()[:3], r"lacks nothing, and has 3\.bias, 3\.weight that the model has not"),
        (nn.Sequential(*network(), nn.Linear(3, 3)), r"it lacks 6\.bias, 6\.weight"),
    ],
)
def test_another_model_is_refused_and_stays(model: nn.Module, message: str, saved: Path) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        load_posterior(model, saved)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(value, before[name]) for name, value in after.items())


def test_other_layers_are_refused(saved: Path) -> None:
    model = network()
    bayesianize_(model, kind=RelativeBayesConv2d)
    with pytest.raises(ValueError, match="has a BayesConv2d '0', but the model's is a RelativeBayesConv2d"):
        load_posterior(model, saved)
    model = network()
    bayesianize_(model)
    with pytest.raises(ValueError, match="has no posterior for 3, which the model has; leave it out of bayesianize_"):
        load_posterior(model, saved)


def test_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(saved), plain)
    with pytest.raises(ValueError, match=r"is no posterior: its metadata lack 'dwp_init\.posterior'"):
        load_posterior(network(), plain)
    save_file(load_file(saved), plain, {"dwp_init.posterior": "2"})
    with pytest.raises(ValueError, match="has format '2', and this dwp_init reads 1; upgrade it"):
        load_posterior(network(), plain)
    plain.write_bytes(bytes(10**7))
    with pytest.raises(ValueError, match=r"has 10,000,000 bytes, and a posterior of this model at most"):
        load_posterior(network(), plain)
    with pytest.raises(FileNotFoundError):
        load_posterior(network(), tmp_path / "none.safetensors")


def test_a_posterior_that_is_none_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "posterior.safetensors"
    with pytest.raises(ValueError, match="the model has no Bayesian convolution"):
        save_posterior(network(), path)
    model = network()
    bayesianize_(model)
    model[0].log_variance.data[0] = 100.0
    with pytest.raises(ValueError, match=r"0\.log_variance of the model is from -10 to 100: torch.float32 cannot hold"):
        save_posterior(model, path)
    model[0].log_variance.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"0\.log_variance of the model has 9 NaN or infinite values of 36"):
        save_posterior(model, path)

    class Strange(BayesConv2d):
        """A posterior that no file describes."""

    with pytest.raises(ValueError, match="'0' is a Strange; only BayesConv2d and RelativeBayesConv2d can be saved"):
        save_posterior(nn.Sequential(Strange(1, 1, 3)), path)
    with pytest.raises(ValueError, match="of the model is on the meta device; give it values first"):
        save_posterior(nn.Sequential(BayesConv2d(1, 1, 3, device="meta")), path)
    assert not path.exists() and dwp_init.bayes.__doc__


@pytest.mark.parametrize("saved_wrapped", [False, True])
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrappers_do_not_change_the_file(
    wrap: Callable[[nn.Module], nn.Module], saved_wrapped: bool, tmp_path: Path
) -> None:
    model = network()
    bayesianize_(model, ["0", "2"])
    path = save_posterior(wrap(model) if saved_wrapped else model, tmp_path / "a.safetensors")
    assert set(load_file(path)) == set(model.state_dict())
    other = network(1)
    load_posterior(other if saved_wrapped else wrap(other), path)
    ours, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(("kind", "log_variance"), [(RelativeBayesConv2d, 100.0), (BayesConv2d, -20.0)])
def test_scales_that_a_layer_can_use_are_saved(kind: type[BayesConv2d], log_variance: float, tmp_path: Path) -> None:
    """A logit may be large, and half precision holds the log of a variance that it cannot hold itself."""
    model = network().half()
    bayesianize_(model, "0", kind=kind)
    model[0].log_variance.data.fill_(log_variance)
    other = load_posterior(network(seed=1).half(), save_posterior(model, tmp_path / "posterior.safetensors"))
    assert torch.equal(other[0].log_variance, model[0].log_variance) and type(other[0]) is kind


def test_a_layer_that_is_used_twice(tmp_path: Path) -> None:
    def twice(seed: int) -> nn.Sequential:
        model = network(seed)
        return nn.Sequential(model[2], model[2])

    model = twice(0)
    bayesianize_(model)
    other = load_posterior(twice(1), save_posterior(model, tmp_path / "a.safetensors"))
    assert other[0] is other[1] and torch.equal(other[1].log_variance, model[0].log_variance)


def test_buffers_may_be_infinite(tmp_path: Path) -> None:
    """Masks of attention are."""
    first, second = network(), network(1)
    for model in (first, second):
        model.register_buffer("mask", torch.full((2,), -torch.inf))
    bayesianize_(first)
    load_posterior(second, save_posterior(first, tmp_path / "a.safetensors"))
    with torch.no_grad():
        first[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"0\.weight of the model has 1 NaN or infinite values"):
        save_posterior(first, tmp_path / "b.safetensors")


def test_a_state_that_no_file_holds_is_refused(saved: Path, tmp_path: Path) -> None:
    class Counting(nn.Identity):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    model = network()
    model.append(Counting())
    refusal = r"6\._extra_state of the model is a dict, and a posterior's file holds tensors only"
    with pytest.raises(ValueError, match=refusal):
        load_posterior(model, saved)
    bayesianize_(model)
    with pytest.raises(ValueError, match=refusal):
        save_posterior(model, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
    with pytest.raises(ValueError, match="on the meta device; give it values first"):
        load_posterior(network().to("meta"), saved)


@pytest.mark.parametrize("layers", [None, "{", "[]", "{}", '{"0": 3}', '"0"', "[" * 100_000])
def test_metadata_made_by_hand_are_refused(layers: str | None, saved: Path) -> None:
    metadata = {"dwp_init.posterior": "1"} | ({} if layers is None else {"layers": layers})
    saved.write_bytes(sealed_safetensors(load_file(saved), metadata, "file_sha256"))
    with pytest.raises(ValueError, match="is no posterior: 'layers' in its metadata is"):
        load_posterior(network(), saved)


def test_what_a_wrapper_keeps_for_itself_is_not_in_the_file(tmp_path: Path) -> None:
    model = network()
    bayesianize_(model, ["0", "2"])
    average = AveragedModel(model)
    path = save_posterior(average, tmp_path / "a.safetensors")
    assert set(load_file(path)) == set(model.state_dict())
    other = load_posterior(AveragedModel(network(1)), path)
    assert torch.equal(other.module[2].log_variance, model[2].log_variance)


class Checkpointed(nn.Module):
    """Keeps its own part out of the names of its state, as PyTorch's wrapper for checkpointing does."""

    part = "_checkpoint_wrapped_module"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        setattr(self, self.part, module)
        self.register_state_dict_post_hook(
            lambda _, state, prefix, __: self.rename(state, f"{prefix}{self.part}.", prefix)
        )
        self.register_load_state_dict_pre_hook(
            lambda _, state, prefix, *__: self.rename(state, prefix, f"{prefix}{self.part}.")
        )

    def rename(self, state: dict[str, Tensor], old: str, new: str) -> None:
        for name in [name for name in state if name.startswith(old)]:
            state[new + name.removeprefix(old)] = state.pop(name)


RENAMING: dict[str, Callable[[nn.Module], nn.Module]] = {
    "one": Checkpointed,
    "two": lambda model: Checkpointed(nn.Sequential(torch.compile(model))),
}


@pytest.mark.parametrize("wrap", RENAMING.values(), ids=RENAMING)
def test_wrappers_that_rename_their_state(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    first, second = (nn.Sequential(wrap(network(seed))) for seed in (0, 1))
    bayesianize_(first)
    load_posterior(second, save_posterior(first, tmp_path / "a.safetensors"))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    with torch.no_grad():
        next(first.parameters())[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="has 1 NaN or infinite values"):
        save_posterior(first, tmp_path / "b.safetensors")


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_layer_alone_in_a_wrapper(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    layer = BayesConv2d(1, 2, 3)
    path = save_posterior(wrap(layer), tmp_path / "a.safetensors")
    other = load_posterior(wrap(nn.Conv2d(1, 2, 3)), path)
    assert torch.equal(bayesian_layers(other)[""].log_variance, layer.log_variance)
    assert posterior_mean_(other) is other and type(next(other.children())) is nn.Conv2d


def test_names_that_wrappers_would_make_alike_stay_apart(tmp_path: Path) -> None:
    class Teacher(nn.DataParallel):
        def __init__(self, seed: int) -> None:
            super().__init__(nn.Sequential(OrderedDict(conv=network(seed)[0])))
            self.conv = network(seed + 5)[0]

    first, second = Teacher(0), Teacher(1)
    bayesianize_(first)
    assert list(bayesian_layers(first)) == ["module.conv", "conv"]
    load_posterior(second, save_posterior(first, tmp_path / "a.safetensors"))
    ours, theirs = first.state_dict(), second.state_dict()
    assert len(ours) == 6 and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_tied_weights_are_loaded_as_one_or_not_at_all(tmp_path: Path) -> None:
    def model(tied: bool, seed: int = 0) -> nn.Sequential:
        torch.manual_seed(seed)
        found = nn.Sequential(*(nn.Conv2d(2, 2, 3, bias=False) for _ in range(3)))
        if tied:
            found[2].weight = found[1].weight
        return found

    both, one, other = (model(tied=False) for _ in range(3))
    bayesianize_(both, "0")
    bayesianize_(both, ["1", "2"], kind=RelativeBayesConv2d)
    bayesianize_(one, "1")
    bayesianize_(other, "0")
    tied = model(tied=True, seed=1)
    before = {name: value.clone() for name, value in tied.state_dict().items()}
    for saved_model, refusal in {
        both: "has a Bayesian layer '1', which the model's cannot become: it shares its weight with 2",
        one: "has a Bayesian layer '1', which the model's cannot become: it shares its weight with 2",
        other: "1.weight and 2.weight are one tensor here, and differ there",
    }.items():
        path = save_posterior(saved_model, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=refusal):
            load_posterior(tied, path)
    assert {type(layer) for layer in tied} == {nn.Conv2d}
    assert all(torch.equal(value, before[name]) for name, value in tied.state_dict().items())


def test_a_buffer_that_is_nan_is_what_it_was(tmp_path: Path) -> None:
    saved, loaded = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)) for _ in range(2))
    bayesianize_(saved)
    saved[1].running_var.fill_(float("nan"))
    load_posterior(loaded, save_posterior(saved, tmp_path / "a.safetensors"))
    assert loaded[1].running_var.isnan().all()
