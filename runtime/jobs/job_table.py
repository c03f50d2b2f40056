"""The job table: one small mmapped file on which the processes of a server see each other's progress.

Three tables. `beats`: one record a stage, written by that stage alone (the supervisor reads it). `jobs`: one record a
slot, written by `prepare` alone. `progress`: one record a slot and stage, written by that stage alone. `cancels`: one
cell a slot, written by the `jobs` model alone. So every record has one writer and no lock is needed; each record names
the job it speaks of, so what an earlier owner of the slot left behind is never taken for the present one's.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import secrets
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("prepare", "text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish", "jobs")
SLOTS = 1024
LOST_SECONDS = 60.0  # no stage holds the job, and none has for so long: its answer was lost on the way


class State(IntEnum):
    """What a stage has to do with a job."""

    NONE = 0
    WAITING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5


_HEADER = np.dtype([("draining", "u1")], align=True)
_BEAT = np.dtype([("pid", "i8"), ("at", "f8"), ("ready", "u1")], align=True)
_JOB = np.dtype(
    [("id", "u8"), ("at", "f8"), ("deadline", "f8"), ("request", "S32"), ("token", "S32"), ("plan", "S32")], align=True
)
_PROGRESS = np.dtype([("id", "u8"), ("at", "f8"), ("step", "u4"), ("of", "u4"), ("state", "u1")], align=True)
_CANCEL = np.dtype("u8")
_LAYOUT = (
    ("header", _HEADER, (1,)),
    ("beats", _BEAT, (len(STAGES),)),
    ("jobs", _JOB, (SLOTS,)),
    ("progress", _PROGRESS, (SLOTS, len(STAGES))),
    ("cancels", _CANCEL, (SLOTS,)),
)
_BYTES = sum(dtype.itemsize * int(np.prod(shape)) + 64 for _, dtype, shape in _LAYOUT)


@dataclass(frozen=True)
class JobRef:
    """A job's place on the job table: its server-made id (63 random bits) and its slot."""

    id: int
    slot: int


@dataclass(frozen=True)
class Progress:
    """How far a job is: `state` of `stage`, `step` of `of` (0 of 0 where a stage has no steps)."""

    state: State
    stage: str | None
    step: int
    of: int


def _digest(data: bytes) -> bytes:
    # "S32" drops trailing zero bytes on reading; hexadecimal has none.
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


class JobTable:
    """A view of the job table at `path`, made (all zero) when it is not there."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, _BYTES)
            memory = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        # numpy's types do not know fields by name.
        tables: dict[str, Any] = {}
        offset = 0
        for name, dtype, shape in _LAYOUT:
            count = int(np.prod(shape))
            tables[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
            offset += -(-dtype.itemsize * count // 64) * 64
        self._header, self._beats = tables["header"], tables["beats"]
        self._jobs, self._progress, self._cancels = tables["jobs"], tables["progress"], tables["cancels"]

    # Stages and the supervisor

    def beat(self, stage: str, pid: int, *, ready: bool) -> None:
        """Say that this stage lives. Times are CLOCK_MONOTONIC seconds, common to all processes."""
        self._beats[STAGES.index(stage)] = (pid, time.monotonic(), ready)

    def beats(self) -> dict[str, tuple[int, float, bool]]:
        """stage -> (pid, seconds since its last beat, ready) of every stage that has beaten."""
        now = time.monotonic()
        return {
            stage: (int(beat["pid"]), now - float(beat["at"]), bool(beat["ready"]))
            for stage, beat in zip(STAGES, self._beats, strict=True)
            if beat["pid"]
        }

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: running jobs end at their next check."""
        return bool(self._header[0]["draining"])

    def drain(self) -> None:
        self._header[0]["draining"] = True

    # Jobs: `prepare` opens, each stage reports, `jobs` cancels

    def open(self, request_id: str, token: str, limit: int, deadline: float = math.inf) -> JobRef | None:
        """Give a new job a slot; None when `limit` jobs are live. Called by one thread of one process.

        `deadline`: CLOCK_MONOTONIC seconds after which every stage ends it.

        Raises ValueError when a live job has the same request id. A job without id or token cannot be addressed.
        """
        live = self.live()
        if len(live) >= limit:
            return None
        addressable = bool(request_id and token)
        request = _digest(request_id.encode()) if addressable else b""
        if addressable and any(self._jobs[job.slot]["request"] == request for job in live):
            raise ValueError(request_id)
        taken = np.zeros(SLOTS, bool)
        taken[[job.slot for job in live]] = True
        # The slot that was left longest ago, so that a finished job can still be asked about for a while.
        slot = int(np.argmin(np.where(taken, np.inf, self._jobs["at"])))
        job = JobRef(secrets.randbits(63) | 1, slot)
        secret = _digest(token.encode()) if addressable else b""
        self._jobs[slot] = (job.id, time.monotonic(), deadline, request, secret, b"")
        return job

    def seal(self, job: JobRef, plan: bytes) -> None:
        """Note which plan was made for the job, so that the other stages believe no other."""
        self._jobs["plan"][job.slot] = _digest(plan)

    def sealed(self, plan: bytes) -> JobRef | None:
        """The job that this very plan was made for."""
        slots = np.flatnonzero(self._jobs["plan"] == _digest(plan))
        return JobRef(int(self._jobs["id"][slots[0]]), int(slots[0])) if len(slots) else None

    def live(self) -> list[JobRef]:
        """The jobs that have neither ended nor been lost."""
        ids = self._jobs["id"]
        mine = self._progress["id"] == ids[:, None]
        states = np.where(mine, self._progress["state"], State.NONE)
        ended = (states[:, STAGES.index("finish")] == State.DONE) | (states >= State.FAILED).any(axis=1)
        held = ((states == State.WAITING) | (states == State.RUNNING)).any(axis=1)
        latest = np.maximum(np.where(mine, self._progress["at"], 0.0).max(axis=1), self._jobs["at"])
        lost = ~held & (time.monotonic() - latest > LOST_SECONDS)
        return [JobRef(int(ids[slot]), int(slot)) for slot in np.flatnonzero((ids != 0) & ~ended & ~lost)]

    def find(self, request_id: str, token: str) -> JobRef | None:
        """The newest job of this request id, if the token is its own."""
        if not (request_id and token):
            return None
        slots = np.flatnonzero(self._jobs["request"] == _digest(request_id.encode()))
        if not len(slots):
            return None
        slot = int(max(slots, key=lambda s: float(self._jobs[s]["at"])))
        if not secrets.compare_digest(bytes(self._jobs[slot]["token"]), _digest(token.encode())):
            return None
        return JobRef(int(self._jobs[slot]["id"]), slot)

    def report(self, job: JobRef, stage: str, state: State, step: int = 0, of: int = 0) -> None:
        """Write this stage's record of the job."""
        at = (job.slot, STAGES.index(stage))
        # The state last: a reader in between must not see an earlier job's end under this job's id.
        self._progress[at] = (job.id, time.monotonic(), step, of, State.NONE)
        self._progress["state"][at] = state

    def has_seen(self, job: JobRef, stage: str) -> bool:
        """Whether the stage has a record of the job."""
        return int(self._progress["id"][job.slot, STAGES.index(stage)]) == job.id

    def progress(self, job: JobRef) -> Progress:
        """The job as a whole: its end if it has ended, else the furthest stage that holds it."""
        records = {s: r for s, r in zip(STAGES, self._progress[job.slot], strict=True) if r["id"] == job.id}
        for stage, record in records.items():
            if record["state"] >= State.FAILED:
                return Progress(State(int(record["state"])), stage, int(record["step"]), int(record["of"]))
        for stage in reversed(STAGES):
            if stage in records:
                record = records[stage]
                state = State(int(record["state"]))
                if state == State.DONE and stage != "finish":
                    state = State.RUNNING
                return Progress(state, stage, int(record["step"]), int(record["of"]))
        return Progress(State.WAITING, None, 0, 0)

    def cancel(self, job: JobRef) -> None:
        self._cancels[job.slot] = job.id

    def cancelled(self, job: JobRef) -> bool:
        return int(self._cancels[job.slot]) == job.id

    def expired(self, job: JobRef) -> bool:
        """Whether the job's deadline has passed."""
        record = self._jobs[job.slot]
        return int(record["id"]) == job.id and time.monotonic() > float(record["deadline"])
