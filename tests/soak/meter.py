"""What a server's processes hold: memory of their own, file descriptors, shared memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.smaps import private_bytes
from deploy.local_server import LocalServer
from tests.journeys.test_killed import children

_STAGE = re.compile(r"/(\w+)/1/model\.py\0")


@dataclass(frozen=True)
class Reading:
    """By process (stages by their names): bytes that are its own, and open files. `regions`: bytes of each region of
    shared memory, by name."""

    private: dict[str, int]
    files: dict[str, int]
    regions: dict[str, int]

    def __str__(self) -> str:
        megabytes = " ".join(f"{name} {size / 1e6:.0f}" for name, size in self.private.items())
        shared = f"{len(self.regions)} regions of {sum(self.regions.values()) / 1e6:.0f} MB"
        return f"{sum(self.private.values()) / 1e6:.1f} MB ({megabytes}), {sum(self.files.values())} files, {shared}"


def read(server: LocalServer) -> Reading:
    """The server as it is now, its supervisor included."""
    pid = server.process.pid
    pids = {_name(process): process for process in (pid, *children(pid))}
    return Reading(
        private={name: private_bytes(process) for name, process in pids.items()},
        files={name: len(list(Path(f"/proc/{process}/fd").iterdir())) for name, process in pids.items()},
        regions={file.name: file.stat().st_size for file in Path("/dev/shm").glob(f"*_lorikeet-{pid}-*")},
    )


def _name(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text()
    stage = _STAGE.search(command)
    return stage[1] if stage else Path(command.partition("\0")[0]).name
