"""The fal protocol over Triton: run, queue, storage, webhooks and a playground, for the unchanged fal clients."""
