"""A model behind HTTP: one batch for all who ask, and a page to talk with it."""
