"""A job waits for its result, and closes no call that is about to be answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lorikeet.client import job as module
from lorikeet.client.job import AsyncJob
from lorikeet.client.result import Result
from lorikeet.schema import JobStatus


class Jobs:
    """Answers when `gate` is set. `ends`: how the calls ended."""

    def __init__(self) -> None:
        self.arrived, self.gate = asyncio.Event(), asyncio.Event()
        self.ends: list[str] = []

    async def status(self, request_id: str, job_token: str) -> JobStatus:
        self.arrived.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ends.append("closed")
            raise
        self.ends.append("answered")
        return JobStatus(status="running")

    async def cancel(self, request_id: str, job_token: str) -> JobStatus:
        raise ValueError("fails")


def test_the_result_closes_no_call_for_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        jobs, made = Jobs(), asyncio.get_running_loop().create_future()
        result: Any = object()

        async def reply() -> Result:
            answer: Result = await made
            return answer

        job = AsyncJob(jobs, "a", "1", asyncio.create_task(reply()))
        waiting = asyncio.create_task(job.result(timeout=5, on_progress=lambda status: None))
        await jobs.arrived.wait()
        made.set_result(result)
        assert await waiting is result
        jobs.gate.set()
        await asyncio.sleep(0.05)
        assert jobs.ends == ["answered"]

    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    asyncio.run(main())


def test_an_abandoned_job_closes_its_call_even_if_the_cancel_fails() -> None:
    async def main() -> None:
        reply: asyncio.Task[Result] = asyncio.create_task(asyncio.sleep(60))  # type: ignore[arg-type]
        job = AsyncJob(Jobs(), "a", "1", reply)
        outcome = (await asyncio.gather(job.abandon(), return_exceptions=True))[0]
        assert isinstance(outcome, ValueError)
        assert reply.cancelled()

    asyncio.run(main())
