"""What a service is, without running it: importing this loads no asyncio."""
