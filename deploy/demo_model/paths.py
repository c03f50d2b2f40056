"""Paths of the model's files."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
WEIGHTS = _HERE / "weights"  # in git
CHECKPOINT = WEIGHTS / "scenes"
LORAS = WEIGHTS / "loras"
LCM_LORA = LORAS / "lcm.safetensors"
EMBEDDINGS = WEIGHTS / "embeddings"
CONTROLNET = WEIGHTS / "controlnet_edges"
IP_ADAPTER = WEIGHTS / "ip_adapter"
IP_ADAPTER_FILE = "ip_adapter.safetensors"
IMAGE_ENCODER = IP_ADAPTER / "image_encoder"  # where diffusers looks for it
TRAINING = _HERE.parents[1] / ".tools" / "training"  # not in git
