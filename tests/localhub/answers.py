"""What the Hub answers: data, or an error."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What is sent back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})


class HubError(Exception):
    """A refusal, in the words and headers that the client looks for. A fault may raise it too."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None, **body: str
    ) -> None:
        super().__init__(message)
        headers = {**(headers or {}), "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = Answer.json({"error": message, **body}, status, headers)
