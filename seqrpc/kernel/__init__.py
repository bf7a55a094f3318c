"""What the operating system gives: descriptors, credentials, sockets. No asyncio, no codec, no RPC words."""
