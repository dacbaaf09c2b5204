"""The folder of the demonstration for a Space of the Hugging Face Hub, which has all that it imports.

python -m training.publish.space build/space
"""

import shutil
import sys
from pathlib import Path

from training.engine.records import ROOT

SPACE_TOP = ("app.py", "README.md", "requirements.txt")  # files of space/ that a Space has at its top
SPACE_PARTS = ("LICENSES", "dwp_init", "space", "training/figures", "training/networks")
SPACE_FILES = ("LICENSE", "training/__init__.py")


def write_space(folder: Path) -> Path:
    """Writes the folder; returns its path.

    Args:
        folder: It must not exist, or be empty.

    Raises:
        ValueError: It has files already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} has files already; remove it, or name another folder")
    unwanted = shutil.ignore_patterns("__pycache__", *SPACE_TOP)
    for part in SPACE_PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=unwanted, dirs_exist_ok=True)
    for name in SPACE_FILES:
        shutil.copyfile(ROOT / name, folder / name)
    for name in SPACE_TOP:
        shutil.copyfile(ROOT / "space" / name, folder / name)
    return folder


if __name__ == "__main__":
    print(write_space(Path(sys.argv[1])))
