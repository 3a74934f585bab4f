"""What a trained model is worth: likelihood, word error rates, the report."""
