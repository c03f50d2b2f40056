"""/dev/shm, where Triton's Python backend has one region of shared memory for each stage.

A stage's tensors travel through its region. An allocation that does not fit makes the region grow; a region never
shrinks (python_backend, src/shm_manager.cc, `GrowIfNeeded`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")
# Triton 25.07 and later refuse that a client registers a region whose name begins so (server, src/common.h,
# `kTritonSharedMemoryRegionPrefix`). To older versions it is a name like any other.
RESERVED_PREFIX = "triton_python_backend_shm_region_"
IN_USE_BYTES = 256 << 10  # what a region holds at rest: the backend's queues
REGION_BYTES = 1 << 20  # a region's first size, and the unit by which it grows; both are the backend's defaults


@dataclass(frozen=True)
class SharedMemory:
    """Bytes of /dev/shm, those that are free, and those of each stage's region, by the stage's name."""

    total: int
    free: int
    regions: Mapping[str, int]

    @property
    def grown(self) -> int:
        """Bytes by which the regions have grown; new regions would not have them."""
        return sum(self.regions.values()) - self.new_regions

    @property
    def new_regions(self) -> int:
        """Bytes that as many new regions have."""
        return len(self.regions) * REGION_BYTES


def measure(stages: Mapping[str, int]) -> SharedMemory:
    """/dev/shm now. `stages`: each stage's process id. A region that cannot be found counts as new."""
    space = os.statvfs(FOLDER)
    regions = {stage: _region_bytes(pid) for stage, pid in stages.items()}
    return SharedMemory(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize, regions)


def has_space(nbytes: int) -> bool:
    """Whether this process's region can hold so many bytes more: /dev/shm has them, or the region has grown to hold as
    many before."""
    space = os.statvfs(FOLDER)
    if space.f_bavail * space.f_frsize >= nbytes + 2 * REGION_BYTES:
        return True
    return _region_bytes(os.getpid()) >= nbytes + IN_USE_BYTES


def _region_bytes(pid: int) -> int:
    """The size of a stage's region. The region's name is one of the arguments of the stage's process."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = next(argument for argument in arguments if argument.startswith(RESERVED_PREFIX.encode()))
        return (FOLDER / os.fsdecode(name)).stat().st_size
    except (OSError, StopIteration):
        return REGION_BYTES


def ask_for_new_regions(job_table: Path) -> None:
    """Have the supervisor replace the server, when no request is in flight, because its regions leave too little.

    `job_table`: the file of the server's job table.
    """
    _request(job_table).touch(mode=0o600)


def needs_new_regions(job_table: Path) -> bool:
    """Whether `prepare` has asked the supervisor to replace this server."""
    return _request(job_table).exists()


def _request(job_table: Path) -> Path:
    return job_table.with_name(f"{job_table.name}-new-regions")
