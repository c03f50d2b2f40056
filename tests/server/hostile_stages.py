"""Strategies that draw hostile requests to every model: the public one, `jobs`, and the stages behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import DataType

from lorikeet.protocol.tensors import IMAGE_MODEL, JOBS_MODEL
from tests.model_configs import model_config, model_names
from tests.server.hostile import Hostile, Tensor, strings
from tests.server.hostile_fields import JUNK, heavy_requests, hostile_requests, mostly

PREPARE = "prepare"
STAGES = sorted(model_names() - {IMAGE_MODEL, JOBS_MODEL, PREPARE})
_ITEM_BYTES = {"FP32": 4, "UINT8": 1}
_LENGTHS = (0, 1, 2, 16)  # of an axis that may have any
_FILLS = (b"\0", b"\xff", b"\0\0\x80\x3f", b"\0\0\xc0\x7f", b"\0\0\x80\xff")  # in floats: 0, NaN, 1, NaN, -infinity
_TEXTS = (
    b"",
    b"{}",
    b"[]",
    b"\0",
    b"\xff" * 32,
    b"0" * 32,
    b"0" * 100_000,
    b"[" * 5000,
    b'{"tensors": {"PIXELS": {}}}',
)


def requests_to_all_models(tiny: Path, urls: Sequence[str]) -> st.SearchStrategy[Hostile]:
    """Three in four are for the public model, and one in a hundred is heavy. `urls` are of a server that may be
    asked."""
    public = hostile_requests(tiny, urls)
    others = (
        public.map(lambda request: replace(request, model=PREPARE, hangs_up=False)),
        _to_jobs(),
        _to_stages(),
        _to_stages(),
    )
    light = st.integers(0, 15).flatmap(lambda number: others[number] if number < len(others) else public)
    return mostly(light, heavy_requests(), 99)


def inputs_of(model: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Datatype and dims of each input of a model, as its configuration has them."""
    return {tensor.name: (_datatype(tensor.data_type), tuple(tensor.dims)) for tensor in model_config(model).input}


def _datatype(number: Any) -> str:
    name: str = DataType.Name(number).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _to_stages() -> st.SearchStrategy[Hostile]:
    """Tensors of the right datatypes, or nearly. PLAN is forged, or of a job that `prepare` has admitted.

    Each waits for its answer. A stage answers a forged call at once, and Triton 2.51 can end with SIGSEGV when a gRPC
    call is cancelled at the moment of its answer.
    """
    return st.one_of([_to_stage(stage) for stage in STAGES])


def _to_stage(stage: str) -> st.SearchStrategy[Hostile]:
    fitting = st.tuples(*(_fitting(name, *kind) for name, kind in inputs_of(stage).items()))
    fewer = st.builds(lambda tensors, at: tensors[:at] + tensors[at + 1 :], fitting, st.integers(0, 3))
    bent = st.builds(lambda tensors, other: (*tensors[1:], other), fitting, _BENT)
    return st.builds(
        Hostile,
        tensors=mostly(fitting, fewer | bent, 6),
        model=st.just(stage),
        from_prepare=st.sampled_from(
            [(), ("PLAN",), ("PLAN", "REPORT", "SEAL"), ("PLAN", "REPORT", "SEAL", "PICTURES")]
        ),
    )


def _fitting(name: str, datatype: str, dims: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    if datatype == "BYTES":
        return st.sampled_from(_TEXTS).map(lambda text: strings(name, [text]))
    shapes = st.tuples(*(st.just(length) if length > 0 else st.sampled_from(_LENGTHS) for length in dims))
    return st.builds(lambda shape, fill: _filled(name, datatype, shape, fill), shapes, st.sampled_from(_FILLS))


def _filled(name: str, datatype: str, shape: tuple[int, ...], fill: bytes) -> Tensor:
    size = math.prod(shape) * _ITEM_BYTES[datatype]
    return Tensor(name, datatype, shape, (fill * (size // len(fill) + 1))[:size])


_BENT = st.builds(
    Tensor,
    st.sampled_from(["PLAN", "REPORT", "SEAL", "LATENTS", "PICTURES", "unknown"]),
    st.sampled_from(["BYTES", "UINT8", "FP32", "INT64", "BOOL", "NONE"]),
    st.lists(st.sampled_from([0, 1, 2, 64, -1, 10**12]), max_size=5).map(tuple),
    st.binary(max_size=16),
)


def _to_jobs() -> st.SearchStrategy[Hostile]:
    """Questions about requests of others, and bodies that are none."""
    name = st.sampled_from(["", "one", "1", "x" * 1000, "\u2603\n"])
    fields = st.fixed_dictionaries(
        {},
        optional={
            "action": st.sampled_from(["progress", "renew", "cancel", "stop", None]),
            "request_id": mostly(name, JUNK, 4),
            "job_token": mostly(name, JUNK, 4),
            "unknown": JUNK,
        },
    )
    body = mostly(fields.map(lambda found: json.dumps(found).encode()), st.sampled_from(_TEXTS), 6)
    tensors = body.map(lambda text: (strings("REQUEST", [text]),))
    return st.builds(
        Hostile, tensors=mostly(tensors, _BENT.map(lambda tensor: (tensor,)), 12), model=st.just(JOBS_MODEL)
    )
