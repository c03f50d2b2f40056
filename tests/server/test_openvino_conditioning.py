"""ControlNets, IP-Adapters, IC-Light and the safety checker on the OpenVINO engine: the rows of the torch engine's
tables, on exported graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from lorikeet import Client
from runtime.checkpoints.read_ic_light import FOREGROUND, WITH_BACKGROUND
from tests.export_command import Export, export
from tests.server import test_parity_ic_light as ic_light
from tests.server import test_safety_checker as safety_checker
from tests.server.graph_server import serve_graphs
from tests.server.parity import KINDS, Answers, Report, Row, check, row, selected
from tests.server.test_conditioning_bytes import assert_equal_bytes
from tests.server.test_parity_controlnets import CONTROLNETS
from tests.server.test_parity_faces import FACES
from tests.server.test_parity_ip_adapters import IP_ADAPTERS
from tests.server.test_parity_tiles import CONDITIONED_TILES
from tests.tiny.safety_checker import write_safety_checker

# `make verify` runs all rows on all kinds. `make test` runs these on SD 1.5: each kind takes a minute to export.
CHOSEN = (
    *(
        "controlnet",
        "original_file",
        "two_masks",
        "pooled_mask",
        "base",
        "full",
        "mask_two_images",
        "one_of_two_masked_narrow",
    ),
    *("tiles_controlnet", "tiles_ip_adapter_mask"),
    *("face_loras", "face_plus_v1", "face_identity_net"),
)
TABLES = {
    **CONTROLNETS,
    **IP_ADAPTERS,
    **CONDITIONED_TILES,
    **{f"face_{name}": changes for name, changes in FACES.items()},
}
ADAPTERS = ("base", "plus", "full", "faceid", "faceid_plus", "portrait", "instant_id")
NETWORKS = (
    "controlnets/{}",
    "controlnets/{}_pooled",
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
    return selected(request, "adapter_row")


@pytest.fixture(scope="module")
def checker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("safety_checker")
    write_safety_checker(folder, safety_checker.THRESHOLD)
    return folder


@pytest.fixture(scope="module")
def adapters_client(
    request: pytest.FixtureRequest,
    used_rows: list[Row],
    tiny: Path,
    checker_folder: Path,
    sd15_export: Export,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A server in float32 that has the graphs of all networks of the kinds in use, and runs nothing in torch."""
    folder = tmp_path_factory.mktemp("openvino_adapters")
    artifacts = sd15_export.copy(folder / "artifacts")
    kinds = sorted({"sd15", *(one.kind for one in used_rows)})
    networks = [tiny / name.format(kind) for kind in kinds for name in NETWORKS]
    _export(artifacts, [checker_folder, *(tiny / kind for kind in kinds if kind != "sd15"), *networks])
    for channels in sorted({FOREGROUND, *map(_channels, selected(request, "ic_light_row"))}):
        _export(artifacts, [tiny / "sd15"], "--in-channels", str(channels))
    with serve_graphs(tiny, folder, artifacts, safety_checker=str(checker_folder)) as connected:
        yield connected


def _export(artifacts: Path, models: Sequence[Path], *options: str) -> None:
    first, *others = models
    made = export(first, artifacts, *(option for model in others for option in ("--model", str(model))), *options)
    assert made.status == 0, made.output


def _channels(name: str) -> int:
    """Input channels of the UNet of a row of IC-Light."""
    return FOREGROUND if ic_light.ROWS[name].model == "fc" else WITH_BACKGROUND


@pytest.fixture(scope="module")
def adapter_answers(used_rows: list[Row], adapters_client: Client, tiny: Path) -> Iterator[Answers]:
    running = Answers(adapters_client, tiny, used_rows)
    yield running
    running.close()


@pytest.mark.parametrize("adapter_row", _rows())
def test_latents_equal_those_of_diffusers(adapter_answers: Answers, adapter_row: Row, record_property: Report) -> None:
    check(adapter_answers, adapter_row, record_property)


@pytest.mark.parametrize(
    "ic_light_row",
    [name if name == "foreground" else pytest.param(name, marks=pytest.mark.verify) for name in ic_light.ROWS],
)
def test_latents_equal_those_of_ic_lights_demo(
    adapters_client: Client, tiny: Path, tmp_path: Path, ic_light_row: str, record_property: Report
) -> None:
    ic_light.check(adapters_client, tiny, tmp_path, ic_light_row, record_property)


def test_flagged_pictures_are_black(adapters_client: Client, checker_folder: Path, tiny: Path) -> None:
    safety_checker.check(adapters_client, checker_folder, tiny)


def test_bytes_are_equal_alone_and_among_others(adapters_client: Client, tiny: Path) -> None:
    assert_equal_bytes(adapters_client, tiny)
