"""From a name to a prior: the registry and the priors bundled with the package."""

import difflib
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from dwp_init.files import read_prior
from dwp_init.priors import Prior

_PACKAGE = Path(__file__).parent
REGISTRY = _PACKAGE / "registry.json"
BUNDLED = _PACKAGE / "bundled"
_REPO = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def list_priors() -> list[str]:
    """Returns the names of the priors that come with this version, sorted; needs no network."""
    return sorted(registry())


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Returns ``registry.json``: for each name its kernel shape, family, source, licence and the files' sha256."""
    return json.loads(REGISTRY.read_text())


def load_prior(name_or_folder: str | Path) -> Prior:
    """Loads a prior, in evaluation mode on the CPU.

    Args:
        name_or_folder: A name from :func:`list_priors`, or a folder that :func:`dwp_init.save_prior` wrote. A name
            wins over a folder of the same name; write ``./name`` for the folder.

    Returns:
        The prior; ``details["name"]`` says what it is called.

    Raises:
        ValueError: There is no such prior, or its files are corrupt or of a newer format.
        FileNotFoundError: The folder lacks one of the files.
        NotImplementedError: It is a Hugging Face Hub repository, which this version cannot fetch.
        TypeError: The argument is neither a string nor a path.
    """
    if not isinstance(name_or_folder, (str, Path)):
        raise TypeError(f"a prior's name or folder is a str or a Path; got {type(name_or_folder).__name__}")
    name = str(name_or_folder)
    if isinstance(name_or_folder, str) and name in registry():
        folder, sha256 = BUNDLED / name, registry()[name]["sha256"]
    elif os.path.isdir(name_or_folder):
        folder, sha256 = Path(name_or_folder), None
    else:
        raise _unknown(name_or_folder)
    prior = read_prior(folder, sha256)
    prior.details.setdefault("name", folder.resolve().name)
    return prior


def _unknown(name_or_folder: str | Path) -> Exception:
    name = str(name_or_folder)
    names = list_priors()
    if isinstance(name_or_folder, Path) and name in names:
        return ValueError(f"no folder is called {name!r}, but a bundled prior is: pass the str {name!r}, not a Path")
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(names) or 'none'}"
    if isinstance(name_or_folder, str) and _REPO.fullmatch(name) and not name.startswith("."):
        return NotImplementedError(
            f"{name!r} is no folder here, and fetching it from the Hugging Face Hub is not supported yet: download "
            f"the repository and pass its folder; of the bundled priors, {hint}"
        )
    return ValueError(f"no prior and no folder is called {name!r}; {hint}")
