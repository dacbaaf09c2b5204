import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_there_are_two_python_blocks_and_two_starting_commands() -> None:
    assert len(_blocks("python")) == 2
    start = README.split("## Start")[1].split("## Use")[0]
    commands = re.findall(r"```bash\n(.*?)```", start, re.DOTALL)
    assert len(commands) == 2
    assert all(len(command.splitlines()) == 1 for command in commands)
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_it_is_short_and_its_links_exist() -> None:
    assert len(README.splitlines()) <= 120
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_tree_has_the_files_of_the_package_and_the_folders_of_the_pipeline() -> None:
    listed, folder = set(), Path()
    for line in re.findall(r"```\n(dwp_init/.*?)```", README, re.DOTALL)[0].splitlines():
        inside = folder if line.startswith(("├", "└")) else Path()
        paths = [inside / name for name in re.split(r" {2,}", line.lstrip("├└─ "))[0].split()]
        folder = folder if inside.parts else paths[0]
        listed |= set(paths)
    files = {path.relative_to(ROOT) for path in (*ROOT.glob("dwp_init/[!_]*.py"), *ROOT.glob("training/[!_]*.py"))}
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("training/*/__init__.py")}
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert files - {Path("dwp_init/version.py")} | folders <= listed


def test_the_files_that_the_guide_names_exist() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:dwp_init|training|tests|\.ci)/[\w./*-]+)`", guide))
    assert len(paths) >= 20
    assert [path for path in sorted(paths) if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_tests_that_continuous_integration_names_exist() -> None:
    scripts = [*(ROOT / ".ci").iterdir(), *(ROOT / ".github" / "workflows").iterdir()]
    named = {
        path
        for script in scripts
        if script.is_file()
        for path in re.findall(r"tests(?:/[\w.]+)+", script.read_text("utf-8"))
    }
    assert len(named) >= 10
    assert [path for path in sorted(named) if not path.endswith("/test_") and not (ROOT / path).exists()] == []
