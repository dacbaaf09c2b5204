"""Runs a program that may connect to this machine alone: ``python loopback_only.py PROGRAM``.

Whatever asks for another host fails, and is written to the standard error.
"""

import runpy
import socket
import sys
from pathlib import Path
from typing import Any

LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "")


def main(program: str) -> None:
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def refuse(host: object) -> None:
        if isinstance(host, str | bytes | None) and str(host or "") not in LOCAL:
            print(f"request to {host}", file=sys.stderr, flush=True)
            raise OSError(f"no connection to {host} is allowed here")

    def checked_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        refuse(host)
        return look_up(host, *arguments, **options)

    def checked_connect(self: socket.socket, address: Any) -> None:
        refuse(address[0] if isinstance(address, tuple) else None)
        connect(self, address)

    socket.getaddrinfo = checked_look_up
    socket.socket.connect = checked_connect  # type: ignore[method-assign]
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
