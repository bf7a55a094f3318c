"""What a call costs, beside what it cannot do without."""
