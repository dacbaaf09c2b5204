"""Manifests: where checkpoints come from, under which licence, and what their networks were trained on."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import tomli
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from dwp_init.errors import without_secrets

ChannelOrder = Literal["RGB", "BGR", ""]
_TABLES = "source"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """What a manifest says of a checkpoint; empty text stands for what is not known.

    Args:
        place: Where it is, as for :func:`training.kernels.places.find_checkpoints`: one file.
        sha256: Digest of the file.
        license: An SPDX expression, such as ``Apache-2.0``. Without one, what is fitted to it cannot be published.
        attribution: Whom the licence asks to name, or whom to thank.
        trained_on: The data.
        accuracy: As its makers report it, such as ``75.1 % top-1``.
        channels: The order of the channels of its images. Stems of ``BGR`` are turned into RGB.
        family: Checkpoints of one family stay together where kernels are split.
        domain: What the images show, or are, such as ``photographs``.
    """

    place: str
    sha256: str
    license: str = ""
    attribution: str = ""
    trained_on: str = ""
    accuracy: str = ""
    channels: ChannelOrder = ""
    family: str = ""
    domain: str = ""

    def recorded(self) -> dict[str, str]:
        """Returns the fields that say something, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def check(self, sha256: str) -> None:
        """Raises ValueError if the file has another digest."""
        if sha256 != self.sha256:
            raise ValueError(
                f"{without_secrets(self.place)} has SHA-256 {sha256}, the manifest says {self.sha256}; get the file "
                "that the manifest means, or correct the entry"
            )


def read_manifest(path: Path) -> list[Origin]:
    """Reads a manifest, TOML with a table ``[[source]]`` for each checkpoint.

    Raises:
        ValueError: It is not TOML, or an entry lacks a field, or has an unknown one or one of another form.
    """
    try:
        content = tomli.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # that of TOML, or of UTF-8
        raise ValueError(f"{path} is not TOML ({error}); correct it") from error
    tables = content.pop(_TABLES, None)
    if content or not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        found = ", ".join(content) or f"{_TABLES} = {tables!r}"
        raise ValueError(f"a manifest is tables [[{_TABLES}]] and nothing else; {path} has {found}")
    origins = [_read_origin(table, f"entry {i} of {path}") for i, table in enumerate(tables, start=1)]
    twins = sorted({origin.place for i, origin in enumerate(origins) if origin.place in [o.place for o in origins[:i]]})
    if twins:
        raise ValueError(f"{path} names {without_secrets(twins[0])} twice; remove an entry")
    return origins


def _read_origin(table: dict[str, Any], where: str) -> Origin:
    fields = {field.name: field.default for field in dataclasses.fields(Origin)}
    if unknown := sorted(table.keys() - fields.keys()):
        raise ValueError(f"{where} has {unknown[0]!r}, which is no field; the fields are {', '.join(fields)}")
    for name, default in fields.items():
        value = table.get(name, default)
        if not isinstance(value, str):
            raise ValueError(f'{where} needs {name} = "…", a text; got {table.get(name)!r}')
    origin = Origin(**table)
    if not _SHA256.fullmatch(origin.sha256):
        raise ValueError(f"{where} has sha256 = {origin.sha256!r}; a digest is 64 digits of 0-9 and a-f")
    if origin.channels not in get_args(ChannelOrder):
        raise ValueError(f"{where} has channels = {origin.channels!r}; they are 'RGB', 'BGR' or, if not known, ''")
    try:
        return dataclasses.replace(
            origin, license=canonicalize_license_expression(origin.license) if origin.license else ""
        )
    except InvalidLicenseExpression as error:
        raise ValueError(
            f"{where} has license = {origin.license!r}, which is no SPDX expression ({error}); see spdx.org/licenses"
        ) from error
