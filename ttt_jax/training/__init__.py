"""Optimizer, state, step, checkpoints, metrics and the loop."""
