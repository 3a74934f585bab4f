"""The embedded data set: spoken digit strings and arithmetic, made on the spot."""
