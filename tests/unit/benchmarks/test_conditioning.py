"""The step of a ControlNet is compared with the sum of both networks' calls."""

from __future__ import annotations

import pytest

from benchmarks.cases.conditioning import figures


def test_a_controlnet_step_is_relative_to_both_calls_and_an_ip_adapter_step_to_a_step_without() -> None:
    samples = {
        "without": [4.1, 4.0, 4.0],
        "IP-Adapter": [4.0, 4.2, 4.2],
        "ControlNet": [6.6, 6.6, 9.0],
        "UNet call": [4.0, 1.0, 5.0],
        "ControlNet call": [2.0],
    }
    ip_adapter, controlnet = figures(samples, "SD 1.5")
    assert ip_adapter.value == pytest.approx(1.05)
    assert controlnet.value == pytest.approx(1.1)
    assert [ip_adapter.at_most, controlnet.at_most] == [1.03, 1.05]
