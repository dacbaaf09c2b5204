"""Settings of stages: overrides from the command line, and checks of their values."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from training.engine.stage import Stage


def override(stages: Mapping[str, Stage], settings: Sequence[str]) -> dict[str, Stage]:
    """Applies ``stage.field=value`` settings to a recipe's stages.

    The values of a tuple are separated by commas; or by semicolons, where they contain commas.

    Raises:
        ValueError: The form, the stage, the field or the type of the value is wrong; the message lists the options.
    """
    changed, given = dict(stages), set[str]()
    for setting in settings:
        path, _, text = setting.partition("=")
        name, _, key = path.partition(".")
        if not (key and text):
            raise ValueError(f"a setting reads stage.field=value, such as sources.networks=8; got {setting!r}")
        if path in given:
            raise ValueError(f"{path} is set twice, the second time by {setting!r}; leave one out")
        given.add(path)
        check_stage(name, changed)
        hints = typing.get_type_hints(type(changed[name]))
        names = [f.name for f in dataclasses.fields(changed[name]) if f.name != "needs" and not f.metadata.get("fixed")]
        if key not in names:
            raise ValueError(f"stage {name!r} has no field {key!r}; its fields are {', '.join(names)}")
        changed[name] = dataclasses.replace(changed[name], **{key: _parse(text, hints[key], setting)})
    return changed


def only(stages: Mapping[str, Stage], names: Sequence[str] | None) -> dict[str, Stage]:
    """Returns the stages of these names and those they need, in the recipe's order; all if ``names`` is ``None``.

    Raises:
        ValueError: The recipe has no stage of a name.
    """
    if names is None:
        return dict(stages)
    chosen: set[str] = set()
    missing = list(names)
    while missing:
        name = missing.pop()
        check_stage(name, stages)
        chosen.add(name)
        missing += [need for need in stages[name].needs if need not in chosen]
    return {name: stage for name, stage in stages.items() if name in chosen}


def check_stage(name: str, stages: Mapping[str, Stage]) -> None:
    """Raises ``ValueError`` if a recipe, or what is left of it, has no stage of this name."""
    if name not in stages:
        raise ValueError(f"no stage {name!r} in this recipe, or not in what --only leaves; it has {', '.join(stages)}")


def check_counts(**counts: int) -> None:
    """Raises ``ValueError`` if a count, such as ``epochs``, is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be 1 or more; got {count}")


def check_marks(marks: Sequence[int], name: str = "marks") -> None:
    """Raises ``ValueError`` unless marks are steps from 1 up, each once and in order."""
    if not marks or marks[0] < 1 or list(marks) != sorted(set(marks)):
        raise ValueError(f"{name} must be steps from 1 up, each once and in order; got {tuple(marks)}")


def _parse(text: str, kind: Any, setting: str) -> Any:
    try:
        return _convert(text, kind)
    except (ValueError, KeyError) as error:
        shown = str(kind).removeprefix("typing.") if typing.get_origin(kind) else kind.__name__
        raise ValueError(f"{setting!r}: {text!r} is not of type {shown}") from error


def _convert(text: str, kind: Any) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # the latter since Python 3.14
        inner = next(option for option in options if option is not types.NoneType)
        return None if text == "none" else _convert(text, inner)
    if origin is typing.Literal:
        return {str(option): option for option in options}[text]
    if origin is tuple:
        inside = text.strip("[]()")
        words = inside.split(";" if ";" in inside else ",") if inside else []
        kinds = [options[0]] * len(words) if options[-1] is Ellipsis else options
        return tuple(_convert(word.strip(), inner) for word, inner in zip(words, kinds, strict=True))
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    return kind(text)
