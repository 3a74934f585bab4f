"""Tokens per second of decoding, against decoding that reads everything again at each step.

    python benchmarks/decode.py [--quick] [--json FILE]

The same random weights (about 100 M parameters; 8 M with --quick) answer prompts of several
lengths that end by beginning audio, greedily in float32, with the authors' blocks of 26 tokens
in 2 steps: two blocks, then 64 tokens of text. The other side is the authors' algorithm in
torch, honestly: no cache, one pass of transformers' Qwen2 over the whole sequence for each
token of text and each step of diffusion (sdpa with a mask of all pairs, logits only where they
are wanted). The more of an answer is text, and the longer its context, the larger the ratio.
Compilation is not timed; the number of compilations is printed. `same` counts the tokens up to
the first that differs. Run it on an idle machine: threads that wait for each other slow torch
down more than XLA.
"""

import dataclasses
import time

import jax
import numpy as np
import record
import torch
import transformers
from flax import linen as nn

from configs import base
from ttt_jax import config as config_lib
from ttt_jax import machine
from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.conversion import families, table
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder

FORMULA = 'tokens per second = tokens of all answers / seconds; ratio = ours / theirs'
SIZES = {  # width, feed-forward, layers, heads, key/value heads, words
  'quick': (256, 704, 6, 4, 2, 8000),
  'whole': (768, 2048, 12, 12, 4, 24_000),
}
CODES = 4096
CONTEXTS = {'quick': (128, 512, 1024), 'whole': (128, 512, 1024, 2048)}
BATCHES = (1, 8, 32)
BATCH_CONTEXT = 512
_LIBRARIES = ('jax', 'torch', 'transformers', 'numpy')


def make_config(size: str) -> tuple[config_lib.Config, vocabulary_lib.Vocabulary]:
  """A model of the Qwen2 family, and as many ids as it needs."""
  width, mlp, layers, heads, kv_heads, words = SIZES[size]
  c = base.get_config()
  c.model.update({'width': width, 'mlp_width': mlp, 'layers': layers, 'heads': heads})
  c.model.update({'kv_heads': kv_heads, 'head_width': width // heads, 'dtype': 'float32'})
  c.sampling.update({'block_size': 26, 'steps_per_block': 2, 'max_text': 64, 'max_audio': 52})
  after = words + CODES
  vocabulary = vocabulary_lib.Vocabulary(
    **{'size': after + 4, 'audio_start': words, 'codebook_start': words},
    **{'codebook_size': CODES, 'turn_start': 0, 'turn_end': 1, 'begin_audio': 2},
    **{'begin_last': 3, 'end_prompt': after, 'end_inner': after + 1, 'end_last': after + 2},
    **{'mask': after + 3, 'tokenizer': 'none'},
  )
  return config_lib.from_config_dict(c), vocabulary


def make_prompts(count: int, length: int, vocabulary) -> list[np.ndarray]:
  """Random words, then the begin of audio."""
  rng = np.random.default_rng(length)
  words = rng.integers(4, vocabulary.audio_start, (count, length))
  words[:, -1] = vocabulary.begin_last
  return list(words.astype(np.int32))


def make_theirs(params, config: config_lib.Model, vocabulary) -> torch.nn.Module:
  """The same weights, in transformers."""
  values = families.config_of(config, vocabulary.size, 'float32', vocabulary.turn_end, 4096)
  made = transformers.Qwen2ForCausalLM(transformers.Qwen2Config.from_dict(values))
  made.set_attn_implementation('sdpa')

  def read(path):
    value = params
    for key in path:
      value = value[key]
    return np.asarray(value)

  parameters = dict(made.named_parameters())
  with torch.no_grad():
    for name, tensor in table.to_theirs(read, config, vocabulary.size):
      parameters[name].copy_(torch.tensor(np.array(tensor())))
  return made.eval()


class Theirs:
  """The authors' algorithm: greedy, no cache."""

  def __init__(self, model, vocabulary, sampling):
    """Takes our settings."""
    self._model, self._vocabulary, self._sampling = model, vocabulary, sampling

  @torch.no_grad()
  def _predict(self, tokens: list[int], first: int, allowed: slice, never: list[int]):
    """The likeliest ids from `first` on, and their probabilities."""
    ids = np.array(tokens)
    groups = mask_lib.order_groups(len(ids), self._vocabulary.spans(ids))
    seen = torch.from_numpy(groups[:, None] >= groups)[None, None]
    inputs = torch.from_numpy(ids)[None]
    hidden = self._model.model(input_ids=inputs, attention_mask=seen, use_cache=False)[0]
    logits = self._model.lm_head(hidden[0, first:]).float()
    logits[:, : allowed.start], logits[:, allowed.stop :] = -torch.inf, -torch.inf
    logits[:, never] = -torch.inf
    odds, ids = logits.softmax(-1).max(-1)
    return ids.tolist(), odds.tolist()

  def __call__(self, prompt: np.ndarray) -> list[int]:
    """The answer to one prompt."""
    v, s, tokens = self._vocabulary, self._sampling, prompt.tolist()
    for _ in range(s.max_text):
      if tokens[-1] in (v.begin_audio, v.begin_last):
        self._speak(tokens)
      (token,), _ = self._predict(tokens, len(tokens) - 1, slice(0, v.audio_start), [])
      tokens.append(token)
      if token == v.turn_end:
        break
    return tokens[len(prompt) :]

  def _speak(self, tokens: list[int]) -> None:
    v, s, span = self._vocabulary, self._sampling, len(tokens)
    audio = slice(v.codebook_start, v.size)
    while len(tokens) - span + s.block_size <= s.max_audio:
      block = len(tokens)
      tokens += [v.mask] * s.block_size
      for step in range(s.steps_per_block):
        ids, odds = self._predict(tokens, block, audio, [v.mask, v.end_prompt])
        masked = [i for i in range(s.block_size) if tokens[block + i] == v.mask]
        left = s.steps_per_block - step
        for i in sorted(masked, key=lambda i: -odds[i])[: -(-len(masked) // left)]:
          tokens[block + i] = ids[i]
      for i in range(block, len(tokens)):
        if tokens[i] in (v.end_inner, v.end_last):
          del tokens[i + 1 :]
          return
    tokens.append(v.end_last if tokens[span - 1] == v.begin_last else v.end_inner)


def clock(function, *arguments):
  """Seconds, and the result."""
  begin = time.perf_counter()
  result = function(*arguments)
  return time.perf_counter() - begin, result


def compare(size: str) -> dict:
  """Both sides at each context, and ours at each batch."""
  config, vocabulary = make_config(size)
  model = transformer.Transformer(config.model, vocabulary.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  theirs = Theirs(make_theirs(params, config.model, vocabulary), vocabulary, config.sampling)

  def ours(batch):
    sampling = dataclasses.replace(config.sampling, batch=batch)
    return decoder.Decoder(model, params, vocabulary, sampling, config.mask)

  contexts, batches, alone = [], [], ours(1)
  for length in CONTEXTS[size]:
    prompts = make_prompts(1, length, vocabulary)
    alone(prompts)  # compiles
    fast, (answer,) = clock(alone, prompts)
    slow, wanted = clock(theirs, prompts[0])
    same = int(np.argmin(np.append(answer.tokens[: len(wanted)] == wanted, False)))
    count = len(answer.tokens)
    row = {'context': length, 'tokens': count, 'same': same, 'ours': count / fast}
    contexts.append(row | {'theirs': len(wanted) / slow, 'ratio': slow / fast})
  for batch in BATCHES:
    speak, prompts = ours(batch), make_prompts(batch, BATCH_CONTEXT, vocabulary)
    speak(prompts)
    seconds, answers = clock(speak, prompts)
    count = sum(len(answer.tokens) for answer in answers)
    row = {'batch': batch, 'tokens': count, 'ours': count / seconds}
    batches.append(row | {'compilations': len(speak.compiled)})
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
  compilations = len(alone.compiled)
  return {
    'parameters': parameters,
    'compilations': compilations,
    'contexts': contexts,
    'batches': batches,
  }


def main():
  """Measures, and prints two tables."""
  arguments = record.parser(__doc__, 'the model of 8 M parameters').parse_args()
  results = record.begin(FORMULA, _LIBRARIES, device=jax.devices()[0].device_kind)
  torch.set_num_threads(machine.cores())
  found = compare('quick' if arguments.quick else 'whole')
  print(f'{found["parameters"] / 1e6:.0f} M parameters, {found["compilations"]} compilations')
  print(f'{"context":>8} {"tokens":>7} {"same":>5} {"ours/s":>8} {"theirs/s":>9} {"ratio":>6}')
  for row in found['contexts']:
    figures = f'{row["ours"]:8.1f} {row["theirs"]:9.2f} {row["ratio"]:6.1f}'
    print(f'{row["context"]:8} {row["tokens"]:7} {row["same"]:5} {figures}')
  print(f'at {BATCH_CONTEXT} tokens of context')
  print(f'{"batch":>8} {"tokens":>7} {"ours/s":>8} {"compilations":>13}')
  for row in found['batches']:
    print(f'{row["batch"]:8} {row["tokens"]:7} {row["ours"]:8.1f} {row["compilations"]:13}')
  record.save(results | found, arguments.json)


if __name__ == '__main__':
  main()
