"""Webhooks: their messages, signatures and delivery."""
