"""Local files of a request: names of any alphabet, and what a hostile name can try."""

from __future__ import annotations

import errno
import unicodedata
from pathlib import Path

import pytest
from huggingface_hub import constants

from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.faults import raising
from tests.unit.runtime.resolving import CONTENT, EVERY_KIND, WEIGHTS, read_source


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "value", ["dir/FILE", "./dir/FILE", "dir/../dir/FILE", "inner/FILE", "TOP/dir/FILE", " dir/FILE\n"]
)
def test_a_file_in_an_allowed_folder_is_read(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path, kind: str, value: str
) -> None:
    value = value.replace("TOP", str(allowed)).replace("FILE", {"image": "picture", "weights": "file"}[kind])
    assert read_source(sources, kind, value, request_) == CONTENT[kind]


NAMES = [
    "青禅_ZEN",
    "my lora (v1.0) [x]",
    "peñoles",
    "картинка",
    "🦜",
    "a%20b",
    "#1 100%",
    " lead",
    "trail ",
    "pe\u0301",
]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", NAMES)
def test_a_local_name_may_be_in_any_alphabet(
    sources: FileResolver, request_: ResolveContext, allowed: Path, kind: str, name: str
) -> None:
    (allowed / name).write_bytes(CONTENT[kind])
    spellings = [name]
    if name == name.strip():  # as a Mac spells it, and as others do
        spellings += [f"{unicodedata.normalize(form, name)}\n" for form in ("NFC", "NFD")]
    for spelling in spellings:
        assert read_source(sources, kind, spelling, request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "value",
    [
        "../secret",
        "./../secret",
        "dir/../../secret",
        "SECRET",
        "link",
        "out/secret",
        "loop",
        "loop/file",
        "dir",
        "dir/missing",
        "~/secret",
        "/etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "dir/file\0.png",
        "dir/\ud800",  # as no file system spells it, nor Triton's Python anything but ASCII
        "x" * 300,
        "x" * 5000,
        "dir/" + "x" * 300,
        "dir/file/x",
        ".",
        " ",
    ],
)
def test_no_other_file_is_read(
    sources: FileResolver,
    request_: ResolveContext,
    secret: Path,
    kind: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidArgument, match=r"^field: "):
        read_source(sources, kind, value.replace("SECRET", str(secret)), request_)


def test_whether_a_file_outside_exists_is_not_told(
    sources: FileResolver, request_: ResolveContext, secret: Path, tmp_path: Path
) -> None:
    def answer(path: Path) -> str:
        with pytest.raises(InvalidArgument) as caught:
            sources.lora("field", str(path), request_)
        return str(caught.value).replace(path.name, "")

    assert answer(secret) == answer(tmp_path / "absent")


def test_without_a_setting_no_local_file_is_read(settings: Settings, store: Store, request_: ResolveContext) -> None:
    sources = FileResolver(settings.model_copy(update={"local_paths": ()}), store)
    with pytest.raises(InvalidArgument, match="LORIKEET_LOCAL_PATHS"):
        sources.image("field", "/etc/hostname", request_)


def test_a_local_file_that_may_not_be_read_is_named(
    sources: FileResolver, request_: ResolveContext, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (allowed / "a").write_bytes(WEIGHTS)
    monkeypatch.setattr(Path, "open", raising(PermissionError(errno.EACCES, "Permission denied")))
    for kind in EVERY_KIND:
        with pytest.raises(InvalidArgument, match=r"^field: a cannot be read \(Permission denied\)"):
            read_source(sources, kind, "a", request_)
