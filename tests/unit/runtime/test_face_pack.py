"""An InsightFace pack in a folder, on the Hub, and as a zip archive from any source."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from runtime.files import face_pack
from runtime.files.face_pack import pack_names
from runtime.files.located import Folder
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import WeightFileError
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.hub import downloaded, publish
from tests.unit.runtime.web import Web, reply

FILES = {"det_10g.onnx": b"detector", "w600k_r50.onnx": b"embedder"}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["b.onnx", "a.onnx", "README.md"], ["a.onnx", "b.onnx"]),
        (
            ["models/buffalo_l/b.onnx", "models/buffalo_l/a.onnx"],
            ["models/buffalo_l/a.onnx", "models/buffalo_l/b.onnx"],
        ),
        (["a.onnx", "other/b.onnx"], ["a.onnx"]),
    ],
)
def test_a_pack_is_at_the_top_or_in_the_only_folder(names: list[str], found: list[str]) -> None:
    assert pack_names(names) == found


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.txt"], "no .onnx files"),
        (["buffalo_l/a.onnx", "antelopev2/a.onnx"], "several packs"),
        ([f"{number}.onnx" for number in range(17)], "at most 16"),
    ],
)
def test_what_is_no_pack_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(WeightFileError, match=message):
        pack_names(names)


def test_a_folder(sources: FileResolver, request_: ResolveContext, allowed: Path) -> None:
    (allowed / "pack").mkdir()
    found = sources.face_pack("field", "pack", request_)
    assert found == Folder(allowed / "pack", allowed)


@pytest.mark.parametrize("place", ["", "buffalo_l/"])
def test_an_archive_of_the_request(sources: FileResolver, request_: ResolveContext, place: str) -> None:
    sent = zipped({place + name: content for name, content in FILES.items()})
    context = ResolveContext([sent], request_.pins, request_.check_cancelled)
    for _ in range(2):
        found = sources.face_pack("field", "tensor:0", context)
        assert isinstance(found, tuple)
        assert [file.path.read_bytes() for file in found] == list(FILES.values())


def test_an_archive_in_a_local_folder(sources: FileResolver, request_: ResolveContext, allowed: Path) -> None:
    (allowed / "buffalo_l.zip").write_bytes(zipped(FILES, zipfile.ZIP_STORED))
    found = sources.face_pack("field", "buffalo_l.zip", request_)
    assert isinstance(found, tuple)
    assert [file.path.read_bytes() for file in found] == list(FILES.values())


def test_an_archive_at_a_url(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/buffalo_l.zip"] = reply(zipped(FILES))
    found = sources.face_pack("field", web.url("/buffalo_l.zip"), request_)
    assert isinstance(found, tuple)
    assert [file.path.read_bytes() for file in found] == list(FILES.values())


def test_an_archive_that_unpacks_without_end_is_refused(
    sources: FileResolver, request_: ResolveContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_pack, "_MOST_BYTES", 1 << 20)
    context = ResolveContext([zipped({"a.onnx": bytes(3 << 20)})], request_.pins, request_.check_cancelled)
    with pytest.raises(InvalidArgument, match=r"field: tensor:0: its entry a\.onnx has more than"):
        sources.face_pack("field", "tensor:0", context)


OTHERS = {
    b"\x08\x07onnx": "no zip archive",
    zipped({"a.txt": b"text"}): "no .onnx files",
    zipped(FILES)[:-30]: "no zip archive",
    zipped(FILES).replace(b"PK\x03\x04", b"PK\x03\x05"): "no zip archive",
}


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_a_file_that_is_no_archive_of_a_pack_is_refused(
    sources: FileResolver, request_: ResolveContext, content: bytes
) -> None:
    context = ResolveContext([content], request_.pins, request_.check_cancelled)
    with pytest.raises(InvalidArgument, match=f"field: tensor:0: .*{OTHERS[content]}"):
        sources.face_pack("field", "tensor:0", context)


@pytest.mark.usefixtures("hub")
def test_a_repository_of_the_hub(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    publish(web, "owner/pack", {**{f"models/{name}": content for name, content in FILES.items()}, "README.md": b"text"})
    found = sources.face_pack("field", "owner/pack", request_)
    assert isinstance(found, Folder)
    assert downloaded(web, "owner/pack") == {f"models/{name}" for name in FILES}


@pytest.mark.usefixtures("hub")
def test_a_repository_without_a_pack(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    publish(web, "owner/pack", {"README.md": b"text"})
    with pytest.raises(InvalidArgument, match=r"owner/pack: it has no \.onnx files"):
        sources.face_pack("field", "owner/pack", request_)
