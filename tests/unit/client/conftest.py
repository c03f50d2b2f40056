import io
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.unit.client.fake_triton import FakeTriton


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def triton(png: bytes) -> Iterator[FakeTriton]:
    server = FakeTriton(images=[png])
    yield server
    server.stop()
