"""What becomes of a model under each wrapper: the table, the runs behind it, and the command that records it.

python -m tests.interop.lifecycles
"""

import copy
import csv
import importlib
import io
import pickle
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from dwp_init import Report, apply_
from tests.interop import processes
from tests.interop.common import Wrap, draw, each, network, weights
from tests.models import fake_mode

RESULTS = Path(__file__).parents[2] / "training" / "results" / "lifecycles.csv"
SAME = "the bare model's draw, to the bit"
CLOSE = "the bare model's draw, up to rounding"
SPECTRAL = "the bare model's draw over its norm, in training and evaluation mode"
RESCALED = f"skipped: {processes.RESCALED}"
ON_META = "on the meta device: give it memory, with to_empty(device=...), and values as usual, first"
ALONE = "the stem's draw alone: the chain is not seen; call apply_ before"
META = f"a report without a draw: {ON_META}"


class Lifecycle(NamedTuple):
    """A wrapper or a surrounding, what should become of a model in it, and how to find out.

    Attributes:
        name: Name in the table.
        outcome: What ``run`` must return.
        run: Makes a model, initialises it and says what became of it.
        needs: The library without which it is skipped.
    """

    name: str
    outcome: str
    run: Callable[[], str]
    needs: str = "torch"


def outcome(model: nn.Module, report: Report) -> str:
    """Says what became of a model, compared with the bare one."""
    bare = network()
    if not report.drawn:
        return f"a report without a draw: {'; '.join({report.skipped[name] for name in report.spatial})}"
    if report.initialized != draw(bare).initialized:
        return f"other layers: {report.initialized}"
    pairs = list(zip(weights(bare), weights(model), strict=True))
    if all(torch.equal(ours.to(theirs.dtype), theirs) for ours, theirs in pairs):
        dtype = pairs[0][1].dtype
        return SAME if dtype == torch.float32 else f"the bare model's draw, rounded to {dtype}"
    return CLOSE if all(torch.allclose(*pair) for pair in pairs) else "other weights"


def wrapped(wrap: Wrap) -> str:
    model = wrap(network())
    return outcome(model, draw(model))


def of_a_chain(wrap: Wrap) -> str:
    """Says which layers of a plain chain are drawn if it is wrapped, where the bare chain's are all."""
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU()]
    reports = [apply_(model, "natural", seed=0) for model in (nn.Sequential(*layers), wrap(nn.Sequential(*layers)))]
    assert reports[0].initialized == ["0", "3"]
    return ALONE if reports[1].initialized == ["0"] else SAME


def surrounded(context: AbstractContextManager[object]) -> str:
    with context:
        model = network()
        report = draw(model)
    return outcome(model, report)


def left(wrap: Wrap) -> str:
    """Says why wrapped layers are skipped, next to one that is drawn."""
    model = each(wrap)(network()).append(nn.Conv2d(4, 4, 3))
    before = str([model[place].state_dict() for place in (0, 3)])
    report = draw(model)
    assert report.initialized == ["5"] and str([model[place].state_dict() for place in (0, 3)]) == before
    return f"skipped: {'; '.join({report.skipped[name] for name in report.spatial if name != '5'})}"


def spectral(wrap: Wrap) -> str:
    images, bare = torch.randn(2, 3, 9, 9), network()
    draw(bare)
    for training in (False, True):
        model = each(wrap)(network()).train(training)
        draw(model, layers=["0", "3"])
        for _ in range(2):
            for ours, theirs in list(zip(weights(bare), weights(model), strict=True))[:2]:
                norm = torch.linalg.matrix_norm(ours.flatten(1), 2)
                torch.testing.assert_close(ours / norm, theirs, rtol=0.02, atol=1e-6)
            model(images)
    return SPECTRAL


def compiled_first() -> str:
    model = torch.compile(network(), backend="eager").eval()
    images, bare = torch.randn(2, 3, 9, 9), network().eval()
    model(images)
    found = outcome(model, draw(model))
    draw(bare)
    torch.testing.assert_close(model(images), bare(images))
    return found


def deterministic() -> str:
    torch.use_deterministic_algorithms(True)
    try:
        return wrapped(lambda model: model)
    finally:
        torch.use_deterministic_algorithms(False)


def copied(copier: Wrap) -> str:
    model = network()
    report = draw(model)
    found = {outcome(copier(model), report), wrapped(copier)}
    return "; ".join(found)


def reloaded(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = nn.Sequential(*map(copy.deepcopy, model))
    other.load_state_dict(torch.load(file))
    return other


def meta_context() -> str:
    with torch.device("meta"):
        model = network()
        report = apply_(model, "natural")
    return outcome(model, report)


def empty_weights() -> str:
    with importlib.import_module("accelerate").init_empty_weights():
        model = network()
        report = apply_(model, "natural")
    return outcome(model, report)


def timm_ema(model: nn.Module) -> nn.Module:
    return importlib.import_module("timm.utils").ModelEmaV3(model)


def timm_features() -> str:
    timm = importlib.import_module("timm")
    whole, features = timm.create_model("test_resnet"), timm.create_model("test_resnet", features_only=True)
    report = draw(whole)
    assert draw(features).initialized == report.initialized == list(report.spatial)
    pairs = [(whole.get_submodule(name).weight, features.get_submodule(name).weight) for name in report.spatial]
    same = all(torch.equal(*pair) for pair in pairs)
    return "the whole model's draw, to the bit" if same else "other weights"


def lightning_module() -> str:
    class Task(importlib.import_module("lightning").LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.report = network(), None

        def configure_model(self) -> None:
            self.report = draw(self.net)

    task = Task()
    task.configure_model()
    return outcome(task.net, task.report)


def fabric(model: nn.Module) -> nn.Module:
    return importlib.import_module("lightning.fabric").Fabric(accelerator="cpu", devices=1).setup_module(model)


def quantization_aware(model: nn.Module) -> nn.Module:
    quantization = importlib.import_module("torch.ao.quantization")
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model.train())


def int8(model: nn.Module) -> nn.Module:
    quantization = importlib.import_module("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(), filter_fn=lambda module, _: True)
    return model


def low_rank() -> str:
    peft, images = importlib.import_module("peft"), torch.randn(2, 3, 9, 9)
    model = peft.get_peft_model(network(), peft.LoraConfig(target_modules=["0", "3"])).eval()
    frozen = [part for part in model.parameters() if not part.requires_grad]
    before, output = [part.clone() for part in frozen], model(images)
    report = draw(model)
    assert all(map(torch.equal, frozen, before)) and torch.equal(model(images), output)
    assert [name.split(".")[-2] for name in report.initialized] == ["lora_A", "lora_A"]
    return "the frozen base and the model's output stay; the first factors are drawn"


class LoraConv(nn.Module):
    """A convolution as loralib makes it: frozen, with two factors of low rank, of which one is zero."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv.requires_grad_(False)
        outputs, inputs, side, _ = conv.weight.shape
        self.lora_A = nn.Parameter(torch.randn(2 * side, inputs * side))
        self.lora_B = nn.Parameter(torch.zeros(outputs * side, 2 * side))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight + (self.lora_B @ self.lora_A).view(self.conv.weight.shape)
        return nn.functional.conv2d(x, weight, self.conv.bias)


def pretrained(partly: bool) -> str:
    """Loads a transformers model whose constructor calls apply_; ``partly`` without one bias, so it is initialised."""
    transformers = importlib.import_module("transformers")

    class Model(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config: object) -> None:
            super().__init__(config)
            self.net = network()
            draw(self.net)
            self.post_init()

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, nn.Sequential):
                return
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                draw(nn.Sequential(module))

    saved = Model(transformers.PretrainedConfig())
    with torch.no_grad():
        saved.net[3].weight.add_(1)
    with tempfile.TemporaryDirectory() as folder:
        state = saved.state_dict()
        saved.save_pretrained(folder, state_dict={k: v for k, v in state.items() if not (partly and k == "net.3.bias")})
        loaded = Model.from_pretrained(folder)
    same = all(torch.equal(a, b) for a, b in zip(weights(saved), weights(loaded), strict=True))
    return "the checkpoint's weights" if same else "other weights"


WRAPPERS: dict[str, tuple[Wrap, str]] = {
    "weight_norm": (each(parametrizations.weight_norm), CLOSE),
    "old weight_norm": (each(nn.utils.weight_norm), CLOSE),
    "torch.compile": (lambda model: torch.compile(model, backend="eager"), SAME),
    "torch.compile of a part": (each(lambda layer: torch.compile(layer, backend="eager")), SAME),
    "DataParallel": (nn.DataParallel, SAME),
    "checkpoint wrapper": (
        importlib.import_module("torch.distributed.algorithms._checkpoint.checkpoint_wrapper").checkpoint_wrapper,
        SAME,
    ),
    "EMA (AveragedModel)": (AveragedModel, SAME),
    "torch.fx": (torch.fx.symbolic_trace, SAME),
    "TorchScript": (torch.jit.script, SAME),
    "quantization-aware training": (quantization_aware, SAME),
    "channels_last": (lambda model: model.to(memory_format=torch.channels_last), SAME),
    "bfloat16": (lambda model: model.bfloat16(), "the bare model's draw, rounded to torch.bfloat16"),
    "float16": (lambda model: model.half(), "the bare model's draw, rounded to torch.float16"),
    "float64": (lambda model: model.double(), "the bare model's draw, rounded to torch.float64"),
}
SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}
TABLE = [
    *(Lifecycle(name, SAME, lambda make=make: surrounded(make())) for name, make in SURROUNDINGS.items()),
    *(Lifecycle(name, found, lambda wrap=wrap: wrapped(wrap)) for name, (wrap, found) in WRAPPERS.items()),
    *(
        Lifecycle(f"{name} of a plain chain", ALONE, lambda name=name: of_a_chain(WRAPPERS[name][0]))
        for name in ("torch.fx", "TorchScript", "quantization-aware training")
    ),
    Lifecycle("deterministic algorithms", SAME, deterministic),
    Lifecycle("torch.compile, then a forward pass", SAME, compiled_first),
    Lifecycle("deepcopy", SAME, lambda: copied(copy.deepcopy)),
    Lifecycle("pickle", SAME, lambda: copied(reloaded)),
    Lifecycle("state_dict", SAME, lambda: copied(saved_and_loaded)),
    Lifecycle("spectral_norm", RESCALED, lambda: left(parametrizations.spectral_norm)),
    Lifecycle("old spectral_norm", RESCALED, lambda: left(nn.utils.spectral_norm)),
    Lifecycle("spectral_norm, named in layers=", SPECTRAL, lambda: spectral(parametrizations.spectral_norm)),
    Lifecycle("old spectral_norm, named in layers=", SPECTRAL, lambda: spectral(nn.utils.spectral_norm)),
    Lifecycle("meta device", META, lambda: wrapped(lambda model: model.to("meta"))),
    Lifecycle("meta device as a context", META, meta_context),
    Lifecycle(
        "FakeTensorMode",
        "a report without a draw: a FakeTensor, without values: call apply_ outside FakeTensorMode",
        lambda: surrounded(fake_mode()),
    ),
    Lifecycle(
        "prune",
        "skipped: its weight is not a parameter, as under prune: call apply_ before the weight is replaced",
        lambda: left(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    ),
    Lifecycle(
        "Lazy modules",
        "skipped: lazy: run a forward pass first, so that its shape is known",
        lambda: left(lambda layer: nn.LazyConv2d(8, 3)),
    ),
    Lifecycle(
        "torchao int8",
        "skipped: its weight is a Int8Tensor, made of other tensors: call apply_ before it is quantized",
        lambda: left(int8),
        "torchao",
    ),
    Lifecycle(
        "orthogonal",
        "skipped: its parametrization _Orthogonal keeps part of the weight in its own tensors, which apply_ does not "
        "write; call apply_ before registering it, or leave the layer out with layers=",
        lambda: left(parametrizations.orthogonal),
    ),
    Lifecycle("accelerate.init_empty_weights", META, empty_weights, "accelerate"),
    Lifecycle("transformers' from_pretrained", "the checkpoint's weights", lambda: pretrained(False), "transformers"),
    Lifecycle("from_pretrained, a bias missing", "the checkpoint's weights", lambda: pretrained(True), "transformers"),
    Lifecycle("timm's ModelEmaV3", SAME, lambda: wrapped(timm_ema), "timm"),
    Lifecycle("timm's features_only", "the whole model's draw, to the bit", timm_features, "timm"),
    Lifecycle("Lightning module", SAME, lightning_module, "lightning"),
    Lifecycle("Lightning Fabric", SAME, lambda: wrapped(fabric), "lightning"),
    Lifecycle(
        "LoRA (peft)",
        "the frozen base and the model's output stay; the first factors are drawn",
        low_rank,
        "peft",
    ),
    Lifecycle(
        "LoRA (loralib)",
        "skipped: its weight is frozen (requires_grad is False), as one that is pretrained; to draw it, give its exact "
        "name in layers=",
        lambda: left(LoraConv),
    ),
]


def rows() -> list[tuple[str, str, str]]:
    """Returns the recorded table: wrapper, outcome and test."""
    file = "tests/interop/test_lifecycles.py"
    single = [(case.name, case.outcome, f"{file}::test_outcome[{case.name}]") for case in TABLE]
    several = [
        (f"{name}, {count} processes", found, f"{file}::test_processes[{count}]")
        for count in processes.COUNTS
        for name, (found, _) in processes.CASES.items()
    ]
    return [*single, *several]


if __name__ == "__main__":
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("wrapper", "outcome", "test"), *rows()])
