"""A thread that polls while a `with` block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from typing_extensions import Self


class PollThread:
    """Calls `poll` every `seconds` while the block runs, the first time after `seconds`.

    The exit of the block waits for a running call. An exception of `poll` ends the thread, not the block.
    """

    def __init__(self, poll: Callable[[], object], seconds: float) -> None:
        self._poll, self._seconds = poll, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._poll()
