"""What the operating system offers: descriptors, credentials, sockets. No asyncio, no MessagePack, no RPC words."""
