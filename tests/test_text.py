import copy
import json
import pickle

import pytest

from dwp_init.text import NameTable, aligned, few, outline, printable, shown_value

EVIL = "a\x1b[2J\nb"


def test_nothing_controls_the_terminal() -> None:
    assert printable(EVIL) == "a\\x1b[2J\nb"  # lines stay
    assert shown_value(EVIL) == "'a\\x1b[2J\\nb'"
    assert outline({EVIL: [EVIL]}) == ["'a\\x1b[2J\\nb': 'a\\x1b[2J\\nb'"]
    assert aligned([(EVIL,)]) == "'a\\x1b[2J\\nb'"


def test_nested_values_are_indented() -> None:
    values = {"a": {"b": 1 / 3, "c": {"d": None}}, "e": [1, "f"], "g": []}
    assert outline(values) == ["a:", "  b: 0.333333", "  c:", "    d: None", "e: 1, f", "g: "]


def test_columns_are_aligned_and_lines_end_without_spaces() -> None:
    assert aligned([("name", "log p"), ("a-long-name", "1"), ("b", "")]) == "name         log p\na-long-name  1\nb"


def test_long_lists_are_cut_but_never_for_one_name() -> None:
    assert [few(list("abcde")[:count], 2) for count in range(5)] == ["", "a", "a, b", "a, b, c", "a, b, … 2 more"]


NAMES = NameTable("ab", ("name", "kernel"), {"a": ("3×3",), "b": (f"<{EVIL}>",)})


@pytest.mark.parametrize("same", [NAMES, pickle.loads(pickle.dumps(NAMES)), copy.copy(NAMES), copy.deepcopy(NAMES)])
def test_a_table_of_names_is_a_list_that_prints_as_a_table(same: NameTable) -> None:
    assert same == ["a", "b"] and isinstance(same, list) and json.dumps(same) == '["a", "b"]'
    assert repr(same) == str(same) == "name  kernel\na     3×3\nb     '<a\\x1b[2J\\nb>'"
    assert "<td" in same._repr_html_() and "&lt;a\\x1b[2J" in same._repr_html_()
    assert (same[0], same[1:], "b" in same, [*same]) == ("a", ["b"], True, ["a", "b"])
    assert type(same[:1]) is list


@pytest.mark.parametrize("names", [NameTable(), NameTable("a"), NameTable("abc", ("name", "x"), {"a": ("",)})])
def test_names_without_a_row_print_as_a_list(names: NameTable) -> None:
    assert repr(names) == repr(list(names)) and "<table" not in names._repr_html_()
