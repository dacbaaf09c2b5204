"""Strategies that damage bytes, JSON and tensors, each in one to three places."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

LARGE = 2**40
_NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**16, 2**20, 2**20 + 1, 10**9, 2**31, 2**63, 10**30, -(10**9), LARGE]),
    st.floats(allow_nan=False, width=32),
    st.sampled_from([0.0, -0.0, 1e-45, 1e-12, 0.3, 1e30, 1e300, float("nan"), float("inf"), -float("inf")]),
)
_WORDS = st.one_of(st.text(max_size=8), st.sampled_from(["", "vae", "gaussian", "..", "a" * 5000, "\ud800", "\x1b[2J"]))
_SIMPLE = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS)
ODD = st.one_of(
    _SIMPLE,
    st.lists(_SIMPLE, max_size=4),
    st.dictionaries(st.text(max_size=4), _SIMPLE, max_size=3),
    st.sampled_from([[0] * 5000, [[[]]] * 3, {"": {"": {}}}]),
)


def damaged(content: bytes) -> SearchStrategy[bytes]:
    """Bytes with flipped bits, other bytes, or a part that is lost, doubled, moved or zero."""
    size = len(content)
    places = st.integers(0, max(size - 1, 0))
    pieces = st.binary(min_size=1, max_size=12)

    def flip(bits: Sequence[int]) -> bytes:
        changed = bytearray(content)
        for bit in bits:
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def splice(start: int, length: int, piece: bytes) -> bytes:
        return content[:start] + piece + content[start + length :]

    def zero(start: int, length: int) -> bytes:
        return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]

    def double(start: int, length: int) -> bytes:
        return content[: start + length] + content[start:]

    lengths = st.one_of(st.integers(1, 16), st.integers(1, max(size, 1)))
    flips = st.lists(st.integers(0, max(8 * size - 1, 0)), min_size=1, max_size=3, unique=True)
    return st.one_of(
        st.builds(flip, flips) if size else st.just(b"x"),
        st.builds(splice, places, st.sampled_from([0, 1, 4]), pieces),
        st.builds(lambda end: content[:end], places),
        st.builds(splice, places, lengths, st.just(b"")),
        st.builds(zero, places, lengths),
        st.builds(double, places, lengths),
        st.binary(max_size=64),
    )


def one_damaged(files: Mapping[str, bytes]) -> SearchStrategy[dict[str, bytes | None]]:
    """Files of which one is damaged, missing (None) or a copy of another; now and then all are whole."""
    names = sorted(files)

    @cache
    def changed(name: str) -> SearchStrategy[dict[str, bytes | None]]:
        others = st.sampled_from([files[other] for other in names if other != name] or [b""])
        content = st.one_of(*[damaged(files[name])] * 8, others, st.none(), st.just(files[name]))
        return content.map(lambda found: {**files, name: found})

    return st.sampled_from(names).flatmap(changed)


def changed_json(value: Any) -> SearchStrategy[Any]:
    """A value in which entries at any depth are replaced, removed or given another name."""
    edit = st.tuples(st.sampled_from(_places(value)), st.sampled_from(["set", "set", "set", "drop", "rename"]), ODD)
    return st.lists(edit, min_size=1, max_size=3).map(lambda edits: _edited(value, edits))


def changed_tensors(tensors: Mapping[str, Tensor]) -> SearchStrategy[dict[str, Tensor]]:
    """Tensors by name, of which some are lost, added, renamed, or of other values, shape or type."""
    edit = st.tuples(st.sampled_from(sorted(tensors)), st.sampled_from(sorted(_CHANGES)), st.integers(0, 2**16))
    return st.lists(edit, min_size=1, max_size=3).map(lambda edits: _changed(tensors, edits))


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of keys to all entries within a value."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(min(len(value), 4))) if isinstance(value, list) else []
    )
    return [path for key in keys for path in ((*at, key), *_places(value[key], (*at, key)))]


def _edited(value: Any, edits: Sequence[tuple[tuple[Any, ...], str, Any]]) -> Any:
    changed = copy.deepcopy(value)
    for path, act, new in edits:
        try:
            owner = changed
            for key in path[:-1]:
                owner = owner[key]
            if act == "set":
                owner[path[-1]] = copy.deepcopy(new)
            elif act == "drop":
                del owner[path[-1]]
            elif isinstance(owner, dict):
                owner[json.dumps(new, default=str)[:40]] = owner.pop(path[-1])
        except (LookupError, TypeError):  # an earlier edit has removed the place
            continue
    return changed


def _value(number: float) -> Callable[[Tensor, int], Tensor]:
    def change(tensor: Tensor, place: int) -> Tensor:
        changed = tensor.clone()
        if changed.numel():
            value = torch.tensor(number) if tensor.is_floating_point() else torch.tensor(number).nan_to_num(2.0) % 100
            changed.view(-1)[place % changed.numel()] = value.to(tensor.dtype)
        return changed

    return change


def _all(number: float) -> Callable[[Tensor, int], Tensor]:
    return lambda tensor, place: torch.full_like(tensor, number)


_DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
_CHANGES: dict[str, Callable[[Tensor, int], Tensor | None]] = {
    "lost": lambda tensor, place: None,
    "longer": lambda tensor, place: torch.cat([tensor.reshape(-1), tensor.new_zeros(1 + place % 5)]),
    "flat": lambda tensor, place: tensor.reshape(-1),
    "deeper": lambda tensor, place: tensor[None],
    "empty": lambda tensor, place: tensor.new_empty(0),
    "scaled": lambda tensor, place: (tensor * 10.0 ** (place % 80 - 40)).to(tensor.dtype),
    "negative": lambda tensor, place: ~tensor if tensor.dtype == torch.bool else -tensor,
    "shuffled": lambda tensor, place: tensor.reshape(-1).roll(1 + place).view_as(tensor),
    "other type": lambda tensor, place: tensor.to(_DTYPES[place % len(_DTYPES)]),
    "all zero": _all(0),
    "all one": _all(1),
    **{f"one {number}": _value(number) for number in (0.0, 1e-20, 1e38)},
    **{f"one {number}": _value(float(number)) for number in ("nan", "inf", "-inf")},
}


def _changed(tensors: Mapping[str, Tensor], edits: Sequence[tuple[str, str, int]]) -> dict[str, Tensor]:
    changed = dict(tensors)
    for name, act, place in edits:
        tensor = changed.pop(name, None)
        if tensor is not None and (new := _CHANGES[act](tensor, place)) is not None:
            changed[name if place % 7 else f"{name}x"] = new
    return changed
