"""Where the model's files are."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
WEIGHTS = _HERE / "weights"  # in git
CHECKPOINT = WEIGHTS / "scenes"
LORAS = WEIGHTS / "loras"
TRAINING = _HERE.parents[1] / ".tools" / "training"  # not in git
