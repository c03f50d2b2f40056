"""`python -m benchmarks.gpu.table` (`make readme`): write the README's measurements on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.readme import write_part

RESULT = Path(__file__).resolve().parent / "results" / "h200.json"
_SETUPS = {"sd15": "SD 1.5, 512 px", "sdxl": "SDXL, 1024 px"}


def gpu_table(path: Path = RESULT) -> str:
    """Markdown: a row for each measurement, a column for each checkpoint, and the machine."""
    result = json.loads(path.read_text("utf-8"))
    sections, machine = result["sections"], result["machine"]
    columns = [_column(sections, name) for name in _SETUPS]
    lines = [f"| float16 | {' | '.join(_SETUPS.values())} |", "|---|---|---|"]
    lines += [f"| {label} | {' | '.join(column[label] for column in columns)} |" for label in columns[0]]
    versions = machine["versions"]
    about = (
        f"{machine['gpu']}; torch {versions['torch']}, diffusers {versions['diffusers']}, CUDA {machine['cuda']}; "
        f"commit {machine['commit']}; {machine['date'][:10]}; `make gpu-bench`, without Triton."
    )
    return "\n".join(lines) + f"\n\n{about}\n"


def _column(sections: dict[str, Any], name: str) -> dict[str, str]:
    """Label -> figure for one checkpoint."""
    eager, channels_last = (sections[f"{name} pairs, {form}"] for form in ("eager", "channels_last"))
    bare = [sections[f"{name} bare, {form}"] for form in ("ours", "diffusers eager", "diffusers channels_last")]
    loop, loras, pictures = (sections[f"{name} {section}"] for section in ("loop", "LoRAs", "pictures"))
    precisions = sections[f"{name} precisions"].values()
    return {
        "UNet call of two rows: ours; diffusers eager; channels_last": "; ".join(map(_milliseconds, bare)),
        "UNet call, relative to a step of a job (the step's other work is the rest)": f"{loop['bare over loop']:.3f}",
        "request of 30 steps: ours; diffusers eager; channels_last": (
            f"{eager['ours']:.2f} s; {eager['diffusers']:.2f} s; {channels_last['diffusers']:.2f} s"
        ),
        "request, relative to diffusers: eager; channels_last": (
            f"{eager['ours over diffusers']:.2f}; {channels_last['ours over diffusers']:.2f}"
        ),
        "a LoRA never seen; seen before: time until its first step": (
            f"{loras['a LoRA never seen, seconds until the job can step']:.3f} s; {loras['a LoRA seen before']:.3f} s"
        ),
        "8 requests with 8 LoRAs at once, relative to the same LoRA; to one at a time": (
            f"{loras['at once, different LoRAs'] / loras['at once, the same LoRA']:.2f}; "
            f"{loras['at once, different LoRAs'] / loras['one at a time']:.2f}"
        ),
        "largest error of a UNet call against float32: float16; bfloat16": "; ".join(
            f"{max(errors[dtype] for errors in precisions):.4f}" for dtype in ("float16", "bfloat16")
        ),
        "picture after 8 steps against diffusers in float32, PSNR: ours; diffusers": (
            f"{pictures['ours']:.1f} dB; {pictures['diffusers']:.1f} dB"
        ),
    }


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    write_part("gpu", gpu_table())
