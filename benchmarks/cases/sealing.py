"""The time of the digests that protect tensors between stages, relative to the time of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.bench import Bench
from benchmarks.results import Figure, Outcome, read_result
from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_table import JobRef
from runtime.settings import demo_folder
from runtime.stages.call import Array, Call, bytes_tensor
from runtime.stages.report import Report
from runtime.stages.seal import check_seal, with_seal
from tests.model_configs import model_config

_AT_MOST = 1.0  # percent of a request
_SCALE = 8  # pixels to latents
_KEY, _JOB = bytes(range(32)), JobRef(1, 0)
_DEMO_STEPS = 4
_DEBUG_STEPS = 30


@dataclass(frozen=True)
class _Size:
    """The size of a request with guidance and an init image, and of its checkpoint's text embeddings."""

    pixels: int
    text_width: int
    pooled_width: int

    def tensors(self, debug_steps: int = 0) -> dict[str, Array]:
        """The tensors between the stages, by name, as the stages write them."""
        side = self.pixels // _SCALE
        latents = np.ones((1, 4, side, side), np.float32)
        return {
            "PLAN": bytes_tensor([b"0" * 32]),
            "PICTURES": np.ones(self.pixels**2 * 3, np.uint8),
            "PROMPT_EMBEDS": np.ones((2, 77, self.text_width), np.float32),
            "POOLED_EMBEDS": np.ones((2, self.pooled_width), np.float32),
            "LATENT_MEAN": latents,
            "LATENT_STD": latents,
            "LATENTS": latents,
            "PER_PASS_LATENTS": np.ones((debug_steps, *latents.shape), np.float32),
            "PIXELS": np.ones((1, self.pixels, self.pixels, 3), np.uint8),
        }


@dataclass(frozen=True)
class _Request:
    """The times of equal requests in seconds, their picture's side in pixels, and their steps."""

    samples: list[float]
    pixels: int
    steps: int


_DEMO, _SD15, _SDXL = _Size(128, 128, 0), _Size(512, 768, 0), _Size(1024, 2048, 1280)


def run(bench: Bench) -> Outcome:
    rounds, requests = (3, 2) if bench.quick else (50, 20)
    sd15, sdxl = _measured_request(bench, "end_to_end", "ours"), _measured_request(bench, "sdxl", "seconds")
    demo, triton = _demo_requests(bench, requests)
    stages = _stages()
    tensors = {
        "demo": _DEMO.tensors(),
        "sd15": _SD15.tensors(),
        "sdxl": _SDXL.tensors(),
        "sdxl_debug": _SDXL.tensors(_DEBUG_STEPS),
    }
    samples = {name: [_sealing_seconds(stages, made) for _ in range(rounds)] for name, made in tensors.items()}
    seconds = {name: median(taken) for name, taken in samples.items()}
    debug = f"SDXL, {_SDXL.pixels} px: time of sealing `debug_per_pass_latents` of {_DEBUG_STEPS} steps"
    return Outcome(
        [
            _share("Demo model", _DEMO, seconds["demo"], demo),
            _share("SD 1.5", _SD15, seconds["sd15"], sd15),
            _share("SDXL", _SDXL, seconds["sdxl"], sdxl),
            Figure(debug, seconds["sdxl_debug"] - seconds["sdxl"], "s"),
        ],
        {"sealing": samples, "requests": {"demo": demo.samples, "sd15": sd15.samples, "sdxl": sdxl.samples}},
        {"rounds": rounds, "triton": triton},
    )


def _demo_requests(bench: Bench, count: int) -> tuple[_Request, str]:
    """Requests to the demo model, and Triton's version."""
    with bench.server(local_paths=str(demo_folder())) as server:

        def request() -> float:
            fields = bench.requests.next(_DEMO.pixels).fields
            return server.timed_request(model_name="scenes", num_inference_steps=_DEMO_STEPS, **fields)[0]

        bench.progress("warming up: the server")
        request()
        taken = [request() for _ in bench.rounds(count, "request")]
        return _Request(taken, _DEMO.pixels, _DEMO_STEPS), server.triton_version()


def _measured_request(bench: Bench, case: str, samples: str) -> _Request:
    """The requests of another case's result. Raises RuntimeError when that case has none."""
    path = bench.results / f"{case}.json"
    if not path.exists():
        raise RuntimeError(f"the case sealing needs the requests of {case}: measure that case first")
    result = read_result(path)
    return _Request(result["raw"][samples], result["settings"]["pixels"], result["settings"]["steps"])


def _share(model: str, size: _Size, seconds: float, request: _Request) -> Figure:
    """The request may be of a smaller picture: then the share in a request of the tensors' own size is lower."""
    label = f"{model}, {size.pixels} px: time of sealing, relative to a request of {request.pixels} px"
    return Figure(f"{label} and {request.steps} steps", 100 * seconds / median(request.samples), "%", at_most=_AT_MOST)


@dataclass(frozen=True)
class _Stage:
    """A stage of the ensemble, and the names of its tensors."""

    name: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]


def _stages() -> list[_Stage]:
    """The stages in the order of the ensemble."""
    steps = model_config(IMAGE_MODEL).ensemble_scheduling.step
    configs = {step.model_name: model_config(step.model_name) for step in steps}
    return [
        _Stage(name, tuple(tensor.name for tensor in config.input), tuple(tensor.name for tensor in config.output))
        for name, config in configs.items()
    ]


def _sealing_seconds(stages: list[_Stage], tensors: Mapping[str, Array]) -> float:
    """The time of all seals and their checks for one request with these tensors."""
    first, *others = stages
    total, begun = 0.0, perf_counter()
    sealed = with_seal(_KEY, _JOB, Report(), _outputs(first, tensors))
    total += perf_counter() - begun
    for stage in others:
        known = {**tensors, **sealed}
        call = Call({name: known[name] for name in stage.takes}, _ignore)
        begun = perf_counter()
        check_seal(_KEY, _JOB, call)
        call.report.timings[stage.name] = begun
        if "SEAL" in stage.gives:
            sealed = with_seal(_KEY, _JOB, call.report, _outputs(stage, tensors))
        total += perf_counter() - begun
    return total


def _outputs(stage: _Stage, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {name: tensors[name] for name in stage.gives if name in tensors}


def _ignore(_answer: object) -> None:
    """Takes the answer of a call that nobody waits for."""
