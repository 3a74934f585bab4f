"""Pure functions on arrays: attention by intervals, cross-entropy by chunks."""
