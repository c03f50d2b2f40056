"""`python -m deploy.tensorrt_stubs` (`make stubs`): write the stubs of TensorRT's bindings again.

Run it when a file calls more of TensorRT, or for another version of the bindings.
"""

from __future__ import annotations

import subprocess
import sys

from deploy.tensorrt_stubs.bindings import BINDINGS, Bindings, raw_stub
from deploy.tensorrt_stubs.reduce import Used, reduce_stub, used_by_callers

_HEADER = '''"""The signatures of {title} that this repository calls; written by `make stubs`."""

'''


def stub(bindings: Bindings, used: Used) -> str:
    """The stub, formatted as the repository is."""
    text = _HEADER.format(title=bindings.title) + reduce_stub(raw_stub(bindings), used)
    for command in (["check", "--fix", "--quiet", "--select", "F401,I"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(bindings.stub), "-"]
        text = subprocess.run(ruff, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    return text


def main() -> None:
    used = used_by_callers()
    for bindings in BINDINGS.values():
        bindings.stub.parent.mkdir(exist_ok=True)
        bindings.stub.write_text(stub(bindings, used), "utf-8")
        sys.stdout.write(f"{bindings.stub}\n")


if __name__ == "__main__":
    main()
