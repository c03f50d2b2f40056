"""The tables of TensorRT plans contain what the result files contain."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tensorrt.table import TINY_PAGE, TINY_RESULT, tiny_page, trt_full_table
from tests.unit.export.networks import ALL_NETWORKS

PLAN = {
    "weights": 686,
    "names in the plan": 685,
    "build seconds": 61.44,
    "plan MB": 155.2,
    "compressed MB": 0.84,
    "peak MB": 1319,
    "machine": {
        "precision": "float16",
        "target": "8.9",
        "version": "tensorrt_rtx 1.7.1.116",
        "cpu": "A processor",
        "cores": 2,
        "load": 1.0,
        "commit": "abc",
        "date": "2031-02-03T04:05:06+00:00",
    },
}


def test_without_a_result_the_table_names_the_command(tmp_path: Path) -> None:
    assert "`make trt-full`" in trt_full_table(tmp_path / "full_size.json")


def test_a_row_for_each_plan_and_a_line_for_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "full_size.json"
    path.write_text(json.dumps({"plans": {"sd15-unet": PLAN, "sdxl-unet": PLAN}}))
    lines = trt_full_table(path).splitlines()
    assert lines[2] == "| SD 1.5 unet | 685 of 686 | 61 s | 1,319 MB | 155 MB | 0.8 MB |"
    assert lines[3].startswith("| SDXL unet |")
    assert lines[5:] == [
        "tensorrt_rtx 1.7.1.116, float16, compute capability 8.9; A processor, 2 cores; commit abc; 2031-02-03; "
        "`make trt-full`."
    ]


def test_the_page_of_tiny_plans_is_that_of_the_result() -> None:
    """Every tiny network is in it, and each of its weights is in the plan."""
    assert TINY_PAGE.read_text("utf-8") == tiny_page()
    plans = json.loads(TINY_RESULT.read_text("utf-8"))["plans"]
    assert plans.keys() == ALL_NETWORKS.keys()
    assert all(found["weights"] == found["names in the plan"] > 0 for found in plans.values())


def test_a_row_of_a_tiny_plan(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"plans": {"small unet": PLAN | {"LoRA inputs": 20, "processor seconds": 70.1}}}))
    lines = tiny_page(path).splitlines()
    assert "| small unet | 20 | 685 of 686 | 61.44 s | 70.1 s | 155.2 MB | 0.84 MB |" in lines
    assert lines[-2].endswith("2031-02-03; `make trt-tiny`.")
    assert lines[-1] == "Load average of the machine before: 1.0."
