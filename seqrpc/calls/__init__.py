"""What holds for calls whoever makes and answers them, with an event loop and without."""
