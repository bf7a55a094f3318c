"""The wire protocol without a socket, a clock or an event loop: bytes and descriptors in, messages out."""
