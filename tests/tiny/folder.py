"""Everything in one folder, written once."""

import fcntl
import os
import shutil
import tempfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

STAMP = "complete"
LIBRARIES = ("diffusers", "onnx", "safetensors", "torch", "transformers")


def write_all(folder: Path) -> None:
    """Write all checkpoints and LoRAs into `folder`, unless what is there was written by this very writer.

    The same writer writes the same bytes. The folder appears complete or not at all.
    """
    if _is_current(folder):
        return
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    _write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def tiny_folder() -> Path:
    """The folder of `write_all` that the tests of this machine share, written by whoever asks first."""
    folder = Path(tempfile.gettempdir()) / f"lorikeet-tiny-{VERSION[:16]}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        write_all(folder)
    return folder


def writer_version() -> str:
    """A digest of this package's source and of the versions of the libraries that it writes with."""
    digest = sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library}={version(library)}\n".encode())
    return digest.hexdigest()


# Of the source that this process runs, which may be edited meanwhile.
VERSION = writer_version()


def _is_current(folder: Path) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == VERSION


def _write(folder: Path) -> None:
    # Here, because they import torch and diffusers: seconds, for nothing when the folder is there already.
    from tests.tiny.checkpoints import (
        write_everything,
        write_lcm,
        write_sd2,
        write_sd15,
        write_sd15_oldnames,
        write_sdxl,
        write_single_files,
    )
    from tests.tiny.controlnets import write_controlnets
    from tests.tiny.embeddings import write_bundle, write_embeddings
    from tests.tiny.face_adapters import write_face_adapters
    from tests.tiny.face_pack import write_face_pack
    from tests.tiny.ic_light import write_ic_light
    from tests.tiny.ip_adapters import write_ip_adapters
    from tests.tiny.loras import SD15_PARTS, SDXL_PARTS, write_kohya, write_peft
    from tests.tiny.text_encoders import WIDTH, WIDTH_2, WIDTH_H

    sd15, sd2, sdxl, loras = (folder / name for name in ("sd15", "sd2", "sdxl", "loras"))
    write_sd15(sd15)
    write_sd15_oldnames(folder / "sd15-oldnames", sd15)
    write_sd2(sd2)
    write_sdxl(sdxl)
    write_lcm(folder / "lcm")
    write_single_files(folder / "single", sd15, sd2, sdxl)
    write_everything(folder / "everything")
    write_controlnets(folder / "controlnets")
    write_ic_light(folder / "ic_light", sd15)
    for checkpoint in (sd15, sd2, sdxl):
        write_ip_adapters(folder / "ip_adapters" / checkpoint.name, checkpoint)
        write_face_adapters(folder / "ip_adapters" / checkpoint.name, checkpoint)
    write_face_pack(folder / "face_pack")
    write_peft(loras / "sd15" / "peft.safetensors", sd15, SD15_PARTS, 41, alpha=6)
    write_kohya(loras / "sd15" / "kohya.safetensors", sd15, SD15_PARTS, 42)
    write_peft(loras / "sd2" / "peft.safetensors", sd2, SD15_PARTS, 45, alpha=2)
    write_kohya(loras / "sd2" / "kohya.safetensors", sd2, SD15_PARTS, 46)
    write_peft(loras / "sdxl" / "peft.safetensors", sdxl, SDXL_PARTS, 43, alpha=None)
    write_kohya(loras / "sdxl" / "kohya.safetensors", sdxl, SDXL_PARTS, 44)
    for name, widths, seed in (("sd15", (WIDTH,), 71), ("sd2", (WIDTH_H,), 72), ("sdxl", (WIDTH, WIDTH_2), 73)):
        embeddings = folder / "embeddings" / name
        write_embeddings(embeddings, widths, seed)
        of_kind = loras / name
        write_bundle(of_kind / "bundled.safetensors", of_kind / "kohya.safetensors", embeddings / "two.safetensors")
    (folder / STAMP).write_text(VERSION, encoding="utf-8")
