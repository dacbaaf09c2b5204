"""Publishing to a Hub on the loopback interface by the real client: checks, one commit, a tag, interruptions, races."""

import json
from pathlib import Path

import pytest
import torch

from dwp_init import PriorError, load_prior, registry
from dwp_init.folder import CONFIG, MODEL
from tests.localhub import Call, HubError, LocalHub
from tests.training.publish.example_priors import change
from training.__main__ import main
from training.publish.hub import read_back
from training.publish.release import prepare

REPO = "dwp-init/mine"
# The client hands a large file to httpx in a way that httpx warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def at_hub(hub: LocalHub, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The Hub of this process, logged in to with the right to write."""
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    return hub


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def posts(hub: LocalHub) -> list[str]:
    return [r.path.split("/")[-2] for r in hub.requests() if r.method == "POST" and "/models/" in r.path]


def test_a_dry_run_sends_nothing(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", str(folder), "--repo", REPO]) == 0
    out = capsys.readouterr().out
    assert f"create the public repository {REPO}" in out and "in one commit, the first:" in out
    for name in ("config.json", "model.safetensors", "README.md", "kernels.png"):
        assert f"  {name} (" in out
    assert "set the tag v1, which is never moved" in out and "dry run: nothing was sent; --push does it" in out
    assert "draws have the statistics recorded: rms" in out
    assert {r.method for r in at_hub.requests()} == {"GET"} and at_hub.repos == {}
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, MODEL]


def test_publish_then_load(
    at_hub: LocalHub, folder: Path, own_registry: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--pin"]) == 0
    repo = at_hub.repos[REPO]
    commit = repo.tags["v1"]
    assert repo.branches["main"] == commit and len(repo.commits) == 2  # the Hub's first one, and ours
    tree = repo.tree("v1")
    assert set(tree) == {".gitattributes", CONFIG, MODEL, "README.md", "kernels.png"}
    assert tree[CONFIG].data == (folder / CONFIG).read_bytes() and tree[MODEL].data == (folder / MODEL).read_bytes()
    out = capsys.readouterr().out
    entry = json.loads(own_registry.read_text())["mine"]
    assert json.dumps({"mine": entry}, indent=2) in out
    assert entry["repo"] == REPO and entry["revision"] == commit and entry["log_prob"] == 12.5
    registry.registry.cache_clear()
    monkeypatch.delenv("HF_TOKEN")
    same = [load_prior(x).sample(3, torch.Generator().manual_seed(1)) for x in (folder, "mine", f"{REPO}@v1")]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert {r.token for r in at_hub.requests() if r.host == "files"} == {None}


def test_publishing_again_is_a_no_op(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0
    commits, tags = dict(at_hub.repos[REPO].commits), dict(at_hub.repos[REPO].tags)
    at_hub.clear()
    for options in ([], ["--push"]):
        capsys.readouterr()
        assert main(["publish", str(folder), "--repo", REPO, *options]) == 0
        assert f"nothing to send: {REPO}@v1 holds exactly these files, at {tags['v1']}" in capsys.readouterr().out
    assert at_hub.repos[REPO].commits == commits and at_hub.repos[REPO].tags == tags
    assert not any(r.method in ("POST", "PUT") for r in at_hub.requests())


def test_a_tag_never_moves(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0
    commit = at_hub.repos[REPO].tags["v1"]
    change(folder, note="another")
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    error = capsys.readouterr().err
    assert f"has the tag 'v1' already, at {commit}, with other config.json" in error and "publish as 'v2'" in error
    assert at_hub.repos[REPO].tags == {"v1": commit} and at_hub.repos[REPO].branches["main"] == commit
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--tag", "v2"]) == 0
    assert at_hub.repos[REPO].tags["v1"] == commit != at_hub.repos[REPO].tags["v2"]


def test_other_files_stay(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    at_hub.add_repo(REPO, {"notes.txt": b"mine", "README.md": b"old"})
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0
    out = capsys.readouterr().out
    assert "replace these files: README.md\n" in out and "leave unchanged: notes.txt\n" in out
    assert at_hub.repos[REPO].tree("v1")["notes.txt"].data == b"mine"


@pytest.mark.parametrize("action", [500, "drop", "cut"])
def test_interrupted_between_commit_and_tag(
    at_hub: LocalHub, folder: Path, action: int | str, impatient: None, capsys: pytest.CaptureFixture
) -> None:
    at_hub.fail("POST hub .*/tag/", action, times=20)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    said, repo = capsys.readouterr().err, at_hub.repos[REPO]
    commit, count = repo.branches["main"], len(repo.commits)
    lost = action == "cut"  # the tag was set, and the answer lost
    assert repo.tags == ({"v1": commit} if lost else {})
    assert ("somebody else has set the tag" if lost and "meanwhile" in said else "; the same command resumes") in said
    at_hub.faults.clear()
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0
    done = "nothing to send: " if lost else f"send no files: {commit} holds exactly these already"
    assert done in capsys.readouterr().out
    assert repo.tags == {"v1": commit} and len(repo.commits) == count


@pytest.mark.parametrize(
    "pattern", ["POST hub .*/repos/create", "POST hub .*/preupload/", "PUT files", "POST hub .*/commit/"]
)
@pytest.mark.parametrize("action", [500, "drop", "cut"])
def test_interrupted_anywhere(
    at_hub: LocalHub, folder: Path, pattern: str, action: int | str, impatient: None, capsys: pytest.CaptureFixture
) -> None:
    """Whatever fails, no half of a release is seen, and the same command ends with one commit and the tag."""
    at_hub.fail(pattern, action, times=20)
    main(["publish", str(folder), "--repo", REPO, "--push"])
    if REPO in at_hub.repos:
        assert set(at_hub.repos[REPO].tree("main")) in ({".gitattributes"}, {*_names(), ".gitattributes"})
    at_hub.faults.clear()
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0, capsys.readouterr().err
    assert len(at_hub.repos[REPO].commits) == 2
    assert at_hub.repos[REPO].tags == {"v1": at_hub.repos[REPO].branches["main"]}


def _names() -> set[str]:
    return {CONFIG, MODEL, "README.md", "kernels.png"}


def test_two_publishers_at_once(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    """The other's commit comes between our look and our commit: ours is refused, theirs stays."""
    at_hub.add_repo(REPO, {"notes.txt": b"before"})
    theirs: list[str] = []

    def be_first(call: Call) -> None:
        theirs.append(at_hub.repos[REPO].commit({"theirs.txt": b"theirs"}))

    at_hub.fail("POST hub .*/commit/", be_first)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert f"somebody else has changed {REPO} meanwhile: look at it, then publish again" in capsys.readouterr().err
    assert at_hub.repos[REPO].branches["main"] == theirs[0] and at_hub.repos[REPO].tags == {}
    assert at_hub.repos[REPO].tree("main")["theirs.txt"].data == b"theirs"
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0


def test_two_publishers_of_one_tag(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    def be_first(call: Call) -> None:
        repo = at_hub.repos[REPO]
        repo.tags["v1"] = next(iter(repo.commits))

    at_hub.fail("POST hub .*/tag/", be_first)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    error = capsys.readouterr().err
    assert "somebody else has set the tag 'v1'" in error and "publish them as 'v2', with --tag" in error
    assert at_hub.repos[REPO].tags["v1"] == next(iter(at_hub.repos[REPO].commits))
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--tag", "v2"]) == 0
    assert len(at_hub.repos[REPO].commits) == 2


def test_what_is_read_back_must_be_what_was_sent(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    at_hub.fail("GET files", "flip", times=9)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert "model.safetensors of dwp-init/mine@" in capsys.readouterr().err
    release = prepare(folder, REPO)
    at_hub.faults.clear()
    with pytest.raises(PriorError, match="is not what was published: commit"):
        read_back(release, "main")


@pytest.mark.parametrize(
    ("token", "message"),
    [("expired", "the Hub rejects the token: log in with"), ("hf_read", "the token may not write there")],
)
def test_a_token_that_may_not_write(
    at_hub: LocalHub,
    folder: Path,
    token: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert message in capsys.readouterr().err and at_hub.repos == {}


def test_a_repository_of_somebody_else(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    at_hub.add_repo("other/mine", {"a": b"b"})
    assert main(["publish", str(folder), "--repo", "other/mine", "--push"]) == 1
    assert "the token may not write there" in capsys.readouterr().err


def test_nobody_there(at_hub: LocalHub, folder: Path, impatient: None, capsys: pytest.CaptureFixture) -> None:
    at_hub.stop()
    assert main(["publish", str(folder), "--repo", REPO]) == 0
    out = capsys.readouterr().out
    assert "draws have the statistics recorded: rms" in out
    assert f"not checked, as the Hub could not be asked: what {REPO} holds, and who may write: " in out
    assert "dry run: nothing was sent" in out and "to do, if it does not exist yet:" in out
    assert f"  create the public repository {REPO}" in out and "  set the tag v1, which is never moved" in out
    for option in ("--push", "--pin"):
        assert main(["publish", str(folder), "--repo", REPO, option]) == 1
        said = capsys.readouterr()
        assert "the same command resumes what is left" in said.err and "draws have the statistics" in said.out


def test_a_private_repository(at_hub: LocalHub, folder: Path) -> None:
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--private"]) == 0
    assert at_hub.repos[REPO].private


def test_an_own_card_is_taken_with_its_pictures(at_hub: LocalHub, folder: Path) -> None:
    assert main(["cards", str(folder), "--address", REPO]) == 0
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nWords of my own.\n")
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 0
    assert at_hub.repos[REPO].tree("v1")["README.md"].data == card.read_bytes()
    card.write_text(card.read_text().replace("license: mit", "license: gpl-3.0"))
    with pytest.raises(ValueError, match=r"README.md cannot be published: .*license"):
        prepare(folder, REPO)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notmnist-7x7", "'notmnist-7x7' is bundled with other files than those of this release"),
        ("taken", "'taken' is pinned to other/taken; save the prior with another details"),
        ("my@prior", "the prior is called 'my@prior', which cannot be a registry name"),
        ("good/prior", "which cannot be a registry name"),
        ("./x", "which cannot be a registry name"),
        ("/etc", "which cannot be a registry name"),
    ],
)
def test_a_name_that_cannot_be_pinned(
    at_hub: LocalHub, folder: Path, own_registry: Path, name: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    own_registry.write_text(json.dumps({"taken": {"repo": "other/taken"}}))
    registry.registry.cache_clear()
    change(folder, name=name)
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--pin"]) == 1
    assert message in capsys.readouterr().err and at_hub.repos == {}


def test_another_model_is_never_replaced(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    files = {CONFIG: b'{"architectures": ["Bert"]}', MODEL: b"weights", "README.md": b"bert"}
    commit = at_hub.add_repo(REPO, files)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert f"{REPO} holds a model that is not a prior, and publishing would replace it" in capsys.readouterr().err
    assert at_hub.repos[REPO].branches == {"main": commit}


def test_a_public_repository_is_not_made_private(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    commit = at_hub.add_repo(REPO, {"x": b"1"})
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--private"]) == 1
    assert f"{REPO} is public already, so --private has no effect; nothing was sent" in capsys.readouterr().err
    assert at_hub.repos[REPO].branches == {"main": commit}


def test_a_branch_is_no_tag(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    commit = at_hub.add_repo(REPO, {"x": b"1"})
    at_hub.repos[REPO].branches["v1"] = commit
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert f"{REPO} has a branch called 'v1', which would move" in capsys.readouterr().err
    assert at_hub.repos[REPO].branches["main"] == commit


@pytest.mark.parametrize(
    "details",
    [{"source": "my kernels"}, {"source": None}, {"metrics": [1]}, {"metrics": None}, {"metrics": {"log_prob": "abc"}}],
)
def test_odd_details(at_hub: LocalHub, folder: Path, own_registry: Path, details: dict) -> None:
    change(folder, **details)
    assert main(["publish", str(folder), "--repo", REPO, "--push", "--pin"]) == 0
    entry = json.loads(own_registry.read_text())["mine"]
    assert entry["source"] == "unknown" and entry["log_prob"] == (12.5 if "source" in details else None)


def test_pin_needs_a_release(at_hub: LocalHub, folder: Path, own_registry: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["publish", str(folder), "--repo", REPO, "--pin"]) == 1
    assert f"--pin needs a published release, and {REPO}@v1 is not there: add --push" in capsys.readouterr().err
    assert at_hub.repos == {}


def test_a_refusal_of_the_hub_is_told(at_hub: LocalHub, folder: Path, capsys: pytest.CaptureFixture) -> None:
    def refuse(call: Call) -> None:
        raise HubError(400, "the Hub does not like it")

    at_hub.fail("POST hub .*/commit/", refuse)
    assert main(["publish", str(folder), "--repo", REPO, "--push"]) == 1
    assert "the Hub does not like it; the same command resumes" in capsys.readouterr().err
    assert at_hub.repos[REPO].tags == {}
