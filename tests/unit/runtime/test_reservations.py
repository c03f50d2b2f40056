"""What `prepare` reserves for a job, over a /dev/shm that each test describes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.store import Store
from runtime.jobs.job_table import SLOTS, JobRef, JobTable, State
from runtime.shared_memory import REGION_BYTES, SharedMemory, needs_new_regions
from runtime.stage_errors import InvalidArgument, Unavailable
from runtime.stages.prepare.memory_estimate import Need, need
from runtime.stages.prepare.reservations import Reservations
from runtime.stages.prepare.shared_memory_estimate import STAGE_TENSORS, StageBytes
from tests.unit.runtime.plans import make_plan

MIB = 1 << 20
NEW = dict.fromkeys(STAGE_TENSORS, REGION_BYTES)
NO_STAGES = dict.fromkeys(STAGE_TENSORS, StageBytes(0, 0, 0))
CONTAINER = SharedMemory(64 * MIB, 58 * MIB, NEW)  # docker's default


class Bench:
    """`Reservations` over `memory`, which a test may replace."""

    def __init__(self, job_table: JobTable, store: Store, budget: int = 1 << 40) -> None:
        self.memory, self.job_table, self._store = CONTAINER, job_table, store
        self.reservations = Reservations(job_table, budget, lambda: self.memory)

    def hold(self, needed: Need) -> JobRef:
        job = self.job_table.open("", "", SLOTS)
        assert job
        try:
            self.reservations.hold(job, self._store.pins(), needed, b"{}")
        except BaseException:
            self.job_table.report(job, "prepare", State.FAILED)
            raise
        return job

    def end(self, job: JobRef) -> None:
        self.job_table.report(job, "finish", State.DONE)


@pytest.fixture
def bench(job_table: JobTable, store: Store) -> Iterator[Bench]:
    found = Bench(job_table, store)
    yield found
    found.reservations.close()


@pytest.fixture
def usual(sdxl: Checkpoint) -> Need:
    return need(make_plan(sdxl, size=1024, image_url="tensor:0"), 10**6)


@pytest.fixture
def large(sdxl: Checkpoint) -> Need:
    return need(make_plan(sdxl, size=2048, num_images=4, image_url="tensor:0"), 10**6)


def test_a_small_container_takes_usual_requests(bench: Bench, usual: Need) -> None:
    for _ in range(32):
        bench.hold(usual)


def test_a_request_that_alone_exceeds_the_shared_memory_is_refused(bench: Bench, large: Need) -> None:
    with pytest.raises(InvalidArgument, match=r"about 2\d\d MB of shared memory, the server has 5\d MB.*--shm-size"):
        bench.hold(large)
    assert not needs_new_regions(bench.job_table.path)


def test_a_request_for_which_others_leave_too_little_is_unavailable(bench: Bench, large: Need) -> None:
    bench.memory = SharedMemory(256 * MIB, 250 * MIB, NEW)
    held = bench.hold(large)
    with pytest.raises(Unavailable, match=r"the server lacks shared memory: .*--shm-size"):
        bench.hold(large)
    assert not needs_new_regions(bench.job_table.path)
    bench.end(held)
    bench.hold(large)


def test_regions_that_have_grown_are_used_again(bench: Bench, usual: Need) -> None:
    bench.memory = SharedMemory(128 * MIB, 0, dict.fromkeys(STAGE_TENSORS, 20 * MIB))
    bench.hold(usual)


def test_regions_that_leave_too_little_are_made_anew(bench: Bench, usual: Need) -> None:
    """A large input has made one region grow over most of /dev/shm: until a restart, nothing else can grow."""
    bench.memory = SharedMemory(64 * MIB, 8 * MIB, NEW | {"prepare": 50 * MIB})
    with pytest.raises(Unavailable, match="restarting"):
        bench.hold(usual)
    assert needs_new_regions(bench.job_table.path)


def test_while_requests_are_in_flight_no_region_is_made_anew(bench: Bench, usual: Need, sd15: Checkpoint) -> None:
    bench.memory = SharedMemory(64 * MIB, 8 * MIB, NEW | {"prepare": 50 * MIB})
    bench.hold(need(make_plan(sd15, size=64), 0))
    with pytest.raises(Unavailable, match="the server lacks shared memory"):
        bench.hold(usual)
    assert not needs_new_regions(bench.job_table.path)


def test_what_other_programs_take_is_no_reason_for_a_restart(bench: Bench, usual: Need) -> None:
    bench.memory = SharedMemory(64 * MIB, 8 * MIB, NEW)
    with pytest.raises(Unavailable, match="the server lacks shared memory"):
        bench.hold(usual)
    assert not needs_new_regions(bench.job_table.path)


def test_a_request_that_needs_no_growth_is_taken_whatever_others_need(
    bench: Bench, usual: Need, sd15: Checkpoint
) -> None:
    bench.hold(usual)
    bench.memory = SharedMemory(64 * MIB, 0, NEW)
    bench.hold(need(make_plan(sd15, size=64), 0))
    with pytest.raises(Unavailable, match="the server lacks shared memory"):
        bench.hold(usual)


def test_the_peak_of_a_request_in_flight_counts(job_table: JobTable, store: Store) -> None:
    """The request that comes next may need little in the networks."""
    bench = Bench(job_table, store, budget=1000)
    try:
        held = bench.hold(Need(100, 700, NO_STAGES))
        bench.hold(Need(200, 10, NO_STAGES))
        with pytest.raises(Unavailable, match="use the memory"):
            bench.hold(Need(1, 10, NO_STAGES))
        bench.end(held)
        bench.hold(Need(790, 10, NO_STAGES))
    finally:
        bench.reservations.close()
