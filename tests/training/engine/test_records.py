import json
import math
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from training.engine.records import (
    RESULTS,
    ROOT,
    check_archive,
    check_outputs,
    load_checkpoint,
    order_metrics,
    print_table,
    read_done,
    read_metrics,
    read_table,
    record_metrics,
    save_checkpoint,
    write_done,
    write_metrics,
    write_table,
)


def test_metrics_survive_a_line_cut_short(tmp_path: Path) -> None:
    record_metrics(tmp_path, step=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    record_metrics(tmp_path, step=3)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_row_takes_no_longer_where_many_rows_are(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b" " * 2**25 + b"\n")
    tracemalloc.start()
    record_metrics(tmp_path, step=1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20  # bytes, of a file of 2**25
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_flipped_bit_of_a_row_loses_it_and_never_changes_it(tmp_path: Path) -> None:
    rows = [{"seed": 0, "loss": 0.25}, {"seed": 1, "loss": math.inf}]
    for row in rows:
        record_metrics(tmp_path, **row)
    whole, lost = (tmp_path / "metrics.jsonl").read_bytes(), 0
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "metrics.jsonl").write_bytes(flipped)
        found = read_metrics(tmp_path)
        assert all(row in rows for row in found)
        lost += len(found) < 2
    assert lost > 7 * len(whole)


def test_all_rows_are_replaced_or_put_in_order_and_none_is_there_twice(tmp_path: Path) -> None:
    write_metrics(tmp_path, [])
    assert not list(tmp_path.iterdir())
    rows = [{"seed": seed} for seed in range(3)]
    (tmp_path / "metrics.jsonl").write_text('{"seed": 2}\n{"seed": 0}\n')  # of an older version
    for row in (rows[1], rows[1]):
        record_metrics(tmp_path, **row)
    order_metrics(tmp_path, rows)
    assert read_metrics(tmp_path) == rows
    content = (tmp_path / "metrics.jsonl").read_bytes()
    write_metrics(tmp_path, [])
    record_metrics(tmp_path, **rows[0])
    assert content.startswith((tmp_path / "metrics.jsonl").read_bytes())


def test_a_summary_that_lacks_what_is_needed(tmp_path: Path) -> None:
    write_done(tmp_path, {"count": 3})
    assert read_done(tmp_path, "count") == {"count": 3}
    with pytest.raises(ValueError, match=r"done.json has no source, so .*, or remove .* to make it again"):
        read_done(tmp_path, "source")


def test_archives_are_compared_with_their_checksums(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(64)}, tmp_path / "a.pt")
    check_archive(tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content.replace(b"\x3f\x00\x00\x80", b"\x3f\x00\x00\x81", 1))
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        check_archive(tmp_path / "a.pt")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(64)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    check_archive(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10**6))
    with pytest.raises(zipfile.BadZipFile, match=r"would unpack to 1,000,000 bytes, more than 10 times its 1,\d+"):
        check_archive(tmp_path / "bomb.pt")


def test_a_broken_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"epoch": 3})
    assert load_checkpoint(tmp_path / "a.pt") == {"epoch": 3}
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:50])
    with pytest.raises(ValueError, match="is not a complete checkpoint; remove it to start that part again"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_flipped_bit_of_a_checkpoint_changes_nothing_silently(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"epoch": 3, "weight": torch.arange(64.0)})
    whole, resumed = (tmp_path / "a.pt").read_bytes(), 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (tmp_path / "a.pt").write_bytes(flipped)
        try:
            state = load_checkpoint(tmp_path / "a.pt")
        except ValueError:
            continue
        resumed += 1  # a byte that no reader takes, such as a date
        assert state["epoch"] == 3 and torch.equal(state["weight"], torch.arange(64.0))
    assert resumed < len(whole) / 2


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff{"step": 2}\n3\n' + b"[" * 100_000 + b'\n{"step": 4}\n')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 4}]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    (folder / "prior").mkdir(parents=True)
    for name in ("config.json", "prior/model.bin", ".lock"):
        (folder / name).write_text("{}")
    write_done(folder, {"count": 3, "nothing": math.nan})
    return folder


def test_a_summary_states_what_a_stage_left(finished: Path) -> None:
    assert read_done(finished).keys() == {"count", "nothing"}
    assert json.loads((finished / "done.json").read_text())["outputs"].keys() == {"config.json", "prior/model.bin"}
    (finished / "prior" / "README.md").write_text("a card, which its owner may add")
    check_outputs(finished)


@pytest.mark.parametrize("name", ["config.json", "prior/model.bin"])
def test_outputs_that_changed_are_named(finished: Path, name: str) -> None:
    (finished / name).write_text("{ }")
    with pytest.raises(ValueError, match=rf"{name} has changed: its sha256 is .*, or remove {finished} to make it"):
        check_outputs(finished)
    (finished / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing, which done.json names; restore it, or remove"):
        check_outputs(finished)


def test_a_flipped_bit_of_a_summary_is_found_in_every_byte(finished: Path) -> None:
    whole = (finished / "done.json").read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (finished / "done.json").write_bytes(flipped)
        with pytest.raises(ValueError, match=r"done.json is damaged; restore it, or remove .*stage to make it again"):
            read_done(finished)


def test_a_summary_of_an_older_version_is_read(finished: Path) -> None:
    old = {"count": 3, "made_with": {"torch": "2"}}
    (finished / "done.json").write_text(json.dumps(old))
    assert read_done(finished) == old
    check_outputs(finished)


@pytest.mark.parametrize("other", [{}, {"stage": "Sources", "fingerprint": "0" * 64}, {"family": "gaussian"}])
def test_another_file_in_place_of_a_summary_is_none(finished: Path, other: dict[str, str]) -> None:
    (finished / "done.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=rf"done.json does not say .* so it is no summary; .*, or remove {finished}"):
        check_outputs(finished)


def test_tables_are_read_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"init": "dwp, 7×7", "accuracy": 97.5, "sd": ""}, {"init": "b", "accuracy": 8.25, "sd": 0.5}]
    write_table(tmp_path / "record" / "a.csv", rows)
    assert (tmp_path / "record" / "a.csv").read_bytes() == 'init,accuracy,sd\n"dwp, 7×7",97.5,\nb,8.25,0.5\n'.encode()
    assert read_table(tmp_path / "record" / "a.csv")[1] == {"init": "b", "accuracy": "8.25", "sd": "0.5"}
    print_table(rows)
    assert capsys.readouterr().out == "  init      accuracy  sd\n  dwp, 7×7  97.5\n  b         8.25      0.5\n"


def test_a_missing_table_names_the_recipes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*none\.csv; run the recipe that records it"):
        read_table(tmp_path / "none.csv")


def test_the_results_of_record_are_in_the_clone() -> None:
    assert (ROOT / "pyproject.toml").exists() and (RESULTS / "converge_mnist.csv").exists()
