"""The kinds of LoRA that are read: one module each, no torch at import. A new kind is a module and a place in KINDS."""

from runtime.lora.kinds.difference import BIAS_DIFFERENCE, DIFFERENCE
from runtime.lora.kinds.kind import Kind
from runtime.lora.kinds.loha import LOHA
from runtime.lora.kinds.lokr import LOKR
from runtime.lora.kinds.lora import LORA

KINDS: tuple[Kind, ...] = (LORA, LOHA, LOKR, DIFFERENCE, BIAS_DIFFERENCE)
