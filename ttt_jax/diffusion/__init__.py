"""The masking schedules, and the corruption of a document."""
