"""The durable queue: requests are DBOS workflows; what clients ask of them is answered from memory."""
