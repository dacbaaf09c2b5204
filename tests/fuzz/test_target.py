"""The judge notices each kind of fault, and a short run over all targets finds none."""

import dataclasses
import itertools
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

import dwp_init
from dwp_init.storage import tensor_bytes
from tests.fuzz import checkpoints, hub_answers, run_folders
from tests.fuzz.__main__ import TABLE, commit_of, main
from tests.fuzz.checkpoints import network, packed
from tests.fuzz.kills import read
from tests.fuzz.target import FAULTS, Differs, Outcome, Tally, Target, examine, judge
from tests.fuzz.targets import TARGETS
from training.kernels.kernelset import KernelSet
from training.kernels.read import read_split


@pytest.mark.training
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_no_fault(name: str, tmp_path: Path) -> None:
    target, tally, numbers = TARGETS[name], Tally(), itertools.count()

    def act(case: Any) -> None:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        verdict = judge(target, case, folder)
        assert verdict.outcome not in FAULTS, verdict
        tally.add(verdict)

    examine(target, target.tries, None, act)
    assert tally.counts["refused"] and tally.counts["same"] + tally.counts["as stated"], tally.counts


def raising(error: BaseException) -> Any:
    def attempt(case: Any, folder: Path) -> Outcome:
        raise error

    return attempt


def large(case: Any, folder: Path) -> Outcome:
    bytearray(b"x" * 200 * 2**20)
    return "same"


def long(case: Any, folder: Path) -> Outcome:
    end = time.process_time() + 0.1
    while case and time.process_time() < end:
        pass
    time.sleep(0 if case else 60)
    return "same"


@pytest.mark.parametrize(
    ("attempt", "outcome", "detail"),
    [
        (lambda case, folder: "same", "same", ""),
        (raising(Differs("other tensors")), "silent", "other tensors"),
        (raising(KeyError("source")), "crash", "KeyError: 'source'"),
        (raising(ValueError("a number is wrong")), "crash", "that names no file"),
        (raising(ValueError("")), "crash", "a message of 0 characters"),
        (large, "large", " MB"),
    ],
)
def test_faults_are_noticed(attempt: Any, outcome: str, detail: str, tmp_path: Path) -> None:
    verdict = judge(Target("any", st.none, attempt), None, tmp_path)
    assert verdict.outcome == outcome and detail in verdict.detail


def damaged(out: Path) -> None:
    raise ValueError(f"{out / 'a'} is damaged; remove it")


def other(path: Path) -> KernelSet:
    found = read_split(path)
    return dataclasses.replace(found, train=3 * found.train + 1)


@pytest.mark.parametrize(
    ("name", "part", "case", "detail"),
    [
        (
            "answers of the Hub",
            (hub_answers, "load_prior", lambda *_, **__: dwp_init.load_prior("away")),
            [],
            "without faults, ",
        ),
        ("run folders, damaged bytes", (run_folders, "run", damaged), {"a": b""}, "removed as the error says"),
        *[
            (
                f"checkpoints, {kind}",
                (checkpoints, "read_split", other),
                (form, packed(network(), form)),
                "other kernels",
            )
            for kind in ("damaged bytes", "other tensors")
            for form in checkpoints.FORMATS
        ],
    ],
)
def test_targets_notice_what_must_not_be(
    name: str, part: Any, case: Any, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*part)
    verdict = judge(TARGETS[name], case, tmp_path)
    assert verdict.outcome == "silent" and detail in verdict.detail


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda: dwp_init.load_prior("no-such-prior"), "refused"),
        (lambda: torch.ones(2).view(3), "crash"),
        (lambda: tensor_bytes(torch.ones(1).to("meta")), "crash"),  # compiled code fails, called by the project
    ],
)
def test_an_error_that_names_no_file_is_the_project_s_own(act: Any, outcome: str, tmp_path: Path) -> None:
    target = Target("any", st.none, lambda case, folder: act(), (ValueError, RuntimeError), names=False)
    verdict = judge(target, None, tmp_path)
    assert verdict.outcome == outcome and (outcome == "refused" or "has not raised: " in verdict.detail)


@pytest.mark.parametrize("case", [True, False])
def test_what_takes_too_long_is_noticed_and_ended(case: bool, tmp_path: Path) -> None:
    start = time.monotonic()
    assert judge(Target("any", st.none, long, seconds=0.02), case, tmp_path).outcome == "slow"
    assert time.monotonic() - start < 5


def test_an_error_that_names_the_folder_is_a_refusal(tmp_path: Path) -> None:
    error = ValueError(f"{tmp_path}/config.json is no JSON; get it again")
    assert judge(Target("any", st.none, raising(error)), None, tmp_path).outcome == "refused"
    error = ValueError(f"{tmp_path} holds {'x' * 5000}")
    assert judge(Target("any", st.none, raising(error)), None, tmp_path).outcome == "crash"


def test_a_seed_gives_other_inputs_and_none_the_same_ones() -> None:
    found: list[list[int]] = []
    for seed in (None, None, 1, 2):
        found.append([])
        examine(Target("numbers", lambda: st.integers(), long), 20, seed, found[-1].append)
    assert found[0] == found[1] != found[2] != found[3]


def test_the_table_has_one_run_of_each_kind(tmp_path: Path) -> None:
    words = ["--only", "data sets", "--results", str(tmp_path), "--tries"]
    assert main([*words, "3"]) == main([*words, "5", "--seed", "7"]) == 0
    (row,) = read(tmp_path / TABLE)
    assert row["kind"] == "kernel data sets, damaged bytes" and row["tries"] == "5"
    assert row["commit"] == commit_of(Path(__file__).parent)
    assert int(row["refused"]) + int(row["same"]) == 5 and row["crash"] == row["silent"] == "0"
    assert main(["--only", "files, other", "nothing", "--results", str(tmp_path), "--tries", "2"]) == 0
    assert [row["tries"] for row in read(tmp_path / TABLE)] == ["5", "2"]


def test_the_commit_of_a_run(tmp_path: Path) -> None:
    run = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"]):
        subprocess.run([*run, *words], check=True)
    commit = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    found = commit_of(tmp_path)
    assert len(found) >= 7 and commit.startswith(found)
    (tmp_path / "a").touch()
    subprocess.run([*run, "add", "a"], check=True)
    assert commit_of(tmp_path) == f"{found}+"


def test_the_command_tells_of_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "bad", Target("bad", st.none, raising(KeyError("source")), tries=1))
    assert main(["--only", "bad", "--tries", "1", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "crash: KeyError: 'source'\n"
    assert [row["crash"] for row in read(tmp_path / TABLE)] == ["1"]
