"""One event loop in a background thread, shared by all synchronous clients of the process."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

INTERRUPT_TIMEOUT = 10.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` in the background loop and wait for it.

    An interrupt (Ctrl-C) cancels it, and waits at most `INTERRUPT_TIMEOUT` seconds for its end.
    """
    ended = threading.Event()

    async def tracked() -> T:
        try:
            return await coroutine
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(tracked(), _background_loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        ended.wait(INTERRUPT_TIMEOUT)
        raise


def _background_loop() -> asyncio.AbstractEventLoop:
    # One loop for all clients: gRPC's asyncio code polls one queue a process, which several loops would share.
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="lorikeet", daemon=True).start()
        return _loop
