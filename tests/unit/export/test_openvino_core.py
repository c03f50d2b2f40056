"""OpenVINO and the signals of its process."""

from __future__ import annotations

import subprocess
import sys

# faulthandler as pytest has it on: Python's handlers run on the stack for signals that the thread has.
_PROGRAM = """
import faulthandler, os, signal
import numpy, torch
import openvino as ov
from openvino import opset13 as operators
from runtime.engines.openvino.compiler import Compiler

faulthandler.enable()
signal.signal(signal.SIGINT, lambda *_: print("handled"))

def compiled():
    x = operators.parameter([2, 2], numpy.float32)
    compiler = Compiler(torch.float32, 1)
    return compiler, compiler.compile(ov.Model([operators.relu(x)], [x]))

first, second = compiled(), compiled()
del first
del second
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_arrives_after_two_compilers_are_gone() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
