"""Parameters from and to the layout of Hugging Face checkpoints."""
