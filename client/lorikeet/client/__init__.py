"""The client: asyncio and synchronous, over gRPC or HTTP."""
