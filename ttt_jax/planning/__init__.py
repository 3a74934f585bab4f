"""What a step will need and cost on TPUs that nobody has rented yet."""
