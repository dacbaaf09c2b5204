import re
from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"model": nn.Sequential(nn.Conv2d(1, 4, 7), nn.ReLU(), nn.Conv2d(4, 8, 5))}
    exec(code, names)
    if "report" in names:
        assert names["report"].initialized == ["0", "2"]


def test_there_are_two_python_blocks_and_two_starting_commands() -> None:
    assert len(_blocks("python")) == 2
    start = README.split("## Start")[1].split("## Use")[0]
    commands = re.findall(r"```bash\n(.*?)```", start, re.DOTALL)
    assert len(commands) == 2
    assert all(len(command.splitlines()) == 1 for command in commands)
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_it_is_short_and_its_links_and_files_exist() -> None:
    assert len(README.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []
    tree = README.split("## Files")[1]
    listed = set(re.findall(r"[\w./]+\.(?:py|json|md)\b|\.ci/run|\w+/", tree))
    for path in (*ROOT.glob("dwp_init/*.py"), *ROOT.glob("training/*.py")):
        assert path.name.startswith("__") or path.name == "version.py" or path.name in listed, (
            f"{path} is not in the tree"
        )
