from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="needs the docs extra: pip install -e '.[docs]'")

import griffe

from training.publish.docstrings import RolesToLinks

MODULE = '''
class Prior:
    def sample(self):
        """Draws as :meth:`fit` says, see :func:`apply_` and ``code``; :class:`dwp_init.Prior`."""

    def fit(self): ...
'''


def test_roles_become_links_to_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(MODULE)
    loader = griffe.GriffeLoader(search_paths=[tmp_path], extensions=griffe.load_extensions(RolesToLinks))
    text = loader.load("toy")["Prior.sample"].docstring.value
    assert '<autoref identifier="toy.Prior.fit" optional><code>fit</code></autoref> says' in text
    assert '<autoref identifier="apply_" optional><code>apply_</code></autoref> and ``code``' in text
    assert '<autoref identifier="dwp_init.Prior" optional><code>Prior</code></autoref>' in text
