"""Who listens to what a model says, and writes it down."""
