from dwp_init.text import aligned, few, outline, printable, shown_value

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
