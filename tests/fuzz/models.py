"""Random models through ``apply_``: layers of all kinds, wrapped, frozen, shared and odd, with random options."""

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import dwp_init
from dwp_init import Gaussian, Report
from tests.fuzz.target import Differs, Outcome, Target

Spec = Mapping[str, Any]
PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BETWEEN = {
    "nothing": lambda channels: nn.Identity(),
    "relu": lambda channels: nn.ReLU(),
    "norm": nn.BatchNorm2d,
    "group norm": lambda channels: nn.GroupNorm(1, channels),
    "dropout": lambda channels: nn.Dropout(0.1),
}
DTYPES = {"half": torch.float16, "double": torch.float64, "bfloat16": torch.bfloat16}
STATES = ("as it is", "frozen", "zero", "huge", "tiny", "nan", "expanded", "shared", "copies", *DTYPES)
WRAPPERS = (*["none"] * 12, "weight_norm", "spectral_norm", "orthogonal", "sequential", "lazy", "meta")


@cache
def prior(kind: str) -> Any:
    """A prior, or the name of one or of a set."""
    if kind == "own":
        return Gaussian((1, 3, 3)).fit_(torch.randn(99, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    return kind


def _layer(spec: Spec) -> nn.Module:
    kind = (TRANSPOSED if spec["transposed"] else PLAIN)[spec["axes"]]
    size: Any = (
        spec["size"] if spec["axes"] == 1 else (spec["size"], *[spec["last"] or spec["size"]] * (spec["axes"] - 1))
    )
    groups = spec["groups"]
    options = {"stride": spec["stride"], "groups": groups, "bias": spec["bias"], "dilation": spec["dilation"]}
    return kind(spec["inputs"] * groups, spec["outputs"] * groups, size, **options)


@torch.no_grad()
def _set(layer: Any, state: str, before: Any) -> None:
    """Puts a layer into a state that its author, or an accident, may leave."""
    weight = layer.weight
    if state == "frozen":
        weight.requires_grad_(False)
    elif state in ("zero", "huge", "tiny", "nan"):
        weight.mul_({"zero": 0.0, "huge": 1e30, "tiny": 1e-30, "nan": float("nan")}[state])
    elif state == "expanded":
        layer.weight = nn.Parameter(weight[:1].detach().expand_as(weight))
    elif state == "copies":
        weight.copy_(weight[:1].clone().expand_as(weight))
    elif state == "shared" and before is not None and before.weight.shape == weight.shape:
        layer.weight = before.weight
    elif state in DTYPES:
        layer.to(DTYPES[state])


def _wrapped(layer: nn.Module, wrapper: str) -> nn.Module:
    if wrapper in ("weight_norm", "spectral_norm", "orthogonal"):
        return getattr(parametrizations, wrapper)(layer)
    if wrapper == "sequential":
        return nn.Sequential(layer)
    if wrapper == "lazy":
        return nn.LazyConv2d(4, 3)
    return layer.to("meta") if wrapper == "meta" else layer


def build(specs: list[Spec]) -> nn.Sequential:
    """Builds the model of a list of layers; what cannot be built is left out."""
    model, before = nn.Sequential(), None
    for number, spec in enumerate(specs):
        try:
            layer = _layer(spec)
            _set(layer, spec["state"], before)
            wrapped = _wrapped(layer, spec["wrapper"])
        except (ValueError, RuntimeError, NotImplementedError):  # no such layer, or no such norm of it
            continue
        before = layer
        model.add_module(f"conv{number}", wrapped)
        model.add_module(f"then{number}", BETWEEN[spec["between"]](spec["outputs"] * spec["groups"]))
    return model


def values(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers that have values, by name."""
    found = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    plain = {name: value for name, value in found.items() if not nn.parameter.is_lazy(value) and not value.is_meta}
    return {name: value.detach().clone() for name, value in plain.items()}


def changed(model: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    """Names of the parameters and buffers that are not as before, bit for bit."""
    after = values(model)
    if after.keys() != before.keys():
        return after.keys() ^ before.keys()
    return {name for name in after if not _equal(after[name], before[name])}


def _equal(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)) and torch.equal(one.isnan(), other.isnan())


def initialize(case: tuple[list[Spec], Spec], folder: Path) -> Outcome:
    """Applies a prior: an error leaves all as it was; else what is reported was drawn, and is finite, and nothing else.

    A dry run changes nothing and says the same; a second model draws the same from the same seed.
    """
    specs, options = case
    torch.manual_seed(0)
    model = build(specs)
    torch.manual_seed(0)
    twin = build(specs)
    before, state = values(model), torch.get_rng_state()
    chosen = {**options, "prior": prior(options["prior"])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = dwp_init.apply_(model, **chosen)
        except Exception:
            if wrong := changed(model, before):
                raise Differs(f"after an error, {', '.join(sorted(wrong))} are other") from None
            raise
        drawn = values(model)  # before a weight is read, which changes the vectors of spectral_norm
        if options.get("seed") is not None and not torch.equal(torch.get_rng_state(), state):
            raise Differs("with a seed, the global random state has changed")
        _check(model, report, before, dry=bool(options.get("dry_run")))
        _check_twin(twin, chosen, report, drawn)
    return "as stated" if report.initialized else "same"


def _check(model: nn.Module, report: Report, before: Mapping[str, Tensor], dry: bool) -> None:
    """Raises :class:`Differs` unless what has changed is what the report names."""
    different = changed(model, before)
    if dry and different:
        raise Differs(f"a dry run has changed {', '.join(sorted(different))}")
    drawn = {} if dry else {name: model.get_submodule(name) for name in report.initialized}
    ours = {id(value) for module in drawn.values() for value in [*module.parameters(), *module.buffers()]}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    foreign = {name for name, value in named if id(value) not in ours}
    if wrong := different & foreign:
        raise Differs(f"{', '.join(sorted(wrong))} have changed and are not reported")
    for name, module in drawn.items():
        weight: Any = module.weight
        if not weight.isfinite().all():
            raise Differs(f"{name} is reported and not finite")
        if not any(each.startswith(f"{name}.") for each in different) and name not in _without_draws(report):
            raise Differs(f"{name} is reported and has not changed")


def _without_draws(report: Report) -> set[str]:
    """Layers of copies and own weights, which may have been the same before."""
    return {row.layer for row in report.drawn if not row.from_prior}


def _check_twin(twin: nn.Module, options: Spec, report: Report, drawn: Mapping[str, Tensor]) -> None:
    """Raises :class:`Differs` unless a dry run of an equal model names the same layers, and its draws are the same."""
    before = values(twin)
    dry = dwp_init.apply_(twin, **{**options, "dry_run": True})
    if changed(twin, before):
        raise Differs("a dry run has changed the model")
    if dry.initialized != report.initialized or dry.skipped != report.skipped:
        raise Differs(f"a dry run names {dry.initialized}, the run {report.initialized}")
    if options.get("seed") is not None and not options.get("dry_run"):
        dwp_init.apply_(twin, **options)
        if wrong := changed(twin, drawn):
            raise Differs(f"from the same seed, {', '.join(sorted(wrong))} are other")


def _cases() -> SearchStrategy[tuple[list[Spec], Spec]]:
    layer = st.fixed_dictionaries(
        {
            "axes": st.sampled_from([1, 2, 2, 2, 2, 3]),
            "size": st.sampled_from([1, 2, 3, 3, 3, 3, 3, 5, 7]),
            "last": st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3]),  # 0 for a square
            "inputs": st.sampled_from([1, 2, 3, 4, 8]),
            "outputs": st.sampled_from([1, 2, 4, 8]),
            "groups": st.sampled_from([1, 1, 1, 4, 8]),
            "stride": st.sampled_from([1, 2]),
            "dilation": st.sampled_from([1, 1, 2]),
            "bias": st.booleans(),
            "transposed": st.sampled_from([False, False, False, True]),
            "state": st.sampled_from([*["as it is"] * 12, *STATES]),
            "wrapper": st.sampled_from(WRAPPERS),
            "between": st.sampled_from(sorted(BETWEEN)),
        }
    )
    options = st.fixed_dictionaries(
        {"prior": st.sampled_from(["natural", "natural", "natural-v1", "tinyimagenet-3x3", "natural-dw3x3", "own"])},
        optional={
            "seed": st.integers(0, 9),
            "scale": st.sampled_from(["auto", "keep", "fan_in", "prior"] * 3 + ["none"]),
            "orthogonal": st.sampled_from([True, False, None]),
            "resize": st.booleans(),
            "strict": st.sampled_from([False] * 7 + [True]),
            "dry_run": st.sampled_from([False, False, False, True]),
            "noise": st.sampled_from([True] * 9 + [False]),
            "layers": st.sampled_from(["*"] * 8 + ["conv0*", "conv*", "none", ["conv0", "conv1"]]),
        },
    )
    return st.tuples(st.lists(layer, min_size=1, max_size=4), options)


REFUSALS = (ValueError, TypeError)
TARGETS = (
    Target("models through apply_", _cases, initialize, REFUSALS, names=False, seconds=10, megabytes=400, tries=60),
)
