from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.gateway.served import Served, serve

LIMIT = 4 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that takes uploads of up to 4 MiB."""
    with serve(tmp_path_factory.mktemp("gateway"), max_upload_bytes=LIMIT) as served:
        yield served
