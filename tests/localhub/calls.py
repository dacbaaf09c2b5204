"""What is asked of the Hub (`Call`), and which function answers it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.localhub.answers import Answer, HubError
from tests.localhub.repos import Repo, User

if TYPE_CHECKING:
    from tests.localhub.server import LocalHub

ROUTES: list[tuple[str, str, re.Pattern[str], Callable[..., Any]]] = []
PARTS = {
    "{id}": "(?P<id>[^/]+(?:/[^/]+)?)",
    "{rev}": "(?P<rev>[^/]+)",
    "{path}": "(?P<path>.+)",
    "{oid}": "(?P<oid>.+)",
}


@dataclass(frozen=True)
class Request:
    """A line of the log; `status` is 0 where the connection was closed without an answer."""

    host: str
    method: str
    path: str
    status: int
    token: str | None
    range: str | None


@dataclass(frozen=True)
class Call:
    """A request that is being answered."""

    hub: "LocalHub"
    host: str
    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str | None:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ") or None

    def user(self) -> User | None:
        """Finds who asks; None for whoever shows no token."""
        if self.token and self.token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(self.token or "")

    def repo(self, id: str, write: bool = False, content: bool = False) -> Repo:
        """Finds a repository that the user may see, write to, or read the files of."""
        user, repo = self.user(), self.hub.repos.get(id)
        owner = repo is not None and user is not None and repo.id.split("/")[0] in (user.name, *user.orgs)
        if repo is None or (repo.private and not owner) or (write and user is None):
            # Missing and hidden look the same. The Hub sends a bare 401, which the client only understands over https.
            message = "Repository not found" if user else "Invalid username or password."
            raise HubError(404 if user else 401, message, "RepoNotFound")
        if write and not (owner and user.role == "write"):
            raise HubError(403, "You don't have the rights to write to this repository")
        if content and repo.gated and not owner and (user is None or user.name not in repo.allowed):
            raise HubError(403 if user else 401, f"Access to model {id} is restricted", "GatedRepo")
        return repo

    def blob(self, data: bytes, headers: dict[str, str]) -> Answer:
        """Answers with a file, or with the range of it that was asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"] or "")
        if not asked or not any(asked.groups()):
            return Answer(data, 200, headers)
        size = len(data)
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(size, int(asked[2]) + 1 if asked[1] and asked[2] else size)
        if start >= end:
            return Answer(b"", 416, {"Content-Range": f"bytes */{size}"})
        return Answer(data[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def answer(self) -> Answer:
        """Finds the function for the request and asks it."""
        verb = "GET" if self.method == "HEAD" else self.method
        for host, method, pattern, function in ROUTES:
            if (host, method) == (self.host, verb) and (match := pattern.fullmatch(urlsplit(self.path).path)):
                found = function(self, **{key: unquote(value) for key, value in match.groupdict().items()})
                return found if isinstance(found, Answer) else Answer.json(found)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")


def route(method: str, template: str, host: str = "hub") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Has a function answer the requests that fit a template; what it returns is sent as JSON."""
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for name, part in PARTS.items():
        pattern = pattern.replace(name, part)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((host, method, re.compile(pattern), function))
        return function

    return register
