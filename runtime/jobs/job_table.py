"""The job table: one small mmapped file in which the processes of a server share the state of their jobs.

The records of each table (see `job_records`) have one writer, so no lock is needed:
- `header`: one record, written by the supervisor: the server's key, and whether it is stopping.
- `beats`: one record a stage, written by that stage and read by the supervisor.
- `jobs`: one record a slot, written by `prepare`.
- `progress`: one record a slot and stage, written by that stage.
- `cancels`, `renewals`: one record a slot, written by the `jobs` model.

Each record of a slot contains its job's id. A reader ignores records of an earlier job in the slot.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from runtime.jobs.heartbeats import Heartbeats
from runtime.jobs.job_records import open_records

STAGES = ("prepare", "text_encoder", "image_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish", "jobs")
SLOTS = 1024
LOST_SECONDS = 5.0  # a job that no stage has held for this long is lost: its answer never reached the next stage


class State(IntEnum):
    """The state of a job in one stage."""

    NONE = 0
    WAITING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5


@dataclass(frozen=True)
class JobRef:
    """A job's key in the job table: the id that the server made (63 random bits) and the slot."""

    id: int
    slot: int


@dataclass(frozen=True)
class Progress:
    """A job's progress: its state in `stage`, with `step` of `of` steps done (0 of 0 for a stage without steps)."""

    state: State
    stage: str | None
    step: int
    of: int


def _digest(data: bytes) -> bytes:
    # numpy drops the trailing zero bytes of an "S32" value when it reads it; hexadecimal digits have none.
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


class JobTable:
    """A view of the job table in the file `path`, which is created if it does not exist.

    `prepare` opens jobs, each stage reports its progress on them, and `jobs` cancels and renews them. `heartbeats`: of
    the stages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        is_new = not path.exists()
        records = open_records(path, stages=len(STAGES), slots=SLOTS)
        self.heartbeats = Heartbeats(records.beats, STAGES)
        self._header, self._jobs = records.header, records.jobs
        self._progress, self._cancels, self._renewals = records.progress, records.cancels, records.renewals
        if is_new:  # the supervisor creates the table, before it starts the stages
            self._header[0]["key"] = np.frombuffer(secrets.token_bytes(32), np.uint8)

    @property
    def key(self) -> bytes:
        """The key of this server's seals, 32 random bytes. No client can read it."""
        return bytes(self._header[0]["key"])

    @property
    def draining(self) -> bool:
        """Whether the server is stopping. Running jobs then end at their next check."""
        return bool(self._header[0]["draining"])

    def drain(self) -> None:
        """Mark the server as stopping."""
        self._header[0]["draining"] = True

    def open(
        self, request_id: str, token: str, limit: int, deadline: float = math.inf, lease: float = math.inf
    ) -> JobRef | None:
        """Give a new job a slot; None when `limit` jobs are live. Only one thread of one process may call it.

        `deadline`: the time, in CLOCK_MONOTONIC seconds, after which every stage ends the job. `lease`: seconds after
        which every stage ends the job unless its client has renewed it. `find` finds only jobs that have both a request
        id and a token.

        Raises ValueError when a live job has the same request id and token.
        """
        live = self.live()
        if len(live) >= limit:
            return None
        addressable = bool(request_id and token)
        request = _digest(request_id.encode()) if addressable else b""
        secret = _digest(token.encode()) if addressable else b""
        if addressable and any(
            self._jobs[job.slot]["request"] == request and self._jobs[job.slot]["token"] == secret for job in live
        ):
            raise ValueError(request_id)
        taken = np.zeros(SLOTS, bool)
        taken[[job.slot for job in live]] = True
        # The free slot that was opened longest ago: clients can still ask for the state of jobs that ended lately.
        slot = int(np.argmin(np.where(taken, np.inf, self._jobs["at"])))
        job = JobRef(secrets.randbits(63) | 1, slot)
        self._jobs[slot] = (job.id, time.monotonic(), deadline, lease, request, secret, b"")
        return job

    def make_handle(self, job: JobRef) -> bytes:
        """A random handle, 32 hexadecimal digits, by which the other stages find the job. The table has its digest."""
        handle = secrets.token_hex(16).encode()
        self._jobs["handle"][job.slot] = _digest(handle)
        return handle

    def by_handle(self, handle: bytes) -> JobRef | None:
        """The job with this handle, or None."""
        slots = np.flatnonzero(self._jobs["handle"] == _digest(handle))
        return JobRef(int(self._jobs["id"][slots[0]]), int(slots[0])) if len(slots) else None

    def holds(self, job: JobRef) -> bool:
        """Whether the job still has its slot. A lost job's slot may go to another job."""
        return int(self._jobs["id"][job.slot]) == job.id

    def live(self) -> list[JobRef]:
        """The jobs that have not ended and are not lost (see `LOST_SECONDS`)."""
        ids = self._jobs["id"]
        mine = self._progress["id"] == ids[:, None]
        states = np.where(mine, self._progress["state"], State.NONE)
        ended = (states[:, STAGES.index("finish")] == State.DONE) | (states >= State.FAILED).any(axis=1)
        held = ((states == State.WAITING) | (states == State.RUNNING)).any(axis=1)
        latest = np.maximum(np.where(mine, self._progress["at"], 0.0).max(axis=1), self._jobs["at"])
        lost = ~held & (time.monotonic() - latest > LOST_SECONDS)
        return [JobRef(int(ids[slot]), int(slot)) for slot in np.flatnonzero((ids != 0) & ~ended & ~lost)]

    def find(self, request_id: str, token: str) -> JobRef | None:
        """The newest job with this request id and token, or None. Two clients may use one id: their tokens differ."""
        if not (request_id and token):
            return None
        # Digests are compared, so the time of a comparison reveals nothing about a token.
        same = (self._jobs["request"] == _digest(request_id.encode())) & (
            self._jobs["token"] == _digest(token.encode())
        )
        slots = np.flatnonzero(same)
        if not len(slots):
            return None
        slot = int(max(slots, key=lambda s: float(self._jobs[s]["at"])))
        return JobRef(int(self._jobs[slot]["id"]), slot)

    def report(self, job: JobRef, stage: str, state: State, step: int = 0, of: int = 0) -> None:
        """Write this stage's record of the job. A job that fails or is cancelled keeps the steps that it has done."""
        at = (job.slot, STAGES.index(stage))
        if state >= State.FAILED and self.has_seen(job, stage):
            step, of = int(self._progress["step"][at]), int(self._progress["of"][at])
        # The state is written last: a concurrent reader must not read an earlier job's state with this job's id.
        self._progress[at] = (job.id, time.monotonic(), step, of, State.NONE)
        self._progress["state"][at] = state

    def has_seen(self, job: JobRef, stage: str) -> bool:
        """Whether the stage has a record of the job."""
        return int(self._progress["id"][job.slot, STAGES.index(stage)]) == job.id

    def progress(self, job: JobRef) -> Progress:
        """The record of the stage where the job failed or was cancelled, else of the last stage that has a record."""
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
        """Mark the job as cancelled. Each stage checks the mark."""
        self._cancels[job.slot] = job.id

    def cancelled(self, job: JobRef) -> bool:
        return int(self._cancels[job.slot]) == job.id

    def expired(self, job: JobRef) -> bool:
        """Whether the job's deadline has passed."""
        record = self._jobs[job.slot]
        return int(record["id"]) == job.id and time.monotonic() > float(record["deadline"])

    def renew(self, job: JobRef) -> None:
        """Begin the job's lease anew: its client is alive."""
        self._renewals[job.slot] = (job.id, time.monotonic())

    def abandoned(self, job: JobRef) -> bool:
        """Whether the job's lease has ended without a renewal.

        While `jobs` is interrupted, no client can renew. So a lease begins anew when `jobs` comes back.
        """
        record, renewal = self._jobs[job.slot], self._renewals[job.slot]
        if int(record["id"]) != job.id or math.isinf(lease := float(record["lease"])):
            return False
        renewed = float(renewal["at"]) if int(renewal["id"]) == job.id else float(record["at"])
        since = self.heartbeats.uninterrupted_since("jobs")
        return since is not None and time.monotonic() > max(renewed, since) + lease
