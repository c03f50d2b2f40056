"""The image prompts of IP-Adapters, as keys and values of the UNet's cross-attention."""
