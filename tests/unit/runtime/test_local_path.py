"""Names of other alphabets where the file system encoding is ASCII, as in Triton's stubs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from safetensors.numpy import save_file

from runtime.files.local_path import LocalPath, ascii_folder, path_of, path_text

NAMES = ["青禅_ZEN", "peñoles v1", "🦜", "plain"]

# Everything that `prepare` and a later stage do with a path, in a process that prints ASCII only.
_SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save
from lorikeet.schema import ImageToImageInput
from runtime.files.local_path import ascii_folder
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import SafetensorsFile, read_header
from runtime.files.store import Store
from runtime.files.stored_file import FileChangedError, check_unchanged
from runtime.lora.lora_receipt import LoraReceipt
from runtime.plan import LoraPlan
from runtime.settings import load_settings

assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
folder, name = Path(sys.argv[1]), sys.argv[2].encode().decode("unicode_escape")
settings = load_settings()
assert settings.local_paths == (folder,)
store = Store(settings.store, 1 << 20)
sources = FileResolver(settings, store)
request = ResolveContext([save({"sent": np.zeros(3)})], store.pins(), lambda: None)
kept = sources.lora("field", "tensor:0", request)
assert list(read_header(kept.path).tensors) == ["sent"] and kept.path.is_relative_to(folder)
SafetensorsFile(kept.path).read_floats("sent")
for value in (f"{name}.safetensors", f"{name}/{name}.safetensors"):
    for _ in range(2):
        stored = sources.lora("field", value, request)
    receipt = LoraReceipt(
        tensors=0, matched=0, layers=0, groups=(), embeddings=(), unmatched=(), is_alpha_assumed=False
    )
    plan = LoraPlan(
        field="f", path=stored.path, digest=stored.digest, scale=1, components=frozenset(), receipt=receipt
    )
    assert f"{name}.safetensors" in plan.model_dump_json()
    again = LoraPlan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert list(read_header(again.path).tensors) == ["a"]
    SafetensorsFile(again.path, stored.fingerprint).read_floats("a")
    try:
        check_unchanged(again.path, "another")
    except FileChangedError as error:
        assert f"{name}.safetensors was changed" in str(error)
found = sources.checkpoint("field", name, request)
with ascii_folder(found.path) as link:
    assert str(link).isascii() and list(link.iterdir())
sources.image("field", f"{name}.png", request)
print("done")
"""


@pytest.mark.parametrize("place", ["", "möbel 青"])
@pytest.mark.parametrize("name", NAMES)
def test_every_use_of_a_path_works_in_an_ascii_locale(tmp_path: Path, name: str, place: str) -> None:
    """`place`: the folder of the settings."""
    root = tmp_path / place
    for folder in (root, root / name):
        folder.mkdir(exist_ok=True)
        save_file({"a": np.zeros(3, np.float32)}, folder / f"{name}.safetensors")
        (folder / f"{name}.png").write_bytes(b"\0png")
    tokens = root / "tokens.json"
    tokens.write_text('{"a.example": "secret"}')
    tokens.chmod(0o600)
    paths = {"LORIKEET_STORE": root / "store", "LORIKEET_LOCAL_PATHS": root, "LORIKEET_TOKENS": tokens}
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    escaped = name.encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(root), escaped],
        env=os.environ | locale | {variable: str(path) for variable, path in paths.items()},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "done\n", done.stderr


class _Record(BaseModel):
    path: LocalPath


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_text_in_json(name: str) -> None:
    record = _Record(path=Path("/a") / name)
    assert name in record.model_dump_json()
    assert _Record.model_validate_json(record.model_dump_json()) == record
    assert path_of(path_text(record.path)) == record.path


def test_other_values_are_no_path() -> None:
    for value in ('{"path": 5}', '{"path": null}', '{"path": []}'):
        with pytest.raises(ValidationError):
            _Record.model_validate_json(value)


def test_a_link_of_ascii_characters_leads_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "青"
    folder.mkdir()
    (folder / "file").touch()
    with ascii_folder(folder) as link:
        assert str(link).isascii() and (link / "file").exists()
    assert not link.exists() and (folder / "file").exists()
    with ascii_folder(tmp_path) as link:
        assert link == tmp_path
