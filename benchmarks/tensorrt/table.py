"""`python -m benchmarks.tensorrt.table` (`make readme`): write the README's table of full-size TensorRT plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.readme import write_part

RESULT = Path(__file__).resolve().parent / "results" / "full_size.json"
_FAMILIES = {"sd15": "SD 1.5", "sdxl": "SDXL"}
_UNMEASURED = "`make trt-full` builds plans of full size, and writes this table.\n"


def trt_full_table(path: Path = RESULT) -> str:
    """Markdown: a row for each plan, and what they were built on."""
    if not path.exists():
        return _UNMEASURED
    plans: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["plans"]
    lines = [
        "| network, without low-rank inputs | weights refittable by name | build | peak memory | plan | compressed |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(_title(name), found) for name, found in plans.items()]
    return (
        "\n".join(lines)
        + "\n\n"
        + "\n".join(dict.fromkeys(_about(found["machine"]) for found in plans.values()))
        + "\n"
    )


def _title(name: str) -> str:
    """Of a name as sd15-unet."""
    family, _, network = name.partition("-")
    return f"{_FAMILIES[family]} {network}"


def _row(title: str, found: dict[str, Any]) -> str:
    cells = (
        title,
        f"{found['names in the plan']} of {found['weights']}",
        f"{found['build seconds']:.0f} s",
        f"{found['peak MB']:,} MB",
        f"{found['plan MB']:.0f} MB",
        f"{found['compressed MB']:.1f} MB",
    )
    return f"| {' | '.join(cells)} |"


def _about(machine: dict[str, Any]) -> str:
    return (
        f"{machine['version']}, {machine['precision']}, compute capability {machine['target']}; {machine['cpu']}, "
        f"{machine['cores']} cores; commit {machine['commit']}; {machine['date'][:10]}; `make trt-full`."
    )


if __name__ == "__main__":
    write_part("trt-full", trt_full_table())
