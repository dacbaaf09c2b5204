from pathlib import Path

import pytest

from training.publish import guard


def test_the_records_the_bundled_priors_and_every_page_are_as_committed() -> None:
    assert guard.faults() == []


def test_the_manifest_covers_every_record_and_every_bundled_prior() -> None:
    names = [line.partition("  ")[2] for line in guard.MANIFEST.read_text().splitlines()]
    assert names == sorted(set(names))
    assert {"training/results/fig4b.csv", "dwp_init/bundled/notmnist-7x7/model.safetensors"} <= set(names)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "training/results").mkdir(parents=True)
    (tmp_path / "training/results/a.csv").write_text("step\n1\n")
    (tmp_path / "card.md").write_text("as rendered\n")
    monkeypatch.setattr(guard, "ROOT", tmp_path)
    monkeypatch.setattr(guard, "MANIFEST", tmp_path / "training/results.sha256")
    monkeypatch.setattr(guard, "pages", lambda: {tmp_path / "card.md": "as rendered\n"})
    guard.update()
    return tmp_path


def test_it_finds_a_changed_a_missing_and_a_new_record_and_a_stale_page(copy: Path) -> None:
    guard.check()
    (copy / "training/results/b.csv").write_text("step\n")
    (copy / "training/results/.DS_Store").write_text("of Finder")
    (copy / "card.md").write_text("edited\n")
    assert guard.faults() == [
        "training/results/b.csv is not in results.sha256",
        "card.md differs from what is rendered now",
    ]
    (copy / "training/results/a.csv").write_text("step\n2\n")
    assert guard.faults()[0] == "training/results/a.csv has changed"
    (copy / "training/results/a.csv").unlink()
    assert guard.faults()[0] == "training/results/a.csv is missing"
    with pytest.raises(ValueError, match=r"a\.csv is missing.*python -m training check --update"):
        guard.check()
