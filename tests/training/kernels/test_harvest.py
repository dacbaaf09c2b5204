"""Harvesting: hand-made state dicts whose labels and parts are known."""

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dwp_init import load_prior
from tests.training.kernels.states import network, normal
from training.__main__ import main
from training.engine.run import LOCK, locked, run_stages
from training.engine.stage import Context, StageChangedError
from training.kernels import harvest as harvests
from training.kernels.checkpoints import Checkpoint
from training.kernels.groups import Settings
from training.kernels.harvest import REPORT, harvest
from training.kernels.kernelset import KernelSet
from training.kernels.places import find_checkpoints
from training.kernels.read import KernelFile, read_reference
from training.publish.cards import render_card
from training.publish.check import check_sources


def test_a_second_harvest_keeps_what_the_first_reported(zoo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": normal(8, 8, 9, 9), "b": normal(4, 4, 1, 1)}, other)
    reports = []
    for source in (zoo, other):
        harvest([str(source)], tmp_path / "out", Settings())
        reports.append(json.loads((tmp_path / "out" / "harvest.json").read_text()))
    first, both = reports
    assert both["checkpoints"] == [*first["checkpoints"], "other.safetensors"]
    assert both["left_out"][: len(first["left_out"])] == first["left_out"] != both["left_out"]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Four networks, each file of another name."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    for i in range(4):
        save_file(network(10 * i), folder / f"net{i}.safetensors")
    return folder


def read(folder: Path) -> tuple[KernelSet, dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    labels, done = (json.loads((folder / name).read_text()) for name in ("labels.json", "done.json"))
    return KernelSet.load(folder), load_file(folder / "labels.safetensors"), labels, done


EVERYTHING = Settings(min_norm=0, raw_scale=True)


def test_kernels_and_their_labels(zoo: Path, tmp_path: Path) -> None:
    """Each kernel is found in the tensor of the checkpoint that its labels name."""
    found = harvest([str(zoo)], tmp_path / "out", EVERYTHING)
    shapes = {"dense-3x3": (44, 1, 3, 3), "depthwise-5x5": (12, 1, 5, 5), "stem-7x7": (16, 3, 7, 7)}
    assert list(found.folders) == list(shapes)
    for name, (each, *shape) in shapes.items():
        kernels, arrays, labels, done = read(tmp_path / "out" / name)
        assert found.folders[name].items() <= done.items()
        assert kernels.counts() == {"train": 2 * each, "validation": each, "test": each} == done["kernels"]
        assert kernels.train.shape[1:] == tuple(shape) and kernels.train.dtype == torch.float32
        assert labels["checkpoints"] == [f"zoo/net{i}.safetensors" for i in range(4)]
        for part in ("train", "validation", "test"):
            columns = [arrays[f"{part}.{key}"] for key in ("checkpoint", "tensor", "depth")]
            rows = zip(getattr(kernels, part), *columns, strict=True)
            for kernel, checkpoint, tensor, depth in rows:
                label = labels["tensors"][tensor]
                assert label["checkpoint"] == labels["checkpoints"][checkpoint]
                assert label["kind"] == name.split("-")[0] and label["depth"] == pytest.approx(depth.item(), abs=1e-6)
                weight = load_file(zoo.parent / label["checkpoint"])[label["tensor"]]
                assert (weight.reshape(-1, *shape) == kernel).flatten(1).all(1).any()
        assert kernels.test_network.tolist() == arrays["test.checkpoint"].tolist()
        depths = {label["tensor"]: label["depth"] for label in labels["tensors"]}
        order = ["stem.conv.weight", "block.2.conv.weight", "block.3.depthwise.weight", "block.10.conv.weight"]
        assert depths == {tensor: round(order.index(tensor) / 3, 6) for tensor in depths}


def test_parts_are_whole_checkpoints(zoo: Path, tmp_path: Path) -> None:
    found = harvest([str(zoo)], tmp_path / "out", Settings())
    for name, done in found.folders.items():
        _, arrays, labels, _ = read(tmp_path / "out" / name)
        parts = [set(arrays[f"{part}.checkpoint"].tolist()) for part in ("train", "validation", "test")]
        assert sorted(map(len, parts)) == [1, 1, 2] and set.union(*parts) == {0, 1, 2, 3}
        assert done["source"]["split"] == "by family of checkpoints"
        held_out = done["source"]["held_out_families"]
        for part, checkpoints in zip(("validation", "test"), parts[1:], strict=True):
            assert held_out[part] == [labels["checkpoints"][i] for i in checkpoints]
    sources = [done["source"]["held_out_families"] for done in found.folders.values()]
    assert sources[0] == sources[1] == sources[2]  # what is held out is held out of all kinds and sizes
    other = harvest([str(zoo)], tmp_path / "other", Settings(seed=1)).folders["dense-3x3"]["source"]
    assert other["held_out_families"] != sources[0]


def test_the_order_of_the_sources_has_no_effect(zoo: Path, tmp_path: Path) -> None:
    """Those of a manifest come first, in its order."""
    manifest = str(write_manifest(zoo, {}, {}))
    sources = [manifest, str(zoo / "net2.safetensors"), str(zoo / "net3.safetensors")]
    for name, given in (("a", sources), ("b", sources[::-1]), ("a", sources[1:] + sources[:1])):
        harvest(given, tmp_path / name, Settings())
    for file in ("kernels.safetensors", "labels.safetensors", "labels.json"):
        assert (tmp_path / "a/dense-3x3" / file).read_bytes() == (tmp_path / "b/dense-3x3" / file).read_bytes()
    manifest_in_zoo = zoo / "z.toml"
    manifest_in_zoo.write_text(Path(manifest).read_text().replace('"zoo/', '"'))
    found = harvest([str(zoo), str(manifest_in_zoo)], tmp_path / "c", Settings(kind="dense"))
    assert found.folders["dense-3x3"]["source"]["checkpoints"][:2] == ["net0.safetensors", "net1.safetensors"]


def test_a_folder_of_a_trainer(tmp_path: Path) -> None:
    """Its states of random generators are pickles that cannot be read without running code."""
    run = tmp_path / "run"
    run.mkdir()
    save_file(network(), run / "model.safetensors")
    for name in ("optimizer.pt", "rng_state.pth"):
        torch.save(random.Random(0), run / name)
    found = harvest([str(run)], tmp_path / "out", Settings())
    assert found.folders["dense-3x3"]["source"]["checkpoints"] == ["run/model.safetensors"]
    unread = [item.checkpoint for item in found.left_out if item.reason == harvests.ANOTHER_FORMAT]
    assert unread == ["run/optimizer.pt", "run/rng_state.pth"]


OPTIMIZERS = [torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adamax, torch.optim.NAdam]


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_has_no_kernels(make: type[torch.optim.Optimizer], within: bool, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 32, 3))
    optimizer = make(network.parameters())
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    states = {"model": network.state_dict(), "trainer": {"adjust": optimizer.state_dict()}}
    for name, content in states.items() if not within else [("both", states)]:
        torch.save(content if within or name == "model" else optimizer.state_dict(), tmp_path / f"{name}.pt")
    found = harvest([str(tmp_path)], tmp_path / "out", Settings())
    taken = {name: done["source"]["tensors"] for name, done in found.folders.items()}
    assert taken == {"stem-3x3": 1, "dense-3x3": 1}
    left_out = [item for item in found.left_out if item.reason == "an optimizer's state"]
    assert len(left_out) >= 2 and all(item.checkpoint.endswith(("trainer.pt", "both.pt")) for item in left_out)


def siblings(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Says that the networks are three families, of which one has two siblings."""
    return [replace(one, family=f"family {min(i, 2)}") for i, one in enumerate(checkpoints)]


@pytest.mark.parametrize("seed", range(6))
def test_siblings_stay_together(seed: int, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every order of the three families, the third and fourth network, of one family, are of the same part."""
    monkeypatch.setattr(
        "training.kernels.harvest.find_checkpoints", lambda *places: siblings(find_checkpoints(*places))
    )
    source = harvest([str(zoo)], tmp_path / "out", Settings(seed=seed)).folders["dense-3x3"]["source"]
    _, arrays, labels, _ = read(tmp_path / "out" / "dense-3x3")
    parts = [set(arrays[f"{part}.checkpoint"].tolist()) for part in ("train", "validation", "test")]
    assert {2, 3} in parts and sorted(map(len, parts)) == [1, 1, 2]
    families = [sorted({f"family {min(i, 2)}" for i in part}) for part in parts]
    assert source["held_out_families"] == {"validation": families[1], "test": families[2]}
    assert [tensor["family"] for tensor in labels["tensors"][::2]] == ["family 0", "family 1", "family 2", "family 2"]


def test_families_that_the_user_holds_out(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["kernels", "--from", str(zoo), "--kind", "dense", "--out", str(tmp_path / "out")]
    assert main([*words, "--test", "zoo/net1*", "--test", "*net3.safetensors"]) == 0
    held_out = json.loads((tmp_path / "out/dense-3x3/done.json").read_text())["source"]["held_out_families"]
    assert (
        set(held_out["test"]) == {"zoo/net1.safetensors", "zoo/net3.safetensors"} and len(held_out["validation"]) == 1
    )
    assert main([*words[:-1], str(tmp_path / "two"), "--test", "zoo/net[12]*", "--test", "zoo/net3*"]) == 0
    _, arrays, _, done = read(tmp_path / "two" / "dense-3x3")
    assert done["source"]["held_out_families"] == {"test": [f"zoo/net{i}.safetensors" for i in (1, 2, 3)]}
    assert done["source"]["split"].startswith("the test by family of checkpoints, validation by kernel, at random: ")
    parts = [set(arrays[f"{part}.checkpoint"].tolist()) for part in ("train", "validation", "test")]
    assert parts == [{0}, {0}, {1, 2, 3}] and done["kernels"]["validation"] == int(
        0.1 * len(arrays["train.depth"]) / 0.9
    )
    assert main([*words, "--test", "*"]) == 1
    assert "what was left out: 1×1, of families held out for the test alone" in capsys.readouterr().err
    assert main([*words, "--test", "net7"]) == 1
    assert "--test 'net7' matches no family; there are zoo/net0.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_checkpoints_are_split_by_kernel(
    count: int, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [word for i in range(count) for word in ("--from", str(zoo / f"net{i}.safetensors"))]
    assert main(["kernels", *words, "--out", str(tmp_path / "out"), "--min-norm", "0", "--kind", "dense"]) == 0
    kernels, arrays, _, done = read(tmp_path / "out" / "dense-3x3")
    held_out = int(0.1 * 44 * count)
    assert kernels.counts() == {"train": 44 * count - 2 * held_out, "validation": held_out, "test": held_out}
    assert set(arrays["train.checkpoint"].tolist()) == set(range(count))
    why = f"by kernel, at random: {count} famil{'ies' if count > 1 else 'y'} of checkpoints cannot be split in three"
    assert done["source"]["split"] == why and "held_out_families" not in done["source"]
    assert f"dense-3x3 is split {why}" in capsys.readouterr().out


def test_a_part_of_one_kernel_is_none(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for i, n in enumerate((1, 6, 6)):
        save_file({"a": normal(3, 8, 2, 2, seed=i), "b": normal(1, n, 3, 3, seed=i)}, zoo / f"{i}.safetensors")
    why = "by kernel, at random: split by family, a part would have fewer than 2"
    found = harvest([str(zoo)], tmp_path / "out", EVERYTHING).folders
    assert {name: done["source"]["split"] for name, done in found.items()} == {
        "dense-2x2": "by family of checkpoints",
        "dense-3x3": why,
    }


def test_kernels_harvested_earlier_are_no_checkpoint(zoo: Path) -> None:
    first = harvest([str(zoo)], zoo / "out", Settings(kind="dense"))
    second = harvest([str(zoo)], zoo / "out", Settings(kind="dense"))
    assert second.folders == first.folders
    added = [item for item in second.left_out if item not in first.left_out]
    assert [(item.checkpoint, item.reason) for item in added] == [
        ("zoo/out/dense-3x3/kernels.safetensors", "a kernel data set, not a checkpoint"),
        ("zoo/out/dense-3x3/labels.safetensors", "a checkpoint without a spatial convolution to take"),
    ]


def test_scale_and_threshold_are_those_of_each_tensor(tmp_path: Path) -> None:
    """Of flat kernels 1, …, 20 those from 4.7625, a quarter of the 95 % quantile, are kept, at any scale."""
    flat = torch.arange(1.0, 21).view(4, 5, 1, 1).expand(4, 5, 3, 3)
    for i in range(3):
        state = {"a": normal(1, 8, 2, 2, seed=i), "b": flat * 1000**i, "c": flat.flip(0) / (100 + i)}
        save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / f"{i}.safetensors")
    harvest([str(tmp_path)], tmp_path / "out", Settings())
    kernels, arrays, labels, done = read(tmp_path / "out" / "dense-3x3")
    everything = torch.cat([kernels.train, kernels.validation, kernels.test])
    tensor = torch.cat([arrays[f"{part}.tensor"] for part in ("train", "validation", "test")])
    kept = torch.arange(5.0, 21)
    for i in range(6):
        values = everything[tensor == i][:, 0, 0, 0].sort().values
        assert torch.allclose(values, kept / kept.square().mean().sqrt())
        facts = {key: labels["tensors"][i][key] for key in ("kernels", "kept", "of")}
        assert facts == {"kernels": 16, "kept": 16, "of": 20}
    assert labels["tensors"][2]["rms"] == pytest.approx(1000 * kept.square().mean().sqrt().item(), rel=1e-5)
    assert done["kept"] == 0.8 and done["source"]["scale"] == "a tensor's kernels have a root mean square of 1"
    harvest([str(tmp_path)], tmp_path / "raw", Settings(raw_scale=True))
    raw, arrays, _, done = read(tmp_path / "raw" / "dense-3x3")
    assert {round(value, 2) for value in raw.train.unique().tolist()} >= {0.05, 0.2}
    assert done["source"]["scale"] == "as in the checkpoints"


def test_kernels_of_a_depthwise_layer_differ_in_scale(tmp_path: Path) -> None:
    """Only dead channels are dropped, of less than a hundredth of the others' norm, unless a threshold is given."""
    weight = normal(40, 1, 3, 3)
    weight[:20] *= 0.05
    weight[20:22] *= 1e-9
    for i in range(3):
        save_file({"conv1": normal(16, 3, 2, 2, seed=i), "dw": weight * (i + 1)}, tmp_path / f"{i}.safetensors")
    for folder, settings in (("default", Settings()), ("given", Settings(min_norm=0.25))):
        done = harvest([str(tmp_path)], tmp_path / folder, settings).folders["depthwise-3x3"]
        share = 0.95 if folder == "default" else 0.45
        assert done["kept"] == share and done["source"]["min_norm"] == settings.threshold("depthwise")


def test_zero_kernels_are_dropped_however_many(tmp_path: Path) -> None:
    weight = torch.zeros(50, 16, 3, 3)
    weight[0, :3] = 1
    for i in range(4):
        save_file({"a": weight * (i + 1)}, tmp_path / f"{i}.safetensors")
    harvest([str(tmp_path)], tmp_path / "out", Settings())
    kernels = KernelSet.load(tmp_path / "out/dense-3x3")
    assert kernels.counts() == {"train": 6, "validation": 3, "test": 3} and (kernels.train == 1).all()


def test_kernels_per_layer(zoo: Path, tmp_path: Path) -> None:
    harvest([str(zoo)], tmp_path / "a", Settings(min_norm=0, per_layer=7))
    kernels, _, labels, done = read(tmp_path / "a" / "dense-3x3")
    assert kernels.counts() == {"train": 28, "validation": 14, "test": 14}
    assert {tensor["kernels"] for tensor in labels["tensors"]} == {7} and done["source"]["per_layer"] == 7
    harvest([str(zoo)], tmp_path / "b", Settings(min_norm=0, per_layer=7))
    assert torch.equal(kernels.train, KernelSet.load(tmp_path / "b" / "dense-3x3").train)
    harvest([str(zoo)], tmp_path / "c", Settings(min_norm=0, per_layer=7, seed=1))
    assert not torch.equal(kernels.train, KernelSet.load(tmp_path / "c" / "dense-3x3").train)


def test_a_checkpoint_counts_once(zoo: Path, tmp_path: Path) -> None:
    """A copy under other names is one, and so is one in half precision, which would leak from part to part."""
    first, again = network(), tmp_path / "zoos"
    shutil.copytree(zoo, again / "zoo")
    save_file({f"model.{name}": value for name, value in first.items()}, again / "copy.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        save_file({k: v.to(dtype) for k, v in first.items()}, again / f"{str(dtype)[6:]}.safetensors")
    save_file({"head": normal(3, 3)}, again / "linear.safetensors")
    found = harvest([str(again), str(zoo)], tmp_path / "out", EVERYTHING)
    whole = {item.checkpoint: (item.reason, item.detail) for item in found.left_out if not item.tensor}
    copy, name = "a copy of another checkpoint", again.name
    assert whole == {
        **{f"{name}/{file}.safetensors": (copy, "zoo/net0.safetensors") for file in ("copy", "float16", "bfloat16")},
        **{f"{name}/zoo/net{i}.safetensors": (copy, f"zoo/net{i}.safetensors") for i in range(4)},
        f"{name}/linear.safetensors": ("a checkpoint without a spatial convolution to take", ""),
    }
    names = [f"zoo/net{i}.safetensors" for i in range(4)]
    assert found.folders["dense-3x3"]["source"]["checkpoints"] == names
    report = json.loads((tmp_path / "out" / "harvest.json").read_text())
    assert report["checkpoints"] == names and len(report["left_out"]) == len(found.left_out)


def test_a_shared_layer_is_taken_once_and_makes_one_family(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The networks 0, 1 and 2 share a frozen layer, the last in half precision; a blur, which all have, joins none."""
    zoo, blur = tmp_path / "zoo", torch.ones(6, 1, 5, 5)
    zoo.mkdir()
    for i in range(5):
        frozen = normal(8, 8, 3, 3, seed=max(i - 2, 0))
        own = {"a": frozen.half() if i == 2 else frozen, "b": normal(8, 8, 3, 3, seed=9 + i), "blur": blur}
        save_file(own, zoo / f"{i}.safetensors")
    names = [f"zoo/{i}.safetensors" for i in range(5)]
    found = harvest([str(zoo)], tmp_path / "out", Settings(test=("*1.*",), raw_scale=True, size=(3, 3)))
    assert found.joined == {names[0]: names[1], names[2]: names[1]}
    source = found.folders["dense-3x3"]["source"]
    assert source["joined_families"] == found.joined and source["tensors"] == 8
    assert source["held_out_families"]["test"] == [names[1]]
    left_out = {(item.checkpoint, item.tensor): item.detail for item in found.left_out if "another" in item.reason}
    assert left_out == {
        **{(names[i], "a"): f"a of {names[0]}" for i in (1, 2)},
        **{(names[i], "blur"): f"blur of {names[0]}" for i in range(1, 5)},
    }
    kernels, arrays, _, _ = read(tmp_path / "out" / "dense-3x3")
    assert set(arrays["test.checkpoint"].tolist()) == {0, 1, 2}
    everything = torch.cat([kernels.train, kernels.validation, kernels.test])
    assert len(everything.unique(dim=0)) == len(everything)
    assert main(["kernels", "--from", str(zoo), "--out", str(tmp_path / "shown")]) == 0
    assert f"{names[1]} counts as one family with {names[0]}, because they share a layer" in capsys.readouterr().out


@pytest.mark.parametrize("rest", [3, 4])
def test_each_part_has_two_kernels(rest: int, tmp_path: Path) -> None:
    for i, n in enumerate((rest, 16)):
        save_file({"a": normal(1, n, 3, 3, seed=i)}, tmp_path / f"{i}.safetensors")
    settings = Settings(min_norm=0, test=("*1.*",))
    if rest == 4:
        done = harvest([str(tmp_path)], tmp_path / "out", settings).folders["dense-3x3"]
        assert done["kernels"] == {"train": 2, "validation": 2, "test": 16}
        return
    message = (
        "3 kernels to fit and validate and 16 of the families held out for the test, fewer than 2 a part; give ano"
    )
    with pytest.raises(ValueError, match=message + "ther --from, --kind or --size, or other families to --test"):
        harvest([str(tmp_path)], tmp_path / "out", settings)


def test_stems_of_other_channels_stand_apart(tmp_path: Path) -> None:
    for i, channels in enumerate((1, 3, 3, 4)):
        save_file({"conv1": normal(16, channels, 3, 3), "conv2": normal(2, 16, 3, 3)}, tmp_path / f"{i}.safetensors")
    save_file({"conv1": normal(16, 3, 3, 3, seed=1)}, tmp_path / "2.safetensors")
    found = harvest([str(tmp_path)], tmp_path / "out", Settings(kind="stem"))
    assert {name: len(done["source"]["checkpoints"]) for name, done in found.folders.items()} == {
        "stem-3x3": 2,
        "stem-3x3-c1": 1,
        "stem-3x3-c4": 1,
    }


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        ([], {"dense-3x3", "depthwise-5x5", "stem-7x7"}),
        (["--kind", "depthwise"], {"depthwise-5x5"}),
        (["--size", "3"], {"dense-3x3"}),
        (["--size", "7x7", "--kind", "stem"], {"stem-7x7"}),
        (["--kind", "transposed", "--transposed", "*.10.*"], {"transposed-3x3"}),
    ],
)
def test_command_line(
    words: list[str], folders: set[str], zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["kernels", "--from", str(zoo), "--out", str(out), *words]) == 0
    assert {path.name for path in out.iterdir()} - {LOCK} == folders | {REPORT}
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["kernels", "checkpoints", "tensors", "train", "validation", "test"]
    assert {line[0] for line in lines[1 : 1 + len(folders)]} == folders
    assert all(line[1] == "4" for line in lines[1 : 1 + len(folders)])
    assert "block.2.pointwise.weight of zoo/net0.safetensors: F32 (4, 4, 1, 1)" in shown
    assert f"--kernels {out / min(folders) / 'kernels.safetensors'} --out" in shown
    assert str(tmp_path) not in "".join(path.read_text() for path in out.rglob("*.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--size", "9"],
            "fewer than 10 9 kernels to take; there are dense-3x3 (176), depthwise-5x5 (48), stem-7x7 (64); ",
        ),
        (["--size", "3", "--kind", "stem"], "fewer than 10 3 stem kernels to take; there are dense-3x3"),
        (["--per-layer", "0"], "per_layer must be 1 or more; got 0"),
        (
            ["--per-layer", "1", "--size", "5"],
            "fewer than 10 5 kernels to take; there are dense-3x3 (8), depthwise-5x5 (4)",
        ),
        (["--min-norm", "1"], "min_norm, a fraction of the 95 % quantile of norms, lies in [0, 1); got 1.0"),
        (["--transposed", "up*"], "--transposed 'up*' matches no tensor; there are stem.conv.weight, block.2.conv"),
        (["--from", "{tmp}/cut.safetensors"], "cut.safetensors is not a complete safetensors file"),
    ],
)
def test_errors_can_be_mended(
    words: list[str], message: str, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    words = [word.format(tmp=tmp_path) for word in words]
    more = [] if "--min-norm" in words else ["--min-norm", "0"]
    assert main(["kernels", "--from", str(zoo), "--out", str(tmp_path / "out"), *more, *words]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: ") and message in shown
    assert not (tmp_path / "out").exists()


def test_a_size_that_is_none(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["kernels", "--from", "a", "--out", "b", "--size", "1x"])
    assert "a kernel size is a number, or one a side such as 1x7; got '1x'" in capsys.readouterr().err


def test_nothing_to_harvest_names_the_reasons(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 8, 3, 3, dtype=torch.int8), "b": normal(2, 8, 1, 1)}, tmp_path / "a.safetensors")
    message = (
        "fewer than 10 kernels to take; there are none at all; what was left out: 1×1, quantized, a checkpoint without"
    )
    with pytest.raises(ValueError, match=message):
        harvest([str(tmp_path)], tmp_path / "out", Settings())


def test_another_harvest_is_not_overwritten(zoo: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the same one may be written again
        harvest([str(zoo)], tmp_path / "out", Settings(kind="dense"))
    harvest([str(zoo)], tmp_path / "out", Settings(kind="stem"))
    before = (tmp_path / "out" / "stem-7x7" / "done.json").read_text()
    with pytest.raises(ValueError, match=r"stem-7x7/kernels\.safetensors holds other kernels; choose another --out"):
        harvest([str(zoo)], tmp_path / "out", Settings(kind="stem", raw_scale=True))
    assert (tmp_path / "out" / "stem-7x7" / "done.json").read_text() == before


@pytest.mark.parametrize("content", ['{"checkpoints": [', "[]", '{"origins": []}', "[" * 100_000])
def test_a_damaged_report_is_named_before_anything_is_written(content: str, zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / REPORT).write_text(content)
    with pytest.raises(ValueError, match=rf"{REPORT} is damaged; restore it, or remove it"):
        harvest([str(zoo)], tmp_path / "out", Settings())
    assert {path.name for path in (tmp_path / "out").iterdir()} - {LOCK} == {REPORT}


def test_two_harvests_into_a_folder_wait_for_each_other(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_json, others = harvests.write_json, [Settings(kind="stem")]

    def meanwhile(path: Path, content: object) -> None:
        if path.name == REPORT and others:
            with pytest.raises(OSError, match=r"another process is at work in .*out"), locked(out):
                pass
            others.clear()
        write_json(path, content)

    monkeypatch.setattr(harvests, "write_json", meanwhile)
    harvest([str(zoo)], out, Settings(kind="dense"))
    assert not others


def fit(kernels: Path, out: Path, *words: str) -> int:
    arguments = ["--kernels", str(kernels), "--out", str(out), "--smoke", "--device", "cpu", "--family", "gaussian"]
    return main(["fit", *arguments, *words])


def test_from_checkpoints_to_a_prior(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["kernels", "--from", str(zoo), "--out", str(tmp_path / "harvest"), "--kind", "dense"]) == 0
    file = tmp_path / "harvest" / "dense-3x3" / "kernels.safetensors"
    assert fit(file, tmp_path / "out") == 0
    kept, given = KernelSet.load(tmp_path / "out" / "kernels"), KernelSet.load(file.parent)
    assert all(torch.equal(value, getattr(given, name)) for name, value in vars(kept).items())
    prior = load_prior(tmp_path / "out" / "fit" / "prior")
    assert torch.allclose(prior.whitening.loc.flatten(), given.train.mean(0).flatten(), atol=1e-5)
    assert prior.details["license"] == "see the checkpoint's own licence"
    files = ", ".join(f"zoo/net{i}.safetensors" for i in range(4))
    said = f"\nThe dense kernels of 4 trained networks: {files}; those of the test, below, are not in the fit. "
    assert said in render_card(prior, "user/prior")
    source = prior.details["source"]
    assert source["checkpoints"] == [f"zoo/net{i}.safetensors" for i in range(4)]
    assert (source["kind"], source["size"], source["tensors"], source["split"]) == (
        "dense",
        [3, 3],
        8,
        "by family of checkpoints",
    )
    assert source["kernels"] == given.counts() and 0 < source["kept"] <= 1
    assert source["file"] == "dense-3x3/kernels.safetensors" and str(tmp_path) not in json.dumps(prior.details)
    assert [len(source["held_out_families"][part]) for part in ("validation", "test")] == [1, 1]
    mine = str(tmp_path / "out" / "fit" / "prior")
    assert main(["evaluate", "--prior", mine, "--kernels", str(file), "--smoke"]) == 0
    assert str(len(given.test)) in capsys.readouterr().out
    assert all(torch.equal(*pair) for pair in zip(read_reference(file), (given.train, given.test), strict=True))


def write_manifest(zoo: Path, *entries: dict[str, str]) -> Path:
    """A manifest next to a zoo, of its networks in order."""
    lines = []
    for i, entry in enumerate(entries):
        digest = hashlib.sha256((zoo / f"net{i}.safetensors").read_bytes()).hexdigest()
        fields = {"place": f"zoo/net{i}.safetensors", "sha256": digest} | entry
        lines += ["[[source]]", *(f'{key} = "{value}"' for key, value in fields.items())]
    (zoo.parent / "sources.toml").write_text("\n".join(lines))
    return zoo.parent / "sources.toml"


def test_what_a_manifest_says_goes_with_the_kernels(zoo: Path, tmp_path: Path) -> None:
    entries = [
        {"license": each, "family": "ab" if i < 2 else ""} for i, each in enumerate(("MIT", "MIT", "CC0-1.0", "ISC"))
    ]
    words = ["--from", str(write_manifest(zoo, *entries)), "--out", str(tmp_path / "out"), "--kind", "dense"]
    assert main(["kernels", *words]) == 0
    folder = tmp_path / "out" / "dense-3x3"
    _, _, labels, done = read(folder)
    report = json.loads((tmp_path / "out" / "harvest.json").read_text())
    assert labels["origins"] == done["source"]["origins"] == report["origins"]
    assert [each["license"] for each in report["origins"].values()] == ["MIT", "MIT", "CC0-1.0", "ISC"]
    assert report["origins"]["net0.safetensors"]["family"] == "ab" == labels["tensors"][0]["family"]
    assert "dataset" not in done["source"]
    assert fit(folder / "kernels.safetensors", tmp_path / "fit") == 0
    prior = load_prior(tmp_path / "fit" / "fit" / "prior")
    assert prior.details["license"] == "CC0-1.0 AND ISC AND MIT"
    assert "| net2.safetensors | CC0-1.0 |" in render_card(prior, "user/prior")
    assert check_sources(prior).endswith("CC0-1.0, ISC, MIT") and str(tmp_path) not in json.dumps(prior.details)


@pytest.mark.parametrize(
    ("trained_on", "expected"), [("2111", "1; 2"), ("1111", "1"), (("1", "1", "1", ""), None), ("111", None)]
)
def test_the_data_set_is_what_all_networks_were_trained_on(
    trained_on: Sequence[str], expected: str | None, zoo: Path, tmp_path: Path
) -> None:
    """It is not known if a manifest does not say it of one of them."""
    manifest = write_manifest(zoo, *({"trained_on": each} for each in trained_on))
    others = [str(zoo / f"net{i}.safetensors") for i in range(len(trained_on), 4)]
    found = harvest([str(manifest), *others], tmp_path / "out", Settings())
    assert {done["source"].get("dataset") for done in found.folders.values()} == {expected}


def test_stems_of_bgr_become_rgb(zoo: Path, tmp_path: Path) -> None:
    """Stems alone: the other layers of a network have no colours."""
    manifest = write_manifest(zoo, *({"channels": channels} for channels in ("RGB", "BGR", "")))
    harvest([str(manifest)], tmp_path / "out", EVERYTHING)
    for name, tensor, flipped in (("stem-7x7", "stem.conv", True), ("dense-3x3", "block.10.conv", False)):
        kernels, arrays, labels, _ = read(tmp_path / "out" / name)
        found = torch.cat([kernels.train, kernels.validation, kernels.test])
        places = torch.cat([arrays[f"{part}.tensor"] for part in ("train", "validation", "test")])
        for i, label in enumerate(labels["tensors"]):
            if label["tensor"] == f"{tensor}.weight":
                weight = load_file(zoo / label["checkpoint"])[label["tensor"]]
                expected = weight.flip(1) if flipped and label["checkpoint"] == "net1.safetensors" else weight
                mine = {tuple(kernel.flatten().tolist()) for kernel in found[places == i]}
                cut = expected if flipped else expected.flatten(0, 1)
                assert mine == {tuple(kernel.flatten().tolist()) for kernel in cut}


def test_a_split_file_keeps_its_parts(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    harvest([str(zoo)], tmp_path / "harvest", Settings(kind="dense"))
    file = tmp_path / "harvest" / "dense-3x3" / "kernels.safetensors"
    for setting in ("held_out=0.2", "seed=1"):
        assert fit(file, tmp_path / setting, f"kernels.{setting}") == 1
        message = f"is split already, so kernels.{setting} has no effect; drop it"
        assert message in capsys.readouterr().err.splitlines()[-1]
    stages = {"kernels": KernelFile.of(file)}
    run_stages(stages, Context(out=tmp_path / "out"))
    summary = file.parent / "done.json"
    summary.write_text(summary.read_text().replace("net0", "net9"))
    with pytest.raises(StageChangedError, match=r"data\.done\.json is '\w+' there"):  # what a prior would say of itself
        run_stages(stages, Context(out=tmp_path / "out"))
    summary.unlink()
    assert fit(file, tmp_path / "moved") == 1
    assert "put the done.json of its folder next to it" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("broken", ["cut", "other"])
def test_a_broken_split_file(broken: str, tmp_path: Path) -> None:
    file = tmp_path / "kernels.safetensors"
    save_file({"w": normal(20, 3, 3)}, file)
    if broken == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "done.json").write_text('{"made_with": {}}')
    message = "next to a done.json, is not a complete file of train, validation, test and test_network"
    with pytest.raises(ValueError, match=message):
        read_reference(file)
    with pytest.raises(ValueError, match=message):
        run_stages({"kernels": KernelFile.of(file)}, Context(out=tmp_path / "out"))
