"""The VAE's stages. A picture that is too large for one call is processed in tiles, and each tile is a call."""
