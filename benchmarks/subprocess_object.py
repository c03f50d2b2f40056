"""An object in a child process, with its own memory and threads. Between calls it uses no processor time."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from typing_extensions import Self


class SubprocessFailed(RuntimeError):
    """The object raised an exception; the message is its traceback."""


class SubprocessObject:
    """Calls methods of the object that `make(*arguments)` creates in a child process. A context manager: the child
    process ends with the block, or with this process."""

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        # Not forked: a child process must not inherit the connections and threads of this process.
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_connection, make, arguments), daemon=True)
        self._process.start()
        child_connection.close()

    def call(self, method: str, *arguments: object) -> Any:
        """The method's return value. Raises SubprocessFailed."""
        self._connection.send((method, arguments))
        succeeded, answer = self._connection.recv()
        if not succeeded:
            raise SubprocessFailed(answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection: Connection, make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the connection, which ends this process
    target: object = None
    while True:
        try:
            method, method_arguments = connection.recv()
        except EOFError:
            return
        try:
            target = make(*arguments) if target is None else target
            connection.send((True, getattr(target, method)(*method_arguments)))
        except Exception:
            connection.send((False, traceback.format_exc()))
