from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.engine.stage import Context


def test_a_data_set_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each split and each context, with the context's options."""
    loaded = []

    def load(name: str, split: str, **options: Any) -> list[str]:
        loaded.append((name, split, *options.values()))
        return [name, split]

    monkeypatch.setattr("training.engine.stage.load_images", load)
    context = Context(out=tmp_path, data_root=tmp_path, download=True)
    train = context.images("mnist", "train")
    assert context.images("mnist", "test") == ["mnist", "test"] and context.images("mnist", "train") is train
    other = replace(context, smoke=True)
    assert other.images("mnist", "train") is not train
    both = [("mnist", "train", tmp_path, True, False), ("mnist", "test", tmp_path, True, False)]
    assert loaded == [*both, ("mnist", "train", tmp_path, True, True)]
