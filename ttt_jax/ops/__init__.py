"""Pure functions on arrays: attention by intervals."""
