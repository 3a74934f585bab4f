"""What a data set holds: its figures, its rows as training sees them, its records."""
