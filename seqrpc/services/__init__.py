"""Services: methods, who may call them, and what happens when someone does."""
