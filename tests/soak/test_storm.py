"""Ten thousand hostile requests to all models: no internal error, no silent stage, little memory, and no restart.

`REQUESTS` in the environment is another number of them.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from benchmarks.running_server import RunningServer
from lorikeet import Client
from tests.journeys.test_killed import children
from tests.server.guarded import guarded_server
from tests.server.process_memory import megabytes, peak_megabytes
from tests.server.storm import Storm, good
from tests.server.wires import GrpcWire
from tests.soak.heartbeats import HeartbeatWatch

REQUESTS = int(os.environ.get("REQUESTS", "10000"))
SILENT_SECONDS = 2.0
MEGABYTES = 300  # of `prepare`, above its memory at rest


def test_ten_thousand_hostile_requests_do_no_harm(tiny: Path, tmp_path: Path) -> None:
    with (
        guarded_server(tiny, tmp_path) as world,
        Client(world.server.grpc) as client,
        closing(GrpcWire(world.server.grpc)) as wire,
    ):
        running = RunningServer(world.server, client)
        before, processes = wire.send_all(good(tiny)), set(children(world.server.process.pid))
        stages, prepare = running.stages, running.stages["prepare"]
        assert {found.status for found in before} == {"OK"}, before
        at_rest, begun = megabytes(prepare), time.monotonic()
        storm = Storm(world, tiny)
        with HeartbeatWatch(running.job_table) as heartbeats:
            storm.run(REQUESTS)
        above = peak_megabytes(prepare) - at_rest
        internal = storm.statuses["INTERNAL"]
        statuses = ", ".join(f"{status} {number}" for status, number in storm.statuses.most_common())
        print(
            f"{storm.statuses.total()} hostile requests in {time.monotonic() - begun:.0f} s: {statuses}; "
            f"{internal} internal errors; longest silence of a heartbeat {heartbeats}; "
            f"peak memory of prepare {above:.0f} MB above rest",
            flush=True,
        )
        assert not storm.wrong, "\n".join(storm.wrong[:20])
        assert storm.statuses.total() >= REQUESTS
        assert min(storm.statuses["OK"], storm.statuses["INVALID_ARGUMENT"]) > REQUESTS // 10
        assert max(heartbeats.longest.values()) < SILENT_SECONDS, heartbeats.longest
        assert above < MEGABYTES
        assert wire.send_all(good(tiny)) == before
        assert running.stages == stages and set(children(world.server.process.pid)) == processes
        assert world.server.output().count("lorikeet: ready after") == 1
