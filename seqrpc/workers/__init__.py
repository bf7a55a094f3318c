"""Children on socket pairs: one, several of them, and what runs in them."""
