"""The messages of Lorikeet, shared by client, server, gateway and docs. Its only dependency is pydantic."""

from lorikeet.schema.base import FileRef, Model
from lorikeet.schema.controlnet import ControlNet
from lorikeet.schema.describe_errors import describe_errors
from lorikeet.schema.ip_adapter import IPAdapter
from lorikeet.schema.jobs import JobRequest, JobStatus
from lorikeet.schema.receipt import MAX_REF, SENT, AppliedLora, EngineReceipt, LayerGroup, Receipt, UnmatchedTensors
from lorikeet.schema.request import ImageToImageInput
from lorikeet.schema.response import File, Image, ImageToImageOutput
from lorikeet.schema.scheduler_fields import SchedulerName, SigmasInput, TimestepsInput
from lorikeet.schema.size import ImageSize, ImageSizePreset, size_in_pixels
from lorikeet.schema.unknown_fields import unknown_field_warnings
from lorikeet.schema.walk import file_refs, map_file_refs
from lorikeet.schema.weights import Embedding, LoraWeight

__all__ = [
    "MAX_REF",
    "SENT",
    "AppliedLora",
    "ControlNet",
    "Embedding",
    "EngineReceipt",
    "File",
    "FileRef",
    "IPAdapter",
    "Image",
    "ImageSize",
    "ImageSizePreset",
    "ImageToImageInput",
    "ImageToImageOutput",
    "JobRequest",
    "JobStatus",
    "LayerGroup",
    "LoraWeight",
    "Model",
    "Receipt",
    "SchedulerName",
    "SigmasInput",
    "TimestepsInput",
    "UnmatchedTensors",
    "describe_errors",
    "file_refs",
    "map_file_refs",
    "size_in_pixels",
    "unknown_field_warnings",
]
