"""A thousand mixed requests with cancels, bad ones and killed stages among them: all answered, memory flat.

`REQUESTS` in the environment is another number of them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from deploy.local_server import LocalServer
from lorikeet import Client, LorikeetError
from tests.journeys.test_killed import STAGES, stub_of
from tests.soak.meter import Reading, read
from tests.soak.mix import ENDS, Item, Mix

REQUESTS = int(os.environ.get("REQUESTS", "1000"))
IN_FLIGHT = 16
KILLS = max(1, REQUESTS // 200)
ANSWER_SECONDS = 120.0
GROWTH = 0.02
SLACK_BYTES = 8 << 20
TRITON_BYTES = 64 << 20  # its allocator keeps and returns what large requests needed: it has 20 to 110 MB, up and down
SLACK_FILES = 4


class Soak:
    """Sends requests, 16 at a time, and holds each one's end against what it may be."""

    def __init__(self, server: LocalServer, client: Client, mix: Mix) -> None:
        self._server, self._client, self._mix = server, client, mix
        self._killed = 0
        self._up = threading.Event()
        self._up.set()
        self._lock, self._killing = threading.Lock(), threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._bytes: dict[int, list[bytes]] = {}

    def run(self, count: int, kills: int = 0) -> None:
        """Send `count` requests and wait until all are answered; meanwhile kill a stage so many times."""
        at = {(number + 1) * count // (kills + 1) for number in range(kills)}
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            jobs = [pool.submit(self._one, item, i in at) for i, item in enumerate(self._mix.draw(count))]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def rest(self) -> Reading:
        """What the server holds when it has nothing to do: the same last request before each reading."""
        self._one(self._mix.plain)
        time.sleep(2)
        return read(self._server)

    def _one(self, item: Item, kills: bool = False) -> None:
        if kills:
            self._kill()
        killed = self._wait_up()
        status, text = self._answer(item)
        if status not in ENDS[item.kind] and not (status == "UNAVAILABLE" and self._killed > killed):
            self.wrong.append(f"{item.kind}: {status} {text}")
        with self._lock:
            self.outcomes[f"{item.kind} {status}"] += 1
            if sum(self.outcomes.values()) % 50 == 0:
                print(f"{sum(self.outcomes.values())}: {dict(sorted(self.outcomes.items()))}", flush=True)

    def _wait_up(self) -> int:
        """Wait until the server is there; how often a stage of it was killed before."""
        while True:
            self._up.wait()
            with self._lock:
                if self._up.is_set():
                    return self._killed

    def _answer(self, item: Item) -> tuple[str, str]:
        """How a request ends: its status, and the message of its error."""
        try:
            deadline = item.seconds if item.kind == "late" else None
            job = self._client.submit(item.fields, deadline=deadline)
            if item.kind == "cancelled":
                time.sleep(item.seconds)
                with suppress(LorikeetError):  # over already, or its server killed
                    job.cancel()
            files = job.result(timeout=ANSWER_SECONDS).files
        except LorikeetError as error:
            return error.status, error.message
        if item.recipe >= 0 and self._bytes.setdefault(item.recipe, files) != files:
            self.wrong.append(f"recipe {item.recipe} gave other bytes than before: {item.fields}")
        return "OK", ""

    def _kill(self) -> None:
        """Kill a stage under load; whoever comes meanwhile waits until the server is back."""
        with self._killing:
            with self._lock:
                self._up.clear()
                self._killed += 1
            try:
                stage = self._mix.stage(STAGES)
                os.kill(stub_of(self._server, stage), signal.SIGKILL)
                print(f"killed {stage}", flush=True)
                self._server.wait_ready(times=self._killed + 1)
                self._client.wait_ready()
            finally:
                self._up.set()


def test_a_thousand_requests_are_all_answered_and_leave_nothing_behind(server: LocalServer, tiny: Path) -> None:
    with Client(server.grpc) as client:
        soak = Soak(server, client, Mix(tiny, seed=0))
        parts = (REQUESTS * 3 // 10, REQUESTS * 3 // 10, *[REQUESTS // 10] * 4)
        soak.run(parts[0], KILLS)
        readings = []
        for part in parts[1:]:
            soak.run(part)
            readings.append(soak.rest())
            print(f"at rest: {readings[-1]}", flush=True)
    assert not soak.wrong, "\n".join(soak.wrong[:20])
    assert sum(soak.outcomes.values()) == sum(parts) + len(readings)
    check_flat(readings)


def check_flat(readings: Sequence[Reading]) -> None:
    """The last reading shows no more than the first, which was taken when all weights had been used."""
    first, last = readings[0], readings[-1]
    assert stages_bytes(last) < stages_bytes(first) * (1 + GROWTH) + SLACK_BYTES
    for name in first.private.keys() - set(STAGES):
        assert last.private[name] < first.private[name] + TRITON_BYTES, name
    for name, files in first.files.items():
        assert last.files[name] <= files + SLACK_FILES, name
    assert last.regions.keys() == first.regions.keys()
    assert sum(last.regions.values()) <= sum(first.regions.values()) * (1 + GROWTH)


def stages_bytes(reading: Reading) -> int:
    return sum(reading.private[stage] for stage in STAGES)
