"""ControlNets and IP-Adapters on the OpenVINO engine: the rows of the torch engine's tables, on exported graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from lorikeet import Client
from tests.export_command import Export, export
from tests.server.graph_server import serve_graphs
from tests.server.parity import KINDS, Answers, Report, Row, check, row
from tests.server.test_conditioning_bytes import assert_equal_bytes
from tests.server.test_parity_controlnets import CONTROLNETS
from tests.server.test_parity_faces import FACES
from tests.server.test_parity_ip_adapters import IP_ADAPTERS

# `make verify` runs all rows on all kinds. `make test` runs these on SD 1.5: each kind takes a minute to export.
CHOSEN = (
    *("controlnet", "original_file", "two_masks", "base", "full", "mask_two_images"),
    *("face_loras", "face_plus_v1", "face_identity_net"),
)
TABLES = {**CONTROLNETS, **IP_ADAPTERS, **{f"face_{name}": changes for name, changes in FACES.items()}}
ADAPTERS = ("base", "plus", "full", "faceid", "faceid_plus", "portrait", "instant_id")
NETWORKS = (
    "controlnets/{}",
    "ip_adapters/{}/image_encoder",
    *(f"ip_adapters/{{}}/{name}.safetensors" for name in ADAPTERS),
)


def _rows() -> list[ParameterSet]:
    return [
        row(f"{name}-{kind}", kind, changes, verify=kind != "sd15" or name not in CHOSEN)
        for name, changes in TABLES.items()
        for kind in KINDS
    ]


@pytest.fixture(scope="module")
def used_rows(request: pytest.FixtureRequest) -> list[Row]:
    """The rows of this module that the run has selected."""
    found = (getattr(item, "callspec", None) for item in request.session.items)
    return [spec.params["adapter_row"] for spec in found if spec and "adapter_row" in spec.params]


@pytest.fixture(scope="module")
def adapters_client(
    used_rows: list[Row], tiny: Path, sd15_export: Export, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A server in float32 that has the graphs of all networks of the kinds in use, and runs nothing in torch."""
    folder = tmp_path_factory.mktemp("openvino_adapters")
    artifacts = sd15_export.copy(folder / "artifacts")
    for kind in sorted({"sd15", *(one.kind for one in used_rows)}):
        models = [*(() if kind == "sd15" else (kind,)), *(name.format(kind) for name in NETWORKS)]
        made = export(tiny / models[0], artifacts, *(tiny / model for model in models[1:]))
        assert made.status == 0, made.output
    with serve_graphs(tiny, folder, artifacts) as connected:
        yield connected


@pytest.fixture(scope="module")
def adapter_answers(used_rows: list[Row], adapters_client: Client, tiny: Path) -> Iterator[Answers]:
    running = Answers(adapters_client, tiny, used_rows)
    yield running
    running.close()


@pytest.mark.parametrize("adapter_row", _rows())
def test_latents_equal_those_of_diffusers(adapter_answers: Answers, adapter_row: Row, record_property: Report) -> None:
    check(adapter_answers, adapter_row, record_property)


def test_bytes_are_equal_alone_and_among_others(adapters_client: Client, tiny: Path) -> None:
    assert_equal_bytes(adapters_client, tiny, without=("ic_light",))
