"""One event loop in a background thread, shared by all synchronous clients of the process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Event = TypeVar("Event")

INTERRUPT_TIMEOUT = 10.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` in the background loop and wait for it.

    An interrupt (Ctrl-C) cancels it, and waits at most `INTERRUPT_TIMEOUT` seconds for its end.
    """
    return run_with_events(lambda _: coroutine, _ignore)


def run_with_events(
    make: Callable[[Callable[[Event], None]], Coroutine[Any, Any, T]], on_event: Callable[[Event], object]
) -> T:
    """As `run`, for the coroutine that `make` returns. It gets a function that passes an event to `on_event`.

    `on_event` runs in the calling thread, so that it can call the client. What it raises acts as an interrupt.
    """
    events: SimpleQueue[tuple[Event] | None] = SimpleQueue()
    ended = threading.Event()

    async def tracked() -> T:
        try:
            return await make(lambda event: events.put((event,)))
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(tracked(), _background_loop())
    future.add_done_callback(lambda _: events.put(None))
    try:
        while (event := events.get()) is not None:
            on_event(*event)
        return future.result()
    except BaseException:
        if future.cancel():
            ended.wait(INTERRUPT_TIMEOUT)
        raise


def _ignore(_: object) -> None:
    """For a coroutine that has no events."""


def _background_loop() -> asyncio.AbstractEventLoop:
    # One loop for all clients: gRPC's asyncio code polls one queue a process, which several loops would share.
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="lorikeet", daemon=True).start()
        return _loop
