"""The server, its two listeners, and the faults that tests announce."""

import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.localhub.answers import Answer, HubError
from tests.localhub.calls import Call, Request
from tests.localhub.repos import Repo, User

Action = int | float | str | Callable[[Call], Any]


@dataclass
class Fault:
    """What goes wrong with the next requests that fit a pattern."""

    pattern: re.Pattern[str]
    action: Action
    times: int


class LocalHub:
    """A running Hub; stops at the end of a ``with`` block, or by `stop`.

    Attributes:
        endpoint: The Hub's origin, for ``endpoint=`` or ``HF_ENDPOINT``.
        files: The origin of large files.
        tokens: Who shows which token; change at will.
        repos: ``"user/name"`` to its `Repo`; change at will.
        log: Every request of which the answer has been decided, in that order.
        faults: What `fail` has announced and no request has met yet.
    """

    def __init__(self) -> None:
        self.tokens = {
            "hf_write": User("dwp", ("dwp-init",)),
            "hf_read": User("reader", role="read"),
            "hf_other": User("other"),
        }
        self.repos: dict[str, Repo] = {}
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()  # held while an answer is made, never while it is sent or waited for
        self.stopped = threading.Event()
        self.listeners = [Listener(self, "hub"), Listener(self, "files")]
        self.endpoint = f"http://127.0.0.1:{self.listeners[0].server_port}"
        self.files = f"http://localhost:{self.listeners[1].server_port}"
        for listener in self.listeners:
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "LocalHub":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the listeners and the connections that clients keep open, so that these find nobody there."""
        if not self.stopped.is_set():
            self.stopped.set()
            for listener in self.listeners:
                listener.stop()

    def add_repo(
        self, id: str, files: dict[str, bytes] | None = None, tag: str | None = None, private: bool = False
    ) -> str:
        """Adds a repository without a request, and returns the sha of its commit.

        Args:
            id: ``"user/name"``, not taken yet; for one more commit there is `Repo.commit`.
            files: What its one commit holds, besides .gitattributes.
            tag: Set on that commit.
            private: Whether only its owner sees it.

        Raises:
            ValueError: If there is such a repository.
        """
        with self.lock:
            if id in self.repos:
                raise ValueError(f"there is a repository {id!r}; `hub.repos[{id!r}].commit(files)` adds to it")
            repo = self.repos[id] = Repo(id, self.lock, private)
            sha = repo.commit(files, title="files") if files else repo.branches["main"]
            repo.tags |= {tag: sha} if tag else {}
            return sha

    def requests(self) -> list[Request]:
        """Returns the log without what the client asks once a day for its user agent."""
        with self.lock:
            return [request for request in self.log if request.path != "/api/agent-harnesses"]

    def clear(self) -> None:
        """Empties the log."""
        with self.lock:
            self.log.clear()

    def fail(self, pattern: str, action: Action, times: int = 1) -> None:
        """Has the next requests that fit a pattern go wrong; the oldest fault that fits a request is the one it meets.

        Args:
            pattern: A regular expression, searched in ``"METHOD hub|files /path?query"``.
            action: An integer is a status to answer without doing what was asked; a float, seconds to wait before it is
                done; ``"drop"`` closes the connection, nothing done and nothing answered; ``"flip"`` answers with one
                byte of the body wrong; ``"cut"`` does what was asked and closes half-way through the body;
                ``"trickle"`` stops there, and keeps the connection until the client or the Hub has gone. Where there is
                no body (HEAD, PUT), the last two stop before the headers.
                A callable is given the `Call` before anything is done, with no lock held. It may change the Hub (push a
                commit, add a tag, stop it), wait, raise `HubError` to refuse, or return one of the actions above; None
                goes on.
            times: How many requests it meets; each request meets one fault at most.

        Raises:
            ValueError: If there is no such action.
        """
        status = isinstance(action, int) and 400 <= action <= 599
        if not (
            status or isinstance(action, float) or callable(action) or action in ("drop", "cut", "flip", "trickle")
        ):
            raise ValueError(
                f"no action {action!r}: an error status, seconds as a float, a callable, or the name of one"
            )
        with self.lock:
            self.faults.append(Fault(re.compile(pattern), action, times))

    def meet(self, line: str) -> Action | None:
        """Takes the fault that a request meets, if any."""
        with self.lock:
            fault = next((fault for fault in self.faults if fault.pattern.search(line)), None)
            if fault is None:
                return None
            fault.times -= 1
            self.faults = [fault for fault in self.faults if fault.times > 0]
            return fault.action


class Listener(ThreadingHTTPServer):
    """One of the two origins, with the connections it holds."""

    request_queue_size = 128  # the usual 5 make clients that come at once wait for a second

    def __init__(self, hub: LocalHub, host: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.host = hub, host
        self.connections: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints what went wrong here, and not that a client has gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stops listening, ends the connections and waits for their threads to close them."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 0.5  # in vain if a fault, in one of these threads, stops the Hub
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.002)


class Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection, meets faults, and writes answers."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: else 40 ms an answer

    def log_message(self, *_: object) -> None:
        """Prints nothing; there is `LocalHub.log`."""

    def serve(self) -> None:
        hub, host = self.server.hub, self.server.host
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))  # before any answer, or the client is cut off
        call = Call(hub, host, self.command, self.path, self.headers, body)
        action: Any = None
        try:
            action = hub.meet(f"{self.command} {host} {self.path}")
            if callable(action):
                action = action(call)
            if isinstance(action, float):
                hub.stopped.wait(action)
            if hub.stopped.is_set():
                action = "drop"
            if isinstance(action, int):
                raise HubError(action, "injected fault")
            with hub.lock:
                answer = None if action == "drop" else call.answer()
        except HubError as error:
            answer = error.answer
        status = answer.status if answer else 0
        with hub.lock:
            hub.log.append(Request(host, self.command, self.path, status, call.token, self.headers["Range"]))
        self.send(answer or Answer(), action)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def send(self, answer: Answer, action: Any) -> None:
        body, half = b"" if self.command == "HEAD" else answer.body, action in ("drop", "cut", "trickle")
        middle = len(body) // 2
        if action == "flip" and body:
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if middle or not half:
            self.send_response(answer.status)
            for key, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[:middle] if half else body)
        if action == "trickle":
            self.rfile.read(1)  # returns once the client or the Hub has gone
        self.close_connection |= half
