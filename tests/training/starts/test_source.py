from pathlib import Path

import pytest

from training.starts.base import STARTS
from training.starts.source import source_of


@pytest.mark.parametrize("start", [start for start in STARTS if not STARTS[start].files])
def test_starts_from_priors_have_the_digest_of_these(start: str) -> None:
    found = source_of(start, ("natural",), None)
    if "priors" in STARTS[start].needs:
        assert len(found) == 12 and int(found, 16) and found == source_of("dwp", ("natural",), None)
        assert found != source_of(start, ("notmnist-7x7",), None) != source_of(start, ("notmnist-5x5",), None)
    else:
        assert found == source_of(start, (), None) == ""


def test_starts_from_files_have_the_digest_of_these(folder: Path) -> None:
    filters, network = (source_of(start, (), folder) for start in ("master filters", "trained network"))
    assert len({filters, network, source_of("natural", ("natural",), folder)}) == 3
    (folder / "others" / "master_filters.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no master_filters.txt in"):
        source_of("master filters", (), folder)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("He", "inits must be some of own; .*; got He"),
        ("natural", "natural cannot be drawn from nothing: name priors="),
        ("master filters", "master filters cannot be drawn from nothing: name the folder of its files in folder="),
    ],
)
def test_helpful_errors(start: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source_of(start, (), None)
