"""The options with which priors are loaded, and the address of a repository."""

import pytest
from torch import nn

from dwp_init import Gaussian, apply_, list_priors, load_prior
from dwp_init.access import Access, Address


@pytest.mark.parametrize("token", ["hf_secret\n", "", "hf secret", "hf_ü"])
def test_a_token_that_is_none(token: str) -> None:
    for load in (load_prior, lambda name, token: list_priors(remote=True, token=token)):
        with pytest.raises(ValueError, match="token is empty, or contains characters that no token has") as caught:
            load("notmnist-7x7", token=token)
        assert "secret" not in str(caught.value)


def test_a_token_does_not_matter_where_nothing_is_loaded() -> None:
    assert apply_(nn.Conv2d(1, 2, 3), Gaussian((1, 3, 3)), token="").initialized == [""]
    with pytest.raises(ValueError, match="no prior and no folder is called 'nothing'"):
        load_prior("nothing", token="")


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Access(token="hf_secret"))


def test_only_a_full_commit_is_one() -> None:
    commit = "0123456789" * 4
    assert [Address("a/b", revision).is_commit for revision in (commit, commit[:-1], "main")] == [True, False, False]
    assert str(Address("a/b", "v1")) == "a/b@v1"
