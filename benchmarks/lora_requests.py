"""Timed requests with LoRAs to a server that runs in OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.running_server import RunningServer
from benchmarks.unique_requests import UniqueRequest


@dataclass(frozen=True)
class LoraRequests:
    """Requests of `steps` steps for a picture of `pixels` x `pixels`. `loras`: files in the folder of the models."""

    bench: Bench
    model: Path
    loras: Sequence[Path]
    pixels: int
    steps: int
    stages: list[Mapping[str, float]] = field(default_factory=list)  # of each request so far, seconds by stage

    def next(self) -> UniqueRequest:
        return self.bench.requests.next(self.pixels)

    def seconds(self, server: RunningServer) -> float:
        """Send a new request; its seconds. The server reads the LoRAs itself: the client uploads no file."""
        requested = [{"path": str(path.relative_to(self.bench.models.folder))} for path in self.loras]
        fields = self.next().fields | {"loras": requested, "num_inference_steps": self.steps}
        seconds, result = server.timed_request(model_name=str(self.model), **fields)
        assert result.response.receipt.engine.name == "openvino"
        self.stages.append(result.timings)
        return seconds
