"""Checks of options."""

import pytest

from dwp_init.options import check_flag, check_instance, check_one_of


def test_right_values_pass() -> None:
    check_one_of("scale", "prior", ("fan_in", "prior"))
    check_flag("noise", False)
    check_instance("size", True, int, "number")


@pytest.mark.parametrize("value", ["he", 3, None, ["prior"]])
def test_a_value_that_is_not_allowed(value: object) -> None:
    with pytest.raises(ValueError, match="scale must be one of 'fan_in', 'prior'; got "):
        check_one_of("scale", value, ("fan_in", "prior"))


@pytest.mark.parametrize("value", [0, 1.0, "True", None])
def test_a_flag_is_not_a_number(value: object) -> None:
    with pytest.raises(TypeError, match="noise must be True or False; got "):
        check_flag("noise", value)


def test_an_instance_of_another_class() -> None:
    with pytest.raises(TypeError, match="size must be a number; got str"):
        check_instance("size", "3", int, "number")
