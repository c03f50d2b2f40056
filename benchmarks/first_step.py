"""The time of a request before its first denoising step, measured with requests of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.running_server import RunningServer

# A small picture: the time that a LoRA adds does not depend on its size, and the other work before the first step is
# noise.
PIXELS = 64
_ENCODERS = ("text_encoder", "vae_encoder")
_AFTER_THE_FIRST_STEP = ("denoiser", "vae_decoder", "finish")


class FirstStepTimer:
    """Sends requests of one step for the checkpoint `model`. `encoding`: the encoders' seconds, by variant."""

    def __init__(self, bench: Bench, server: RunningServer, model: Path) -> None:
        self._bench, self._server, self._model = bench, server, model
        self.encoding: dict[str, list[float]] = {}

    def seconds(self, variant: str, loras: Sequence[Path] = ()) -> float:
        """Seconds from sending to the first step, without the encoders."""
        # Paths in the server's own folder: the client uploads no file.
        requested = [{"path": str(path.relative_to(self._bench.models.folder))} for path in loras]
        fields = self._bench.requests.next(PIXELS).fields | {"loras": requested, "num_inference_steps": 1}
        seconds, result = self._server.timed_request(model_name=str(self._model), **fields)
        encoding, rest = time_until_first_step(seconds, result.timings)
        self.encoding.setdefault(variant, []).append(encoding)
        return rest


def time_until_first_step(seconds: float, timings: Mapping[str, float]) -> tuple[float, float]:
    """Split a one-step request's time before its first step: seconds in the encoders, and seconds in all other stages.

    `timings` are the response's, by stage. The encoders run one after the other (the ensemble is a chain).
    """
    encoders = sum(timings[stage] for stage in _ENCODERS)
    return encoders, seconds - encoders - sum(timings[stage] for stage in _AFTER_THE_FIRST_STEP)
