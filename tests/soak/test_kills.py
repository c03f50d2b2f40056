"""A hundred kills of stages, tritonserver and the supervisor, with ten jobs in flight at each: every client hears of it
at once, the next good answer comes soon, and nothing stays.

`KILLS` in the environment is another number of them: 9 kills each process once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from deploy.local_server import LocalServer
from lorikeet import Client, LorikeetError
from runtime.settings import demo_folder
from tests.journeys.test_killed import STAGES, children, long_request, stub_of
from tests.soak.meter import Reading, read
from tests.soak.test_soak import GROWTH, stages_bytes

KILLS = int(os.environ.get("KILLS", "100"))
IN_FLIGHT = 10
HEARD_SECONDS = 1.0
OUTAGE_SECONDS = 10.0  # until the next good answer, at the median
ORPHAN_SECONDS = 5.0
SUPERVISOR = "supervisor"
VICTIMS = (*STAGES, "tritonserver", SUPERVISOR)
GOOD = {  # by the demo model, at its own size
    "model_name": "scenes",
    "prompt": "a large red fish on the sea",
    "num_inference_steps": 4,
    "image_size": {"width": 128, "height": 128},
}


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[LocalServer]:
    """A server of the tiny checkpoints and the demo model, otherwise as released."""
    settings = {"local_paths": f"{tiny}:{demo_folder()}", "store": str(tmp_path / "store")}
    with LocalServer(tmp_path / "server.log", settings) as running:
        yield running


def test_every_client_hears_of_a_kill_and_nothing_stays(server: LocalServer, tiny: Path) -> None:
    heard: list[float] = []
    outages: dict[str, list[float]] = {}
    first = _at_rest(server)
    for number in range(KILLS):
        victim = VICTIMS[number % len(VICTIMS)]
        latest, outage = _kill(server, tiny, victim)
        heard.append(latest)
        outages.setdefault(victim, []).append(outage)
        print(f"{number + 1}: {victim}: heard after {latest:.2f} s, next good answer after {outage:.1f} s", flush=True)
    last = _at_rest(server)
    medians = {victim: median(seconds) for victim, seconds in outages.items()}
    texts = (f"{victim} {seconds:.1f} s ({len(outages[victim])})" for victim, seconds in medians.items())
    print(
        f"{KILLS} kills, {KILLS * IN_FLIGHT} jobs: every client heard after at most {max(heard):.2f} s; "
        f"median until the next good answer: {', '.join(texts)}\nat rest: {first}\nat rest: {last}",
        flush=True,
    )
    assert max(heard) < HEARD_SECONDS
    assert all(seconds <= OUTAGE_SECONDS for victim, seconds in medians.items() if victim != SUPERVISOR), medians
    assert stages_bytes(last) <= stages_bytes(first) * (1 + GROWTH)
    assert sum(last.regions.values()) <= sum(first.regions.values()) * (1 + GROWTH)
    owners = {path.name.partition("lorikeet-")[2].split("-")[0] for path in Path("/dev/shm").glob("*lorikeet-*")}
    assert all(Path(f"/proc/{owner}").exists() for owner in owners)


def _at_rest(server: LocalServer) -> Reading:
    with Client(server.grpc) as client:
        client.image_to_image(GOOD)
    time.sleep(2)
    return read(server)


def _kill(server: LocalServer, tiny: Path, victim: str) -> tuple[float, float]:
    """Kill a process under load. Seconds until the last client heard of it, and until the next good answer."""
    ready = server.output().count("lorikeet: ready after")
    processes = children(server.process.pid)
    with Client(server.grpc) as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
        waiting = [pool.submit(_ends, client, tiny, seed) for seed in range(IN_FLIGHT)]
        time.sleep(1.0)
        killed = time.monotonic()
        os.kill(_process(server, victim), signal.SIGKILL)
        ends = [job.result() for job in waiting]
    assert {status for _, status in ends} <= {"UNAVAILABLE", "OK"}
    if victim == SUPERVISOR:
        server.process.wait()
    _gone(processes)
    if victim == SUPERVISOR:
        server.start()
        server.wait_ready()
    else:
        server.wait_ready(times=ready + 1, timeout=120)
    with Client(server.grpc) as client:
        assert client.image_to_image(GOOD).images
    return max(at for at, _ in ends) - killed, time.monotonic() - killed


def _ends(client: Client, tiny: Path, seed: int) -> tuple[float, str]:
    try:
        client.submit(long_request(tiny, seed)).result(timeout=60)
    except LorikeetError as error:
        return time.monotonic(), error.status
    return time.monotonic(), "OK"


def _process(server: LocalServer, victim: str) -> int:
    if victim == SUPERVISOR:
        return server.process.pid
    if victim == "tritonserver":
        return next(pid for pid in children(server.process.pid) if "tritonserver" in _program(pid))
    return stub_of(server, victim)


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


def _gone(processes: list[int]) -> None:
    deadline = time.monotonic() + ORPHAN_SECONDS
    while left := [pid for pid in processes if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{len(left)} processes are left"
        time.sleep(0.05)
