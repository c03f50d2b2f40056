"""The cases: one module each, in the order of the README's table."""

from __future__ import annotations

from importlib import import_module

from benchmarks.bench import Bench
from benchmarks.results import Outcome

# Module -> what it measures.
CASES = {
    "end_to_end": "Compares an SD 1.5 request's time with diffusers and with the network forward passes alone.",
    "lora": "Measures the time that a new LoRA and a cached LoRA add before the first denoising step.",
    "mixed": "Measures the latency of short requests that arrive together with long ones.",
    "loading": "Compares a request's step time while another checkpoint loads with its usual one.",
    "memory": "Measures how the stages' memory grows over SD 1.5 requests with and without LoRAs.",
    "tiles": "Measures the memory of a large picture in tiles, and how long a small request waits for its tiles.",
    "sdxl": "Measures the peak memory of all server processes and the time of an SDXL request.",
    "engines": "Compares bare calls of each network in OpenVINO and in torch.",
    "openvino": "Compares an SD 1.5 request with two LoRAs in OpenVINO with diffusers. Needs the result of `engines`.",
    "genai": "Compares an SD 1.5 request and a new LoRA with openvino_genai, which it installs in the tools folder.",
    "lora_calls": "Compares UNet calls with two LoRAs in OpenVINO with calls without one.",
    "absent_fields": "Measures what unused inputs for LoRAs, ControlNets and IP-Adapters cost UNet calls in OpenVINO.",
    "conditioning": "Measures what an IP-Adapter and a ControlNet add to a denoising step in OpenVINO.",
    "eight_loras": "Compares eight requests with eight LoRAs in OpenVINO with the same LoRA, and with one at a time.",
    "model_swap": "Measures what a change between two checkpoints in use adds to a request in OpenVINO.",
    "many_sizes": "Measures the memory of OpenVINO's stages over pictures of many sizes.",
    "sealing": "Measures the time of the digests that protect tensors between stages, relative to a request.",
    "perf": "Measures requests per second and latency with perf_analyzer, over gRPC and HTTP.",
    "gateway": "Measures what the gateway adds to a request, and its answers while many requests wait.",
}


def run_case(name: str, bench: Bench) -> Outcome:
    """Run one of `CASES`. The module is imported here because some modules import torch and diffusers."""
    outcome = import_module(f"benchmarks.cases.{name}").run(bench)
    assert isinstance(outcome, Outcome)
    return outcome
