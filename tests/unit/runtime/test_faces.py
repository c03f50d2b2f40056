"""Faces: found and aligned as InsightFace does it, by networks in a process of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.faces import process as processes
from runtime.faces.face import FaceError, Pixels
from runtime.faces.geometry import align, resize
from runtime.faces.process import FaceProcess
from runtime.files.stored_file import FileChangedError, StoredFile, file_fingerprint
from runtime.stage_errors import Cancelled
from tests.reference.faces import embed_face, find_face
from tests.tiny.face_pack import face_picture
from tests.unit.runtime.tiny_checkpoints import digest

TWO_FACES = face_picture(("red", 30, 30), ("green", 66, 30))
ONE_FACE = face_picture(("green", 40, 50), size=(128, 200), seed=3)


def pack_files(tiny: Path) -> list[StoredFile]:
    return [digest(path) for path in sorted((tiny / "face_pack").glob("*.onnx"))]


def go_on() -> None:
    """No job is cancelled."""


@pytest.fixture(scope="module")
def pack(tiny: Path) -> list[StoredFile]:
    return pack_files(tiny)


@pytest.fixture(scope="module")
def faces(pack: list[StoredFile]) -> Iterator[FaceProcess]:
    process = FaceProcess(threads=1)
    process.load(pack, go_on)
    yield process
    process.close()


def pixels_of(picture: Image.Image) -> Pixels:
    return np.array(picture)


@pytest.mark.parametrize("picture", [TWO_FACES, ONE_FACE], ids=["two_faces", "one_face"])
def test_the_largest_face_is_that_of_the_reference(faces: FaceProcess, tiny: Path, picture: Image.Image) -> None:
    expected = find_face(tiny / "face_pack", picture)
    found = max(faces.detect(pixels_of(picture), go_on), key=lambda face: face.area)
    np.testing.assert_allclose(found.box, expected.box, atol=1e-3)
    np.testing.assert_allclose(found.points, expected.points, atol=1e-3)
    for side, aligned in ((112, expected.aligned), (224, np.array(expected.crop))):
        difference = align(pixels_of(picture), found.points, side).astype(int) - aligned
        assert np.abs(difference).max() <= 1, "more than rounding"
    embedding = faces.embed(expected.aligned, go_on)
    np.testing.assert_allclose(embedding, embed_face(tiny / "face_pack", expected.aligned), atol=2e-4)


def test_overlapping_finds_are_one_face(faces: FaceProcess) -> None:
    """The planted detector finds a spot at several places."""
    found = faces.detect(pixels_of(TWO_FACES), go_on)
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in sorted(found, key=lambda face: face.area)]
    np.testing.assert_allclose(middles, [[30, 30], [66, 30]], atol=2)


def test_a_picture_without_a_face_has_none(faces: FaceProcess) -> None:
    assert not faces.detect(pixels_of(face_picture()), go_on)


def test_a_large_face_is_looked_for_in_smaller_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    process, asked = FaceProcess(threads=1), []
    process._sides = processes._SIDES

    def answer(question: dict[str, Any], _content: bytes, _check: object) -> dict[str, Any]:
        asked.append(question["side"])
        return {"faces": [[0.9, 0, 0, 8, 8, *range(10)]] if question["side"] == 384 else []}

    monkeypatch.setattr(process, "_ask", answer)
    (face,) = process.detect(np.zeros((768, 384, 3), np.uint8), go_on)
    assert asked == [640, 512, 384]
    assert face.box.tolist() == [0, 0, 16, 16], "in pixels of the picture"


@pytest.mark.parametrize("faces", [[[0.9] * 14], [[0.9, 1e30, *[1.0] * 13]], [["a"] * 15], [[float("nan")] * 15]])
def test_what_the_process_answers_is_not_trusted(monkeypatch: pytest.MonkeyPatch, faces: list[Any]) -> None:
    process = FaceProcess(threads=1)
    process._sides = (640,)
    monkeypatch.setattr(process, "_ask", lambda *_: {"faces": faces})
    with pytest.raises(FaceError, match=r"its (detector|networks) give"):
        process.detect(np.zeros((64, 64, 3), np.uint8), go_on)


def test_points_that_are_one_place_are_no_face() -> None:
    with pytest.raises(ValueError, match="all points"):
        align(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2)), 112)


def test_a_picture_of_its_own_size_is_not_changed() -> None:
    pixels = pixels_of(TWO_FACES)
    assert np.array_equal(resize(pixels, 96, 64), pixels)


def test_a_process_that_ends_is_an_error_of_its_networks(pack: list[StoredFile]) -> None:
    process = FaceProcess(threads=1)
    process.load(pack, go_on)
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    with pytest.raises(FaceError, match="ended the process"):
        process.detect(pixels_of(TWO_FACES), go_on)
    process.load(pack, go_on)
    assert process.detect(pixels_of(TWO_FACES), go_on)
    process.close()


def test_a_cancelled_job_ends_the_computation(pack: list[StoredFile]) -> None:
    def cancel() -> None:
        raise Cancelled

    process = FaceProcess(threads=1)
    with pytest.raises(Cancelled):
        process.load(pack, cancel)
    assert process._process is None
    process.load(pack, go_on)
    process.close()


def test_a_pack_that_was_changed_is_refused(pack: list[StoredFile], tmp_path: Path) -> None:
    files = []
    for file in pack:
        path = tmp_path / file.path.name
        path.write_bytes(file.path.read_bytes())
        files.append(StoredFile(path, file.digest, file_fingerprint(path)))
    files[0].path.write_bytes(files[0].path.read_bytes())
    process = FaceProcess(threads=1)
    with pytest.raises(FileChangedError):
        process.load(files, go_on)
    process.close()


def test_a_server_without_the_packages_says_what_to_do(pack: list[StoredFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PACKAGES", ("no_such_package",))
    with pytest.raises(FaceError, match="extra `faceid`"):
        FaceProcess(threads=1).load(pack, go_on)
