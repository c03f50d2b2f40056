"""Inputs of networks that no engine rounds to a lower precision."""

# bfloat16 would round neighbouring timesteps to one value. The last three are integers.
EXACT_INPUTS = frozenset({"t", "time_ids", "ids", "end", "ip_mask_index"})
