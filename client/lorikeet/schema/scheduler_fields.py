"""The scheduler's name and the custom timesteps or sigmas that may replace its schedule."""

from enum import Enum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, model_validator
from typing_extensions import Self

from lorikeet.schema.base import Float, Int, Model

MAX_SCHEDULE = 1000

Step = TypeVar("Step")


class SchedulerName(str, Enum):
    """The samplers of the API, under the API's names."""

    DPMPP_2M = "DPM++ 2M"
    DPMPP_2M_KARRAS = "DPM++ 2M Karras"
    DPMPP_2M_SDE = "DPM++ 2M SDE"
    DPMPP_2M_SDE_KARRAS = "DPM++ 2M SDE Karras"
    EULER = "Euler"
    EULER_A = "Euler A"
    EULER_TRAILING = "Euler (trailing timesteps)"
    LCM = "LCM"
    LCM_TRAILING = "LCM (trailing timesteps)"
    DDIM = "DDIM"
    TCD = "TCD"


class _CustomSchedule(Model, Generic[Step]):
    method: Literal["default", "array"] = Field(
        default="default", description="'array' replaces the scheduler's own schedule by `array`."
    )
    array: list[Step] = Field(
        default_factory=list,
        max_length=MAX_SCHEDULE,
        description="The schedule, first step first; read only when method is 'array'.",
    )

    @model_validator(mode="after")
    def _array_is_given(self) -> Self:
        if self.is_custom and not self.array:
            raise ValueError("method 'array' needs a nonempty array")
        return self

    @property
    def is_custom(self) -> bool:
        """Whether this replaces the scheduler's own schedule."""
        return self.method == "array"


class TimestepsInput(_CustomSchedule[Annotated[Int, Field(ge=0)]]):
    """Custom timesteps of the training schedule, descending."""


class SigmasInput(_CustomSchedule[Annotated[Float, Field(ge=0)]]):
    """Custom noise levels, descending."""
