"""Warns of weights and LoRA tags in prompts that are read as plain text. Other interfaces apply them."""

from __future__ import annotations

import re

from lorikeet.protocol.shorten import listed, shorten
from lorikeet.schema import ImageToImageInput

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


def warnings(request: ImageToImageInput) -> list[str]:
    """A warning for each prompt with LoRA tags, and for each with weights while prompt_weighting is off."""
    found = []
    for field, prompt in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
        if tags := _TAG.findall(prompt):
            found.append(f"{field}: {_quoted(tags)} read as plain text; name LoRAs in the field loras")
        if not request.prompt_weighting and (weights := _WEIGHT.findall(_TAG.sub(" ", prompt))):
            found.append(f"{field}: {_quoted(weights)} read as plain text, because prompt_weighting is off")
    return found


def _quoted(texts: list[str]) -> str:
    verb = "is" if len(texts) == 1 else "are"
    return f"{listed([repr(shorten(text, _LONGEST)) for text in texts], _SHOWN)} {verb}"
