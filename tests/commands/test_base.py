import pytest


def test_a_repository_is_taken_wherever_a_name_is(run, at_hub):
    assert "name: user/mine" in run("show", "user/mine@v1")
    assert "64 kernels of user/mine (3×3): kernels.png" in run("draw", "user/mine")
    assert "the Hub shows no such repository" in run("show", "user/none", status=1)


@pytest.mark.parametrize("command", [["show"], ["draw"], ["apply", "torch.nn:Identity", "--prior"]])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notmnist-7x8", "did you mean 'notmnist-7x7'?"),
        ("user/repo@", "lacks a revision; write for example user/repo@v1"),
        (".", "config.json does not exist"),
    ],
)
def test_prior_errors(run, command, name, message):
    assert message in run(*command, name, status=1)
