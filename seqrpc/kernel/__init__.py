"""What the operating system offers: descriptors, credentials, sockets. No asyncio, no codec, no RPC words."""
