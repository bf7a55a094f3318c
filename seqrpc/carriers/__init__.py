"""Asyncio: transports, listeners, and connections that carry a session."""
