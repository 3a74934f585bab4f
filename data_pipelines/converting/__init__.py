"""From what was read to records: the forms of the authors and of raw audio."""
