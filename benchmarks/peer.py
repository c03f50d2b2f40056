"""Something to compare with, in a process of its own: it has its own memory and threads, and idles while it is not
asked."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from typing_extensions import Self


class PeerFailed(RuntimeError):
    """The peer raised an exception; the message is its trace."""


class Peer:
    """An object that `make(*arguments)` makes in a child process; a context manager. It ends with its parent."""

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        # Not forked: a child must not inherit the connections and threads of this process.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: object) -> Any:
        """What the object's method returns. Raises PeerFailed."""
        self._connection.send((method, arguments))
        worked, answer = self._connection.recv()
        if not worked:
            raise PeerFailed(answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection: Connection, make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this
    made: object = None
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            made = make(*arguments) if made is None else made
            connection.send((True, getattr(made, method)(*given)))
        except Exception:
            connection.send((False, traceback.format_exc()))
