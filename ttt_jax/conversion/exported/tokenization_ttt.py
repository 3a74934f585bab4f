"""The text tokenizer of a TtT model: tokenizer.json as it stands.

Without a class of its own AutoTokenizer would take the one of the model's family, which cuts
text by the family's rules, whatever tokenizer.json says.
"""

from transformers import PreTrainedTokenizerFast


class TtTTokenizer(PreTrainedTokenizerFast):
  """Nothing is added to it."""
