"""Calls that block (disk, S3, database), run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from typing_extensions import ParamSpec

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class BlockingCalls:
    """A thread pool of its own, so that slow storage does not delay other threads of the event loop."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[_Args, _Result], /, *args: _Args.args, **keywords: _Args.kwargs) -> _Result:
        """The result of `call`. A caller that is cancelled waits for the end of its call: nothing runs on behind it."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **keywords))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait((future,))
            if not future.cancelled():
                future.exception()  # seen: the caller's cancel is what counts
            raise
