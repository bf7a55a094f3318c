"""What tests have in common: each module has one subject."""
