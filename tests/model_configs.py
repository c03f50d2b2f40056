"""The configurations of the Triton models in this repository."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from runtime.settings import ROOT

MODELS = ROOT / "model_repository"


def model_names() -> set[str]:
    return {path.parent.name for path in MODELS.glob("*/config.pbtxt")}


def model_config(model: str) -> ModelConfig:
    config = ModelConfig()
    text_format.Parse((MODELS / model / "config.pbtxt").read_text(), config)
    return config
