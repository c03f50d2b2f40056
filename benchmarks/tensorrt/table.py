"""`python -m benchmarks.tensorrt.table` (`make readme`): write the tables of TensorRT plans.

That of the full-size ones is in the README, and that of the tiny ones in a page beside the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.readme import write_part

_RESULTS = Path(__file__).resolve().parent / "results"
RESULT, TINY_RESULT, TINY_PAGE = _RESULTS / "full_size.json", _RESULTS / "tiny.json", _RESULTS / "tiny.md"
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
    return _with_machines(lines, plans)


_TINY_HEAD = """# TensorRT-RTX builds the plans of the tests' tiny networks

Each has the kinds of layers of the published network, and small widths (`tests/tiny`, `tests/unit/export/networks.py`).
`everything unet` has all optional inputs. The `small` UNets have two levels. Of the UNets, only these have LoRA inputs:
the builder needs many minutes for a UNet of four levels with them.

The builder runs without a GPU. Each weight is refittable by its name: the build fails otherwise. The seconds depend on
the load of the machine; processor time hardly does.
"""


def tiny_page(path: Path = TINY_RESULT) -> str:
    """Markdown: a page with a row for each tiny plan, and what they were built on."""
    plans: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["plans"]
    lines = [
        "| network | LoRA inputs | weights refittable by name | build | processor time | plan | compressed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in plans.items():
        weights, times = _refittable(found), f"{found['build seconds']} s | {found['processor seconds']} s"
        sizes = f"{found['plan MB']} MB | {found['compressed MB']} MB"
        lines.append(f"| {name} | {found['LoRA inputs'] or 'none'} | {weights} | {times} | {sizes} |")
    return f"{_TINY_HEAD}\n{_with_machines(lines, plans, 'make trt-tiny')}{_loads(plans)}"


def _loads(plans: dict[str, dict[str, Any]]) -> str:
    loads = sorted({found["machine"]["load"] for found in plans.values()})
    return f"Load average of the machine before: {', '.join(map(str, loads))}.\n"


def _with_machines(lines: list[str], plans: dict[str, dict[str, Any]], command: str = "make trt-full") -> str:
    machines = dict.fromkeys(_about(found["machine"], command) for found in plans.values())
    return "\n".join(lines) + "\n\n" + "\n".join(machines) + "\n"


def _title(name: str) -> str:
    """Of a name as sd15-unet."""
    family, _, network = name.partition("-")
    return f"{_FAMILIES[family]} {network}"


def _row(title: str, found: dict[str, Any]) -> str:
    cells = (
        title,
        _refittable(found),
        f"{found['build seconds']:.0f} s",
        f"{found['peak MB']:,} MB",
        f"{found['plan MB']:.0f} MB",
        f"{found['compressed MB']:.1f} MB",
    )
    return f"| {' | '.join(cells)} |"


def _refittable(found: dict[str, Any]) -> str:
    return f"{found['names in the plan']} of {found['weights']}"


def _about(machine: dict[str, Any], command: str) -> str:
    return (
        f"{machine['version']}, {machine['precision']}, compute capability {machine['target']}; {machine['cpu']}, "
        f"{machine['cores']} cores; commit {machine['commit']}; {machine['date'][:10]}; `{command}`."
    )


if __name__ == "__main__":
    write_part("trt-full", trt_full_table())
    TINY_PAGE.write_text(tiny_page(), "utf-8")
