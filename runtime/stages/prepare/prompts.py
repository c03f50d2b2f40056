"""Checks the weights in prompts, and warns of what is read as plain text although other interfaces apply it."""

from __future__ import annotations

import re

from lorikeet.protocol.shorten import listed, shorten
from lorikeet.schema import ImageToImageInput
from runtime.prompts.weighting import PromptError, parse_weights
from runtime.stage_errors import InvalidArgument

_SHOWN, _LONGEST = 3, 40
# Each pattern reads at most this many characters from one place, so the time is linear.
_WITHIN = "{1,300}?"
_TAG = re.compile(rf"<(?:lora|lyco|hypernet):[^<>]{_WITHIN}>", re.IGNORECASE)
# A1111's grammar: (text:1.4), ((text)), [text]; a backslash makes a bracket plain text. Single parentheses without a
# number are usual in plain text.
_WEIGHT = re.compile(
    rf"(?<!\\)\((?:[^()\\]|\\.){_WITHIN}:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)"
    rf"|(?<!\\)\(\((?:[^()\\]|\\.){_WITHIN}\)\)"
    rf"|(?<!\\)\[(?:[^\[\]\\]|\\.){_WITHIN}\]"
)
# A1111's prompt editing: [from:to:0.5], [to:0.5] and [one|other] change the prompt between steps.
_EDIT = re.compile(r"(?<!\\)\[[^\[\]]{0,300}?(?::\s*[0-9.]+\s*|\|[^\[\]]{0,300}?)\]")


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for a prompt whose weights cannot be read."""
    for field, prompt in _prompts(request) if request.prompt_weighting else ():
        try:
            parse_weights(prompt)
        except PromptError as error:
            raise InvalidArgument(field, str(error)) from error


def warnings(request: ImageToImageInput) -> list[str]:
    """A warning for each prompt with LoRA tags, for each with weights while prompt_weighting is off, and for each with
    A1111's prompt editing while it is on."""
    found = []
    for field, prompt in _prompts(request):
        if tags := _TAG.findall(prompt):
            found.append(f"{field}: {_quoted(tags)} read as plain text; name LoRAs in the field loras")
        if not request.prompt_weighting and (weights := _WEIGHT.findall(_TAG.sub(" ", prompt))):
            found.append(f"{field}: {_quoted(weights)} read as plain text, because prompt_weighting is off")
        if request.prompt_weighting and (edits := _EDIT.findall(prompt)):
            found.append(f"{field}: {_quoted(edits)} read as text of less weight; prompt editing is not supported")
    return found


def _prompts(request: ImageToImageInput) -> tuple[tuple[str, str], ...]:
    """Field and text of both prompts."""
    return ("prompt", request.prompt), ("negative_prompt", request.negative_prompt)


def _quoted(texts: list[str]) -> str:
    verb = "is" if len(texts) == 1 else "are"
    return f"{listed([repr(shorten(text, _LONGEST)) for text in texts], _SHOWN)} {verb}"
