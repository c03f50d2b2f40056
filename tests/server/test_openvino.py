"""Parity with diffusers on the OpenVINO engine: the rows of the torch engine's tables, on a server with graphs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from lorikeet import Client
from tests.export_command import Export, export
from tests.server.graph_server import serve_graphs
from tests.server.parity import KINDS, Answers, Change, Report, Row, base, check, fields, loras, row, selected, submit
from tests.server.test_parity import TABLE
from tests.server.test_parity_prompts import EMBEDDINGS, PROMPTS
from tests.server.test_parity_schedules import LENGTHS, SCHEDULES
from tests.server.test_parity_tiles import TILES

# `make verify` runs all rows on all kinds. `make test` runs these, each on one of two kinds: an export takes a minute.
CHOSEN = (
    *("text_to_image", "guidance_off", "num_images_2", "clip_skip_2", "peft", "two_loras_num_images_2", "tiles"),
    *("long_weights", "embedding_one_token_of_three_vectors", "embedding_bundled"),
)
TABLES: dict[str, tuple[Change, ...]] = {**TABLE, **LENGTHS, **SCHEDULES, **PROMPTS, **EMBEDDINGS, **TILES}


def _rows() -> list[ParameterSet]:
    found = []
    for place, (name, changes) in enumerate(TABLES.items()):
        chosen = ("sd15", "sdxl")[place % 2] if name in CHOSEN else ""
        found += [row(f"{name}-{kind}", kind, changes, verify=kind != chosen) for kind in KINDS]
    return found


@pytest.fixture(scope="session")
def graph_rows(request: pytest.FixtureRequest) -> list[Row]:
    return selected(request, "graph_row")


@pytest.fixture(scope="session")
def graphs_client(
    graph_rows: list[Row], tiny: Path, sd15_export: Export, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A server in float32 that has the graphs of the kinds of checkpoints in use, and runs nothing in torch."""
    folder = tmp_path_factory.mktemp("openvino")
    artifacts = sd15_export.copy(folder / "artifacts")
    for kind in sorted({"sdxl", *(one.kind for one in graph_rows)} - {"sd15"}):
        made = export(tiny / kind, artifacts)
        assert made.status == 0, made.output
    with serve_graphs(tiny, folder, artifacts) as connected:
        yield connected


@pytest.fixture(scope="session")
def graph_answers(graph_rows: list[Row], graphs_client: Client, tiny: Path) -> Iterator[Answers]:
    running = Answers(graphs_client, tiny, graph_rows)
    yield running
    running.close()


@pytest.mark.parametrize("graph_row", _rows())
def test_latents_equal_those_of_diffusers(graph_answers: Answers, graph_row: Row, record_property: Report) -> None:
    check(graph_answers, graph_row, record_property)


@pytest.mark.parametrize("kind", ["sd15", pytest.param("sdxl", marks=pytest.mark.verify)])
def test_a_picture_has_the_same_bytes_alone_and_among_others(graphs_client: Client, tiny: Path, kind: str) -> None:
    case = base(tiny, kind)
    alone = submit(graphs_client, case).result()
    assert alone.response.receipt.engine.name == "openvino"
    others = [fields(seed=9), loras("peft"), fields(guidance_scale=1.0), fields(num_images=2)]
    running = [submit(graphs_client, change(case)) for change in others]
    among = submit(graphs_client, case).result()
    for job in running:
        job.result()
    assert among.files == alone.files


@pytest.mark.verify
def test_a_checkpoint_used_before_costs_no_compiling(graphs_client: Client, tiny: Path) -> None:
    def seconds(kind: str) -> float:
        begun = time.monotonic()
        submit(graphs_client, base(tiny, kind)).result()
        return time.monotonic() - begun

    for kind in ("sd15", "sd2"):
        seconds(kind)
    alone = min(seconds("sd15") for _ in range(3))
    swapped = []
    for _ in range(3):
        seconds("sd2")
        swapped.append(seconds("sd15"))
    assert min(swapped) < alone + 0.5
