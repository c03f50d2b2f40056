"""Builds the plan of a graph: for this machine's GPU from weights, or for other GPUs from placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch

from export.errors import ExportError
from export.tensorrt.parse import ParsedNetwork, parse
from export.tensorrt.placeholders import check_refittable, replace_weights
from export.tensorrt.rtx_targets import capabilities, set_targets
from runtime.artifacts.plan_manifest import Shape
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.messages import MESSAGES

Shapes = Mapping[str, tuple[Shape, Shape, Shape]]


def build_for_targets(model: onnx.ModelProto, shapes: Shapes, targets: Sequence[str]) -> bytes:
    """A plan for GPUs of these compute capabilities, such as `8.9`, without a GPU.

    Its weights are placeholders: all must be refitted before a call. Only TensorRT-RTX can do this. Raises ExportError.
    """
    if not flavour.IS_RTX:
        raise ExportError("tensorrt builds plans on a machine with a GPU only; without one, install tensorrt_rtx")
    found = capabilities(targets)
    parsed = parse(model, None)
    replace_weights(parsed, model)
    check_refittable(parsed, parsed.weights.keys())
    config = _config(parsed, shapes)
    set_targets(config, found)
    return _build(parsed, config)


def build_on_gpu(
    model: onnx.ModelProto, shapes: Shapes, values: Mapping[str, torch.Tensor], timing_cache: Path
) -> bytes:
    """A plan for this machine's GPU. `values`: see `parse`; the plan does not hold them.

    timing_cache: the measured times of kernels, read and written; TensorRT-RTX has none. Raises ExportError.
    """
    parsed = parse(model, values)
    for name in parsed.weights:
        parsed.network.mark_weights_refittable(name)
    check_refittable(parsed, parsed.weights.keys())
    config = _config(parsed, shapes)
    if flavour.IS_RTX:
        return _build(parsed, config)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = _build(parsed, config)
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    timing_cache.write_bytes(memoryview(cache.serialize()))
    return plan


def _config(parsed: ParsedNetwork, shapes: Shapes) -> trt.IBuilderConfig:
    """Each weight is refittable by its name, and the plan holds none."""
    config = parsed.builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    profile = parsed.builder.create_optimization_profile()
    for name, (smallest, typical, largest) in shapes.items():
        profile.set_shape(name, smallest, typical, largest)
    config.add_optimization_profile(profile)
    return config


def _build(parsed: ParsedNetwork, config: trt.IBuilderConfig) -> bytes:
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    if plan is None:
        raise ExportError(f"{flavour.NAME} cannot build the plan: {MESSAGES.last_error}")
    return bytes(memoryview(plan))
