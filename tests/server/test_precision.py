"""The same requests in bfloat16 and in float32: the pictures are nearly the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.evaluation.picture_metrics import psnr
from deploy.demo_model.paths import WEIGHTS
from deploy.local_server import LocalServer
from lorikeet import Client
from lorikeet.schema import SchedulerName
from runtime.cpu import has_bfloat16

STEPS = 30
NEAR = 30.0  # dB
CASES = held_out_cases(4)
# The others draw noise in their steps; TCD does so only where eta is above 0.
WITHOUT_NOISE = (
    SchedulerName.DPMPP_2M,
    SchedulerName.DPMPP_2M_KARRAS,
    SchedulerName.EULER,
    SchedulerName.EULER_TRAILING,
    SchedulerName.DDIM,
    SchedulerName.TCD,
)


class Servers(NamedTuple):
    """Two servers with the same models. `precisions`: what they compute in, which their receipts must say."""

    engine: str
    exact: Client
    quick: Client
    precisions: tuple[str, str]


@pytest.fixture(scope="module", params=["torch", pytest.param("openvino", marks=pytest.mark.verify)])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """torch emulates bfloat16 where the processor lacks it. OpenVINO computes in float32 there."""
    if request.param == "torch":
        exact, quick = (request.getfixturevalue(name) for name in ("client", "in_bfloat16"))
        yield Servers("torch", exact, quick, ("float32", "bfloat16"))
        return
    artifacts = request.getfixturevalue("demo_graphs")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("exact")
    settings = {"local_paths": str(WEIGHTS), "store": str(folder / "store"), "artifacts": str(artifacts)}
    settings |= {"engine": "openvino", "precision": "float32"}
    in_force = "bfloat16" if has_bfloat16() else "float32"
    with LocalServer(folder / "server.log", settings) as server, Client(server.grpc) as exact:
        yield Servers("openvino", exact, request.getfixturevalue("demo_on_openvino"), ("float32", in_force))


@pytest.mark.parametrize("cases", [1, pytest.param(len(CASES), marks=pytest.mark.verify)])
@pytest.mark.parametrize("scheduler", WITHOUT_NOISE)
def test_bfloat16_paints_nearly_what_float32_does(
    scheduler: SchedulerName, cases: int, servers: Servers, record_property: Callable[[str, object], None]
) -> None:
    apart = []
    for index, case in enumerate(CASES[:cases]):
        fields: dict[str, Any] = {
            "model_name": "scenes",
            "prompt": case.prompt,
            "image": case.picture,
            "scheduler": scheduler.value,
            "num_inference_steps": STEPS,
            "guidance_scale": 3.0,
            "noise_strength": 0.8,
            "seed": index,
        }
        exact, quick = (client.image_to_image(**fields) for client in (servers.exact, servers.quick))
        ran = [result.response.receipt.engine for result in (exact, quick)]
        assert tuple(engine.precision for engine in ran) == servers.precisions
        assert {engine.name for engine in ran} == {servers.engine}
        apart.append(psnr(exact.images[0], quick.images[0]))
    record_property("PSNR in dB", [round(value, 1) for value in apart])
    assert min(apart) >= NEAR
