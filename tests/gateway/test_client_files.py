"""fal's clients upload files: small ones, in parts, and those that they find in an input."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from deploy.local_server import LocalServer
from tests.gateway.fal_clients import AnyClient, JavaScriptClient, PythonClient
from tests.gateway.features import OF_2025, PYTHON, feature
from tests.gateway.inputs import picture, quick
from tests.gateway.target import Target
from tests.gateway.test_client_calls import check_output

MIB = 1 << 20
# A JavaScript client uploads files in parts of 10 MiB when they are larger than 90 MiB; the Python clients' limits can
# be lowered.
JAVASCRIPT_BYTES = 90 * MIB + 1
PYTHON_BYTES, PART_BYTES = 5 * MIB // 2, MIB
PYTHON_REAL_BYTES = 100 * MIB + 1


def counted(size: int) -> bytes:
    """Bytes that count from 0 to 250 again and again, so that parts differ."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@feature("upload")
def test_upload(client: AnyClient, target: Target, triton: LocalServer) -> None:
    """The address has the content, and may stand in an input."""
    content = picture()
    url = client.call(target, "upload", content=content, type="image/png", name="a boat.png")["url"]
    assert url.startswith(target.url) and url.endswith(".png")
    assert target.download(url) == content
    body = quick()
    by_url = target.ask("/run/fal-ai/lora/image-to-image", "POST", {**body, "image_url": url})
    assert by_url.status == 200, by_url
    check_output(by_url.body, body, triton)


@feature("upload in parts", in_verify=(OF_2025,))
def test_upload_in_parts(client: AnyClient, target: Target, tmp_path: Path) -> None:
    if isinstance(client, PythonClient):
        # Of a file: 0.12.0 sends wrong bytes when it cuts bytes into parts.
        content = counted(PYTHON_BYTES)
        (tmp_path / "a.bin").write_bytes(content)
        answer = client.call(target, "upload_file", path=str(tmp_path / "a.bin"), part_bytes=PART_BYTES)
    else:
        content = counted(JAVASCRIPT_BYTES)
        answer = client.call(target, "upload", size=JAVASCRIPT_BYTES, type="application/octet-stream", name="a.bin")
    check_content(target, answer["url"], content)


@pytest.mark.verify
def test_upload_of_a_large_file_from_python(tls_gateway: Target, tmp_path: Path) -> None:
    """In parts of the client's own size."""
    content = counted(PYTHON_REAL_BYTES)
    check_content(
        tls_gateway, PYTHON.call(tls_gateway, "upload", content=content, type="a/b", name="a.bin")["url"], content
    )


def check_content(target: Target, url: str, content: bytes) -> None:
    assert sha256(target.download(url)).digest() == sha256(content).digest()


@feature("upload of a Blob in the input")
def test_a_blob_in_the_input(client: JavaScriptClient, target: Target, triton: LocalServer) -> None:
    body = quick()
    answer = client.call(target, "runBlob", input=body, content=picture(), type="image/png")
    check_output(answer["output"], body, triton)
