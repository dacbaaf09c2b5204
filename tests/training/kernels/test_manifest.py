"""Manifests: strict keys and types, and messages that name the entry."""

from pathlib import Path

import pytest

from training import recipes
from training.kernels.manifest import Origin, read_manifest

DIGEST = "0123456789abcdef" * 4
MINIMAL = f'[[source]]\nplace = "a.pth"\nsha256 = "{DIGEST}"\n'
FULL = """license = "apache-2.0 and mit"
attribution = "Somebody"
trained_on = "ImageNet"
accuracy = "75.1 % top-1"
channels = "BGR"
family = "nets"
domain = "photographs"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sources.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_field(tmp_path: Path) -> None:
    other = f'[[source]]\nplace = "b.pth"\nsha256 = "{DIGEST}"\n'
    assert read_manifest(write(tmp_path, MINIMAL + FULL + other)) == [
        Origin(
            place="a.pth",
            sha256=DIGEST,
            license="Apache-2.0 AND MIT",
            attribution="Somebody",
            trained_on="ImageNet",
            accuracy="75.1 % top-1",
            channels="BGR",
            family="nets",
            domain="photographs",
        ),
        Origin("b.pth", DIGEST),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[source]", r"sources\.toml is not TOML \(.*\); correct it"),
        ("", r"a manifest is tables \[\[source\]\] and nothing else; .* has source = None"),
        ("source = 1", "has source = 1"),
        ("source = []", r"has source = \[\]"),
        ("[source]", r"has source = \{\}"),
        (f"x = 1\n{MINIMAL}", r"and nothing else; .* has x"),
        ("[[source]]", r'entry 1 of .*sources\.toml needs place = "…", a text; got None'),
        (f"{MINIMAL}accuracy = 75.1", r'needs accuracy = "…", a text; got 75\.1'),
        (f'{MINIMAL}licence = "MIT"', "has 'licence', which is no field; the fields are place, sha256, license, "),
        (MINIMAL.replace("0", "g"), "has sha256 = 'g1.*'; a digest is 64 digits of 0-9 and a-f"),
        (f'{MINIMAL}channels = "rgb"', "has channels = 'rgb'; they are 'RGB', 'BGR' or"),
        (f'{MINIMAL}license = "BSD-2"', r"has license = 'BSD-2', which is no SPDX expression \(.*\); see spdx\.org"),
        (MINIMAL * 2, r"names a\.pth twice; remove an entry"),
    ],
)
def test_errors_can_be_mended(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_manifest(write(tmp_path, text))


MANIFESTS = sorted(Path(recipes.__path__[0]).glob("*_sources.toml"))


def test_manifests_of_the_recipes_have_licences() -> None:
    names = ["audio", "brain_mri", "faces", "natural", "restoration", "unseen"]
    assert [path.name.removesuffix("_sources.toml") for path in MANIFESTS] == names
    for origin in [origin for path in MANIFESTS for origin in read_manifest(path)]:
        assert origin.license and origin.attribution and origin.trained_on and origin.domain
