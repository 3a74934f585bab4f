"""Files of records, piece by piece: what could be read, and what could not, by line."""
