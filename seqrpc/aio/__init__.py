"""The event loop's side: packets, connections, streams, services that are called, servers and clients."""
