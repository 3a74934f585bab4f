"""Tiny random checkpoints as transformers writes them."""

import functools
import json
import pathlib

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

ROWS = 340  # of the embedding: more than the tokenizer has ids
LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 24,  # so that few positions tell it from none
}

# Their classes, and what else their config says. The sizes are those of `make`.
FAMILIES = {
  'qwen2': ('Qwen2', {'tie_word_embeddings': True}),
  'qwen2 untied': ('Qwen2', {'tie_word_embeddings': False}),
  'qwen3': ('Qwen3', {'tie_word_embeddings': False, 'head_dim': 24}),
  'llama': ('Llama', {'tie_word_embeddings': False}),
  'llama3': ('Llama', {'tie_word_embeddings': True, 'rope': LLAMA3}),
  'linear': ('Llama', {'rope': {'rope_type': 'linear', 'factor': 3.0}}),
}


def make(family: str, rows: int = ROWS, dtype=torch.float32):
  """Their random model, in which biases and norms matter too."""
  name, more = FAMILIES[family]
  more = dict(more)
  rope = {'rope_type': 'default', **more.pop('rope', {}), 'rope_theta': 500.0}
  torch.manual_seed(0)
  config = getattr(transformers, name + 'Config')(
    vocab_size=rows,
    hidden_size=64,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_parameters=rope,
    rms_norm_eps=1e-5,
    attn_implementation='sdpa',
    **more,
  )
  theirs = getattr(transformers, name + 'ForCausalLM')(config)
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter += 0.05 * torch.randn_like(parameter)
  return theirs.to(dtype).eval()


@functools.cache
def tokenizer_json(*more: str) -> str:
  """A byte-level tokenizer like Qwen's, with `more` tokens behind its own specials."""
  made = tokenizers.Tokenizer(models.BPE())
  made.normalizer = normalizers.NFC()
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  corpus = ['system\n', 'user\n', 'assistant\n', 'the quick brown fox', ' jumps over it'] * 9
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  made.train_from_iterator(
    corpus,
    trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False),
  )
  made.add_special_tokens(['<|endoftext|>', '<|im_start|>', '<|im_end|>'])
  made.add_tokens(list(more))
  return made.to_str()


def save(theirs, directory: pathlib.Path, *more: str, **settings) -> pathlib.Path:
  """Writes a model and a tokenizer; `settings` go to `save_pretrained`."""
  theirs.save_pretrained(directory, **settings)
  (directory / 'tokenizer.json').write_text(tokenizer_json(*more), encoding='utf-8')
  return directory


def edit(directory: pathlib.Path, **changes) -> None:
  """Changes keys of config.json; None takes them away."""
  path = directory / 'config.json'
  values = json.loads(path.read_text()) | changes
  values = {key: value for key, value in values.items() if value is not None}
  path.write_text(json.dumps(values))


def tensors_of(theirs) -> dict:
  """Their tensors by name, as a file has them."""
  found = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
  if theirs.config.tie_word_embeddings:
    found.pop('lm_head.weight')
  return found
