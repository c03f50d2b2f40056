"""Requests to the tiny checkpoint, and following one on its way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lorikeet import Client, NotFound
from lorikeet.schema import JobStatus


def fields(tiny: Path, **more: Any) -> dict[str, Any]:
    """Small, so that a step takes little; `more` are other fields, or others' values."""
    small = {"width": 64, "height": 64}
    return {"model_name": str(tiny / "sd15"), "prompt": "a fish", "seed": 1, "image_size": small, **more}


def until(client: Client, job: Any, reached: Any, seconds: float = 30) -> JobStatus:
    """Ask for the job's status until it is what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = client.status(job.request_id, job.job_token)
        except NotFound:  # not admitted yet
            continue
        if reached(status):
            return status
        time.sleep(0.01)
    raise AssertionError(f"never reached; the last was {status}")


def running(status: JobStatus) -> bool:
    return status.stage == "denoiser" and status.step >= 2
