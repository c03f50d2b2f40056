"""The kinds of LoRA that are read, one module each. A new kind is a module and an entry of KINDS.

Importing this takes no torch.
"""

from runtime.lora.kinds.difference import BIAS_DIFFERENCE, DIFFERENCE
from runtime.lora.kinds.loha import LOHA
from runtime.lora.kinds.lokr import LOKR
from runtime.lora.kinds.lora import LORA
from runtime.lora.kinds.lora_kind import LoraKind

KINDS: tuple[LoraKind, ...] = (LORA, LOHA, LOKR, DIFFERENCE, BIAS_DIFFERENCE)
