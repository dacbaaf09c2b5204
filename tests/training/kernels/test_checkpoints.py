"""A checkpoint under its names, and the order of numbers in names."""

from pathlib import Path

from training.kernels.checkpoints import Checkpoint, natural


def test_numbers_are_sorted_as_numbers() -> None:
    found = sorted(["block.10.w", "block.2.w", "10", "block.2.10.w", "block.2.9.w", "9", "a10b", "a9b10"], key=natural)
    assert found == ["9", "10", "a9b10", "a10b", "block.2.9.w", "block.2.10.w", "block.2.w", "block.10.w"]


def test_a_checkpoint_is_a_family_of_its_own() -> None:
    one, sibling = Checkpoint("one", ()), Checkpoint("two", (), family="one")
    assert (one.family, one.renamed("other").family) == ("one", "other")
    assert (sibling.family, sibling.renamed("other").family) == ("one", "one")


def test_the_order_is_that_of_the_format() -> None:
    ordered = {name: Checkpoint(name, (Path(name),)).ordered for name in ("a.safetensors", "a.pth", "a.onnx")}
    assert ordered == {"a.safetensors": False, "a.pth": True, "a.onnx": True}
