"""A stage's libraries work without the packages that a stage hides from them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from runtime.settings import ROOT
from runtime.triton.lean_imports import DIFFUSERS_EXTRAS, without

_IMPORTS = """
import sys
from runtime.triton.lean_imports import DIFFUSERS_EXTRAS, without
with without(DIFFUSERS_EXTRAS):
    from runtime.networks.build import import_network
    for kind in ("unet", "vae_encoder", "vae_decoder"):
        import_network(kind)
    import runtime.schedulers.schedule
print(*(name for name in DIFFUSERS_EXTRAS if name in sys.modules))
"""


def test_the_networks_and_schedulers_import_none_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr[-2000:]


def test_a_hidden_package_cannot_be_imported_and_then_it_can() -> None:
    sys.modules.pop("this", None)
    with without(("this",)), pytest.raises(ModuleNotFoundError):
        import_module("this")
    assert import_module("this").d


def test_a_package_that_is_imported_already_stays() -> None:
    json = sys.modules["json"]
    with without(("json", *DIFFUSERS_EXTRAS[:1])):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json
