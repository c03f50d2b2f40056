"""The metrics of the stages, which Triton publishes on `LORIKEET_METRICS_PORT`."""

from __future__ import annotations

from runtime.metrics.definition import CODES, STAGE, Definition

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

ANSWERS = Definition(
    "lorikeet_answers_total",
    "counter",
    "Answers of the stage, by code. A request ends with `OK` of `finish`, or with another code of any stage.",
    STAGE | {"code": CODES},
)
REQUESTS_WAITING = Definition(
    "lorikeet_requests_waiting",
    "gauge",
    "Requests in the stage that wait. In the denoiser and the VAE's stages, also while their weights are loaded.",
    STAGE,
)
REQUESTS_RUNNING = Definition("lorikeet_requests_running", "gauge", "Requests that the stage works on.", STAGE)
WAIT_SECONDS = Definition(
    "lorikeet_stage_wait_seconds", "histogram", "Time that a request waited in the stage.", STAGE, _SECONDS
)
STAGE_SECONDS = Definition(
    "lorikeet_stage_seconds",
    "histogram",
    "Time that the stage worked on a request, without the wait. Failed requests are not included.",
    STAGE,
    _SECONDS,
)
REQUEST_SECONDS = Definition(
    "lorikeet_request_seconds",
    "histogram",
    "Time from a request's admission to its encoded pictures. Failed requests are not included.",
    STAGE,
    _SECONDS,
)
STEPS = Definition("lorikeet_steps_total", "counter", "Denoising steps of all requests.", STAGE)
ROWS = Definition(
    "lorikeet_rows_total", "counter", "Rows that the networks of the step loop computed, without padding.", STAGE
)
CALL_ROWS = Definition(
    "lorikeet_engine_call_rows",
    "histogram",
    "Rows in one call of the step loop, without padding. `_count` is the number of calls.",
    STAGE,
    _ROWS,
)
CALL_SECONDS = Definition(
    "lorikeet_engine_call_seconds_total",
    "counter",
    "Time in calls of the step loop. Its rate is the share of time in which the engine is busy.",
    STAGE,
)
WEIGHTS_BYTES = Definition("lorikeet_weights_bytes", "gauge", "Bytes of weights in the stage's memory.", STAGE)
WEIGHTS_LOADS = Definition(
    "lorikeet_weights_loads_total", "counter", "Times that the stage read a checkpoint's weights from files.", STAGE
)
WEIGHTS_EVICTIONS = Definition(
    "lorikeet_weights_evictions_total", "counter", "Weights of a checkpoint or of LoRAs that were evicted.", STAGE
)
LORA_MERGES = Definition(
    "lorikeet_lora_merges_total", "counter", "Times that the stage merged LoRAs with a checkpoint's weights.", STAGE
)
LORA_HITS = Definition(
    "lorikeet_lora_cache_hits_total", "counter", "Uses of merged LoRAs that were still in memory.", STAGE
)
STORE_BYTES = Definition("lorikeet_store_bytes", "gauge", "Bytes of the files in `LORIKEET_STORE`.", STAGE)
STORE_EVICTIONS = Definition(
    "lorikeet_store_evictions_total", "counter", "Files that were evicted from `LORIKEET_STORE`.", STAGE
)

STAGE_DEFINITIONS = (
    ANSWERS,
    REQUESTS_WAITING,
    REQUESTS_RUNNING,
    WAIT_SECONDS,
    STAGE_SECONDS,
    REQUEST_SECONDS,
    STEPS,
    ROWS,
    CALL_ROWS,
    CALL_SECONDS,
    WEIGHTS_BYTES,
    WEIGHTS_LOADS,
    WEIGHTS_EVICTIONS,
    LORA_MERGES,
    LORA_HITS,
    STORE_BYTES,
    STORE_EVICTIONS,
)
