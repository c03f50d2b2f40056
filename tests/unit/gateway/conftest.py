from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.gateway.served import Served, serve

LIMIT = 4 << 20
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that takes uploads of up to 4 MiB, and those of pages of one origin."""
    folder = tmp_path_factory.mktemp("gateway")
    with serve(folder, max_upload_bytes=LIMIT, cors_origins=ORIGIN) as served:
        yield served
