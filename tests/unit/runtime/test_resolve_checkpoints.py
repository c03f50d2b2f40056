"""Checkpoints, and repositories of the Hub."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import quote

import pytest
import torch

from runtime.files.located import Folder, SingleFile
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.hub import downloaded, publish
from tests.unit.runtime.resolving import BASE64, WEIGHTS, read_source, sha256
from tests.unit.runtime.torch_files import saved
from tests.unit.runtime.web import Web, reply


def test_a_checkpoint_is_a_local_folder(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path
) -> None:
    assert sources.checkpoint("field", "inner", request_) == Folder(allowed / "dir", allowed)
    assert sources.checkpoint("field", str(allowed / "dir"), request_) == Folder(allowed / "dir", allowed)


def test_a_checkpoint_is_a_local_file(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path
) -> None:
    """What lies beside it may be read, and nothing outside of the allowed folder."""
    found = sources.checkpoint("field", "inner/file", request_)
    assert isinstance(found, SingleFile)
    assert (found.stored.path, found.inside) == (allowed / "dir/file", allowed)
    assert found.stored.digest == sha256(WEIGHTS)


@pytest.mark.parametrize("value", ["tensor:2", f"data:;base64,{BASE64['weights']}", "URL"])
@pytest.mark.parametrize("kind", ["checkpoint", "unet"])
def test_a_checkpoint_is_a_file_from_elsewhere(
    sources: FileResolver, request_: ResolveContext, web: Web, kind: str, value: str
) -> None:
    """It lies in the store, where nothing is beside it."""
    web.answers["/a"] = reply(WEIGHTS)
    found = getattr(sources, kind)("field", web.url("/a") if value == "URL" else value, request_)
    assert isinstance(found, SingleFile)
    assert found.inside is None
    assert found.stored.path.read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("inner/file", "file"),
        ("dir/control_shuffle.pth", "control_shuffle.pth"),
        ("dir/link_shuffle.safetensors\n", "link_shuffle.safetensors"),
        ("URL/models/control%5Fshuffle.pth?download=true#a/b", "control_shuffle.pth"),
        ("URL/models/", ""),
        ("tensor:2", ""),
        (f"data:;base64,{BASE64['weights']}", ""),
    ],
)
def test_a_file_has_the_name_of_the_request(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path, web: Web, value: str, name: str
) -> None:
    """Not the one of a link's target, or of the store."""
    (allowed / "dir/control_shuffle.pth").write_bytes(saved({"a": torch.ones(1)}))
    (allowed / "dir/link_shuffle.safetensors").symlink_to("file")
    for path in ("/models/control%5Fshuffle.pth", "/models/"):
        web.answers[path] = reply(WEIGHTS)
    found = sources.controlnet("field", value.replace("URL", web.url("")), request_)
    assert isinstance(found, SingleFile) and found.name == name


@pytest.mark.parametrize(
    "value", ["dir/missing", "out", "link", "../", "https://127.0.0.1:1/a.safetensors", "tensor:3"]
)
def test_nothing_else_is_a_checkpoint(
    sources: FileResolver, request_: ResolveContext, secret: Path, value: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: "):
        sources.checkpoint("field", value, request_)


def test_a_hub_id_is_a_lora(sources: FileResolver, request_: ResolveContext, hub: Web) -> None:
    publish(hub, "owner/name", {"lora.safetensors": WEIGHTS})
    assert read_source(sources, "weights", "owner/name", request_) == WEIGHTS
    assert read_source(sources, "weights", " owner/name\n", request_) == WEIGHTS


@pytest.mark.parametrize("name", ["青禅_ZEN.safetensors", "peñoles v1.safetensors"])
def test_a_lora_on_the_hub_may_have_a_name_of_any_alphabet(
    sources: FileResolver, request_: ResolveContext, hub: Web, name: str
) -> None:
    publish(hub, "owner/name", {name: WEIGHTS})
    hub.answers[f"/owner/name/resolve/main/{quote(name)}"] = reply(WEIGHTS)
    for _ in range(2):
        assert read_source(sources, "weights", "owner/name", request_) == WEIGHTS
    assert len([path for path, _ in hub.seen if "/resolve/" in path]) == 1


def test_a_hub_id_is_a_checkpoint(sources: FileResolver, request_: ResolveContext, hub: Web, tmp_path: Path) -> None:
    publish(hub, "owner/name", {"unet/config.json": b"{}"})
    folder = sources.checkpoint("field", "owner/name", request_)
    assert isinstance(folder, Folder)
    assert (folder.path / "unet/config.json").resolve().is_relative_to(folder.inside)
    assert folder.inside == tmp_path / "hub"


def test_a_hub_id_that_is_unknown_is_named(sources: FileResolver, request_: ResolveContext, hub: Web) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: owner/name: the Hugging Face Hub could not provide it"):
        sources.lora("field", "owner/name", request_)


def test_a_local_file_comes_before_a_hub_id(
    sources: FileResolver, request_: ResolveContext, hub: Web, secret: Path
) -> None:
    publish(hub, "dir/file", {"lora.safetensors": b"other"})
    assert read_source(sources, "weights", "dir/file", request_) == WEIGHTS
    assert downloaded(hub, "dir/file") == set()


def test_a_checkpoint_that_is_a_pickle_is_not_kept(
    sources: FileResolver, store: Store, web: Web, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    web.answers["/a"] = reply(buffer.getvalue())
    request = ResolveContext([buffer.getvalue()], store.pins(), lambda: None)
    for value in (web.url("/a"), "tensor:0"):
        with pytest.raises(InvalidArgument, match="it is a pickle"):
            sources.checkpoint("field", value, request)
        assert list((tmp_path / "store" / "blobs").iterdir()) == []
    assert sources.lora("field", web.url("/a"), request).digest == sha256(buffer.getvalue())
    with pytest.raises(InvalidArgument, match="it is a pickle"):
        sources.checkpoint("field", web.url("/a"), request)
