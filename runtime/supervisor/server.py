"""One tritonserver process with its stages: start, check, stop. After a fault, a new `Server` replaces it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime import shared_memory
from runtime.cpu import PROCESS_ENVIRONMENT
from runtime.jobs.job_table import STAGES, JobTable
from runtime.settings import PREFIX, Settings
from runtime.supervisor import leftovers
from runtime.supervisor.command import Ports, server_command
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.listen_address import url_host
from runtime.supervisor.log_filter import copy_filtered

_MAX_IDLE_BEATS = 25  # five seconds; a stage that has queued requests starts one within milliseconds
_GONE_SECONDS = 5.0
_GRACE_SECONDS = 1.0  # time to send the last answers; Triton's own shutdown takes longer and has no use here


class Server:
    """A running tritonserver with its own process group and job table."""

    def __init__(self, settings: Settings, ports: Ports, job_table_file: Path) -> None:
        self._settings, self._ports = settings, ports
        self._region_prefix = leftovers.region_prefix(job_table_file.parent, job_table_file.name)
        self.job_table = JobTable(job_table_file)
        own = {
            PREFIX + "JOB_TABLE": str(job_table_file),
            # Triton's stubs import packages from the environment of the first python3 on PATH.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        # A new session: the terminal sends Ctrl-C to the supervisor alone, which then stops the server in order.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "runtime.supervisor.exit_with_parent",
                "SIGKILL",  # tritonserver takes up to 30 s to end after SIGTERM
                str(os.getpid()),
                *server_command(settings, ports, self._region_prefix),
            ],
            env=PROCESS_ENVIRONMENT | os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        copy_filtered(self._process.stdout)

    def stages_ready(self) -> list[str]:
        """The names of the stages whose heartbeat says ready."""
        return [stage for stage, beat in self.job_table.heartbeats.read().items() if beat.ready]

    def is_ready(self) -> bool:
        """Whether Triton answers and every stage is ready."""
        if len(self.stages_ready()) < len(STAGES):
            return False
        url = f"http://{url_host(self._settings.host)}:{self._ports.http}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def fault(self) -> Fault | None:
        """The reason to restart the server, or None. Any thread may ask."""
        if (status := self._process.poll()) is not None:
            return Fault(Reason.SERVER_ENDED, f"tritonserver ended with status {status}")
        for stage, beat in self.job_table.heartbeats.read().items():
            if not leftovers.is_alive(beat.pid):
                return Fault(Reason.STAGE_ENDED, f"the process of the stage {stage} has ended", stage)
            if beat.age > self._settings.stall_seconds:
                silence = f"the stage {stage} has sent no heartbeat for {beat.age:.0f} s"
                return Fault(Reason.STAGE_SILENT, silence, stage)
            if beat.idle_beats > _MAX_IDLE_BEATS:
                queue = f"the stage {stage} has {beat.activity.queued} requests in its queues and works on none"
                return Fault(Reason.STAGE_IDLE, queue, stage)
        if shared_memory.needs_new_regions(self.job_table.path) and not self.job_table.live():
            return Fault(Reason.SHARED_MEMORY, "the regions of shared memory have grown and fill /dev/shm")
        return None

    def has_crashed(self) -> bool:
        """Whether a signal has ended tritonserver, as that of a failed assertion. Ask before `kill`."""
        return (self._process.poll() or 0) < 0

    def kill(self) -> None:
        """Kill all processes of the server. Its connections close, so every waiting client gets an error."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        stages = [beat.pid for beat in self.job_table.heartbeats.read().values()]
        for pid in stages:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A process that is not gone yet keeps its shared memory, which the next server needs.
        deadline = time.monotonic() + _GONE_SECONDS
        while any(leftovers.is_alive(pid) for pid in stages) and time.monotonic() < deadline:
            time.sleep(0.01)
        for region in leftovers.regions(self._region_prefix):
            region.unlink(missing_ok=True)

    def stop(self, is_urgent: Callable[[], bool]) -> None:
        """Stop in order: each running job gets UNAVAILABLE at its next step, then the processes end.

        Once `is_urgent`, kills all processes, within `_GRACE_SECONDS`.
        """
        self.job_table.drain()
        deadline = time.monotonic() + self._settings.stop_seconds
        while self.job_table.live() and time.monotonic() < deadline and not is_urgent() and self.fault() is None:
            time.sleep(0.05)
        if not is_urgent():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_GRACE_SECONDS)
        self.kill()
