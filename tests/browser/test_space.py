"""The demonstration in a browser: it draws, says what is wrong, and races to the end; it needs no other host."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import need
from tests.browser.visits import AXE, Visit
from training.publish.space import write_space

GUARD = Path(__file__).with_name("loopback_only.py")


def await_line(log: Path, line: str, running: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Waits for a line of the log of a program; fails with the log if the program ends before or takes too long."""
    end = time.monotonic() + seconds
    while line not in log.read_text("utf-8"):
        if running.poll() is not None or time.monotonic() > end:
            how = "runs" if running.poll() is None else f"ended with {running.returncode}"
            pytest.fail(f"no {line!r} in the log of a program that {how}:\n{log.read_text('utf-8')}")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the demonstration, which runs from a Space's own folder without a network."""
    for library in ("gradio", "timm", "sklearn"):
        need(find_spec(library), f"needs {library} of the space extra: pip install -e '.[space]'")
    folder = write_space(tmp_path_factory.mktemp("space"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "files")}
    log = folder / "log.txt"
    with log.open("w") as output:
        command = [sys.executable, str(GUARD), str(folder / "app.py")]
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        await_line(log, "Running on local URL", running)
        yield f"http://127.0.0.1:{port}/"
    finally:
        running.terminate()
        running.wait()
    assert "request to" not in log.read_text() and "Traceback" not in log.read_text()


@pytest.fixture
def demo(request: pytest.FixtureRequest, browsers: dict[str, Any], space: str) -> Iterator[Visit]:
    """The page on a desk, or where the parameter says; errors and requests to other hosts fail the test."""
    page = browsers[getattr(request, "param", "desktop light")].new_page()
    page.set_default_timeout(120_000)
    visit = Visit(page, space, wrong=("error",))  # Gradio's own translations warn
    page.goto(space)
    page.get_by_role("button", name="Draw kernels").wait_for()
    yield visit
    page.close()
    assert visit.faults == []


@pytest.mark.parametrize(("code", "how"), [("import no_such_library", "ended with 1"), ("input()", "runs")])
def test_a_demonstration_that_does_not_start_is_told_with_its_log(code: str, how: str, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        command = [sys.executable, "-c", f"print('starting', flush=True); {code}"]
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    with pytest.raises(pytest.fail.Exception, match=f"a program that {how}:\nstarting"):
        await_line(log, "Running", program, seconds=2 if how == "runs" else 60)
    program.communicate()


@pytest.mark.parametrize(("insist", "outcome"), [("insist", pytest.fail), ("", pytest.skip)])
def test_what_is_missing_fails_where_it_is_insisted_on(
    insist: str, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_TESTS", insist)
    with pytest.raises(outcome.Exception, match="needs gradio"):
        need(find_spec("no_such_library"), "needs gradio")


def choose(page: Any, label: str, value: str) -> None:
    """Enters a value into a list of choices."""
    field = page.get_by_label(label, exact=True).first
    field.fill(value)
    field.press("Enter")


def test_it_draws_and_shows_what_was_drawn(demo: Visit) -> None:
    page = demo.page
    page.get_by_role("button", name="Draw kernels").click()
    page.locator(".dwp table").first.wait_for()
    assert "1 of 17 spatial convolutions, under 1 % of their weights" in page.locator(".dwp").all_inner_texts()
    choose(page, "scale", "keep")  # with which natural draws dense layers in all networks
    page.get_by_role("button", name="Draw kernels").click()
    page.get_by_text("17 of 17 spatial convolutions, 100 % of their weights").first.wait_for()
    assert {"natural-stem", "tinyimagenet-3x3"} <= set(page.locator(".dwp td").all_inner_texts())
    alts = [picture.get_attribute("alt") for picture in page.locator(".dwp img").all()]
    assert alts == ["kernels of conv1: the model's own start", "kernels of conv1: drawn from the prior"]
    choose(demo.page, "kernels of the layer", "layer4.1.conv2")
    page.locator(".dwp img[alt='kernels of layer4.1.conv2: drawn from the prior']").wait_for()
    assert page.locator(".dwp svg.chart[aria-label^='Response']").count() == 1


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("architecture", "resnte18", "timm has no 'resnte18'; did you mean resnet18"),
        ("architecture", "resnet18(pretrained=True)", "must be a name of timm, such as resnet18; got 'resnet18(pre"),
        ("architecture", "vit_giant_patch14_224", "million parameters; this demonstration takes up to 100 million"),
        ("prior", "brain-mri", "3×3×3"),
    ],
)
def test_what_is_wrong_is_said_in_the_page(label: str, value: str, message: str, demo: Visit) -> None:
    choose(demo.page, label, value)
    demo.page.get_by_role("button", name="Draw kernels").click()
    said = demo.page.locator(".dwp [role=alert]")
    said.wait_for()
    assert message in said.inner_text() and demo.page.locator(".dwp img:visible").count() == 0


def start(page: Any, seeds: int = 2, seconds: int = 120) -> None:
    """Starts a race; the number of seeds tells it from others."""
    page.get_by_role("tab", name="Race").click()
    for label, number in (("seeds", seeds), ("seconds", seconds)):
        page.get_by_label(f"number input for {label}").fill(str(number))
        page.get_by_label(f"number input for {label}").press("Tab")
    page.get_by_role("button", name="Start the race").click()


@pytest.mark.parametrize("demo", ["phone dark"], indirect=True)
def test_it_races_to_the_end(demo: Visit) -> None:
    page = demo.page
    choose(page, "architecture", "test_resnet")
    start(page, seconds=20)
    page.get_by_text("Finished after").wait_for()
    chart = page.locator(".dwp svg.chart[aria-label^='Test accuracy after']")
    assert chart.count() == 1 and "ahead in" in page.get_by_text("Finished after").inner_text()
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_a_race_shows_that_it_builds_and_leaves_the_machine_when_it_is_stopped(demo: Visit) -> None:
    page = demo.page
    choose(page, "architecture", "resnet50")
    start(page)
    page.get_by_text("Building 4 networks").wait_for()
    assert page.locator(".dwp svg.chart[aria-label^='Test accuracy after 0 steps']").count() == 1
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped while building").wait_for()
    choose(page, "architecture", "test_resnet")  # races run one at a time
    start(page)
    page.get_by_text("Running after").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped after").wait_for()
    text = page.get_by_text("Stopped after").inner_text()
    page.wait_for_timeout(1500)
    assert page.get_by_text("Stopped after").inner_text() == text


@pytest.mark.parametrize("stop", [False, True])
def test_another_race_takes_the_place_of_one_that_runs(stop: bool, demo: Visit) -> None:
    page = demo.page
    choose(page, "architecture", "resnet50")
    start(page, seeds=2)
    page.get_by_text("Building 4 networks").wait_for()
    choose(page, "architecture", "test_resnet")
    if stop:
        page.get_by_role("button", name="Stop").click()
    start(page, seeds=3)  # while the first one ends with the network that it builds
    page.get_by_text("of 3 seeds").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped after").wait_for()


def test_a_race_that_waits_is_stopped_at_once_or_replaced(demo: Visit) -> None:
    other = demo.page.context.new_page()
    other.goto(demo.page.url)
    choose(other, "architecture", "test_resnet")
    start(other, seconds=300)
    other.get_by_text("Running after").wait_for(timeout=120_000)
    choose(demo.page, "architecture", "test_resnet")
    start(demo.page, seeds=2)
    demo.page.get_by_text("Waiting until other races have ended.").wait_for()
    demo.page.get_by_role("button", name="Stop").click()
    demo.page.get_by_text("Stopped before it began.").wait_for(timeout=20_000)
    for seeds in (3, 4):
        start(demo.page, seeds=seeds)
        demo.page.get_by_text("Waiting until other races have ended.").wait_for()
    assert other.get_by_text("Running after").count() == 1
    start(other)  # ends its race, and waits at the end of the queue
    demo.page.get_by_text("of 4 seeds").wait_for()
    assert other.get_by_text("Waiting until other races have ended.").count() == 1
    other.close()
    demo.page.get_by_role("button", name="Stop").click()
    demo.page.get_by_text("Stopped after").wait_for()
    demo.page.wait_for_timeout(1500)  # the places of the races that were replaced show nothing
    assert demo.page.get_by_text("Stopped after").count() == 1


@pytest.mark.parametrize("demo", ["desktop light", "desktop dark", "phone light", "phone dark"], indirect=True)
def test_it_stays_in_place_fits_the_screen_and_can_be_read_by_all(demo: Visit) -> None:
    need(AXE.exists(), "needs axe-core in build/axe: npm pack axe-core")
    page = demo.page
    assert demo.shifts() < 0.01
    page.get_by_role("button", name="Draw kernels").click()
    page.locator(".dwp table").first.wait_for()
    assert demo.serious_faults() == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.get_by_role("tab", name="Race").click()
    page.get_by_role("button", name="Start the race").wait_for()
    assert demo.serious_faults() == []
