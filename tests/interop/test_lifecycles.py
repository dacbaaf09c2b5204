"""The life-cycle table: each wrapper has the outcome that the table says, and the table is recorded."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed

from tests.interop import processes
from tests.interop.lifecycles import RESULTS, TABLE, Lifecycle, rows

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]  # of other libraries
LIMIT = 200  # seconds


@pytest.mark.parametrize("case", TABLE, ids=[case.name for case in TABLE])
def test_outcome(case: Lifecycle) -> None:
    pytest.importorskip(case.needs)
    assert case.run() == case.outcome


@pytest.mark.skipif(not distributed.is_available() or sys.platform == "win32", reason="needs gloo")
@pytest.mark.parametrize("count", processes.COUNTS)
def test_processes(count: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.interop.processes", str(count), str(tmp_path)]
    paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    subprocess.run(command, timeout=LIMIT, env={**os.environ, "PYTHONPATH": paths}, check=True)
    for rank in range(count):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == {name: expected for name, (expected, _) in processes.CASES.items()}


def test_the_table_is_recorded() -> None:
    if not RESULTS.exists():
        pytest.skip("runs in a clone, where the record is")
    with RESULTS.open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == rows()
