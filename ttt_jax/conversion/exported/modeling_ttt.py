"""A language model that reads, hears and speaks: text left to right, audio span by span.

The weights are those of a plain Qwen2, Qwen3 or Llama. What is new is the mask (text is causal,
the tokens of an audio span see each other) and the way to generate: text token by token up to a
begin-of-audio token, then audio by masked diffusion, block by block, up to an end-of-audio
token, then text again, until the turn ends.

  model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
  tokens = model.generate(input_ids, text_temperature=0.8)
  vocabulary = model.config.ttt['vocabulary']
  codes = tokens - vocabulary['codebook_start']  # the codec's, where 0 <= it < codebook_size

The method is that of "From Text to Talk" (arXiv 2509.20072).
"""

from types import SimpleNamespace

import torch
from torch.nn import functional as F
from transformers import DynamicCache, LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from .configuration_ttt import (
  TtTLlamaConfig,
  TtTQwen2Config,
  TtTQwen3Config,
  check,
  check_sampling,
)


def order_groups(input_ids, real, documents, vocabulary, mask):
  """Numbers that never fall along a row: a position sees those of its own number and below.

  Args:
    input_ids: int [batch, length].
    real: bool [batch, length], false at padding.
    documents: int [batch, length], equal within a document.
    vocabulary: that section of `config.ttt`, as a namespace.
    mask: likewise.

  Returns:
    int [batch, length].
  """
  audio = real & (input_ids >= vocabulary.audio_start)
  same = documents[:, 1:] == documents[:, :-1]
  inside = F.pad(audio[:, 1:] & audio[:, :-1] & same, (1, 0))  # a span goes on here
  runs = inside.logical_not().cumsum(1)  # each span is a run, and so is each text token
  if mask.audio == 'block':
    position = torch.arange(input_ids.shape[1], device=input_ids.device)
    start = torch.where(inside, 0, position).cummax(1).values
    inside = inside & ((position - start) % mask.block_size > 0)
  if mask.causal_prompt:
    # A prompt's span ends by `end_prompt`, or is followed by it if that is text class.
    ends = real & (input_ids == vocabulary.end_prompt)
    ends = ends | F.pad(ends[:, 1:] & same, (0, 1))
    ends = ends & F.pad(runs[:, 1:] != runs[:, :-1], (0, 1), value=True)
    count = torch.zeros_like(F.pad(runs, (0, 1))).scatter_add(1, runs, ends.long())
    inside = inside & (count.gather(1, runs) == 0)
  return inside.logical_not().cumsum(1)


def hybrid_mask(input_ids, real, position_ids, cached, vocabulary, mask):
  """Which keys each new token sees: text what is before it, audio also the rest of its span.

  Args:
    input_ids: int [batch, length], the new tokens; the spans among them whole.
    real: [batch, cached + length], 0 at padding, or None where there is none.
    position_ids: int [batch or 1, length], each 0 the start of another document, which sees
      nothing of those before; or None for one document.
    cached: keys from earlier calls. New tokens see them, but those of another document.
    vocabulary: that section of `config.ttt`, as a namespace.
    mask: likewise.

  Returns:
    bool [batch, 1, length, cached + length]. Padding sees itself, as a row must see something.
  """
  batch, length = input_ids.shape
  wanted = (batch, cached + length)
  real = input_ids.new_ones(wanted) if real is None else real
  if real.shape != wanted:
    raise ValueError(
      f'attention_mask is {list(real.shape)}, but must be {list(wanted)}: there are {cached} '
      f'cached positions and {length} new ones'
    )
  real, documents = real.bool(), torch.zeros_like(input_ids)
  if position_ids is not None:
    documents = documents + (position_ids == 0).cumsum(1)
  groups = order_groups(input_ids, real[:, cached:], documents, vocabulary, mask)
  old = (documents == 0)[..., None].expand(-1, -1, cached)
  new = (documents[..., None] == documents[:, None]) & (groups[..., None] >= groups[:, None])
  itself = torch.eye(length, dtype=torch.bool, device=real.device)
  return (torch.cat([old, new], -1) & real[:, None] | F.pad(itself, (cached, 0)))[:, None]


def without_condition(tokens, vocabulary):
  """What guidance reads beside `tokens`: masks, but for the model's spans and their begins.

  Args:
    tokens: list of ids; a begin token at its end begins a span of the model.
    vocabulary: that section of `config.ttt`, as a namespace.

  Returns:
    list of ids, as long.
  """
  v, out, given = vocabulary, [], False
  for i in reversed(range(len(tokens))):
    token, behind = tokens[i], tokens[i + 1 : i + 2]
    audio = token >= v.audio_start
    if not behind or behind[0] < v.audio_start:  # what audio there is here ends here
      given = audio and v.end_prompt in (token, *behind)
    kept = not given and (audio or token in (v.begin_audio, v.begin_last))
    out.append(token if kept else v.mask)
  return out[::-1]


class HybridGenerationMixin:
  """The mask and the way to generate, for a causal language model of transformers."""

  def __init__(self, config):
    """Raises ValueError where `config.ttt` is missing, or does not fit."""
    check(config.ttt, config)
    super().__init__(config)

  def forward(
    self,
    input_ids=None,
    attention_mask=None,
    position_ids=None,
    past_key_values=None,
    inputs_embeds=None,
    labels=None,
    **settings,
  ):
    """As the plain model's forward, under the hybrid mask.

    Text positions predict the token after them, masked audio positions their own.

    Args:
      input_ids: int [batch, length]. With a cache: what it lacks, spans whole, ends included.
      attention_mask: [batch, cached + length], 0 at padding, or None; or [batch, 1, length,
        cached + length], true (or 0., if not bool) where a key is seen: then it is taken as it
        is, in place of the hybrid mask.
      position_ids: int [batch, length]. Where they start again at 0, another document begins
        in the same row.
      past_key_values: a DynamicCache.
      inputs_embeds: only together with a mask of four axes, as the hybrid one needs ids.
      labels: as the plain model takes them, and so are the rest.
      **settings: those.

    Raises:
      ValueError: the arguments do not go together, or the model's attention takes no mask.
    """
    if attention_mask is None or attention_mask.dim() == 2:
      if input_ids is None:
        raise ValueError('the mask follows from input_ids: give them, or a mask of four axes')
      cached = 0 if past_key_values is None else past_key_values.get_seq_length()
      v, mask = self._section('vocabulary'), self._section('mask')
      attention_mask = hybrid_mask(input_ids, attention_mask, position_ids, cached, v, mask)
    return super().forward(
      input_ids=input_ids,
      attention_mask=self._as_attention_takes_it(attention_mask),
      position_ids=position_ids,
      past_key_values=past_key_values,
      inputs_embeds=inputs_embeds,
      labels=labels,
      **settings,
    )

  @torch.no_grad()
  def generate(self, input_ids, attention_mask=None, generator=None, **sampling):
    """Answers prompts, one after the other, with text and audio.

    Keys of text and of finished spans are cached, which changes nothing in the answers.

    Args:
      input_ids: int [batch, length], prompts up to where the model is to speak.
      attention_mask: [batch, length], 0 at padding, on either side; or None.
      generator: torch.Generator to draw by, where a temperature is above 0.
      **sampling: in place of those of `config.ttt['sampling']`: `block_size` (audio tokens
        decoded in parallel), `steps_per_block`, `guidance` (above 0, logits of audio become
        l + guidance * (l - those without condition)), `text_temperature` and
        `audio_temperature` (0 takes the most likely token), `max_text` (text tokens of an
        answer), `max_audio` (audio tokens of one span).

    Returns:
      int [batch, longest]: `input_ids` as they are, the answers behind them, and then
      `config.pad_token_id` (or, without one, the end of the turn).

    Raises:
      ValueError: a setting is unknown or impossible, or a prompt is empty or has an unknown
        token.
    """
    sampling = SimpleNamespace(**check_sampling({**self.config.ttt['sampling'], **sampling}))
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    answers = []
    for row, keep in zip(input_ids, real.bool()):
      answer = self._answer(row[keep].tolist(), sampling, generator)
      answers.append(torch.cat([row, row.new_tensor(answer)]))
    pad = self.config.pad_token_id
    pad = self._section('vocabulary').turn_end if pad is None else pad
    return torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)

  def _section(self, name):
    return SimpleNamespace(**self.config.ttt[name])

  def _as_attention_takes_it(self, mask):
    kind, dtype = self.config._attn_implementation, self.get_input_embeddings().weight.dtype
    if kind not in ('sdpa', 'eager'):
      raise ValueError(
        f"attn_implementation must be 'sdpa' or 'eager' (hybrid mask), not {kind}"
      )
    if kind == 'sdpa' or mask.dtype != torch.bool:
      return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)

  def _answer(self, prompt, sampling, generator):
    """The ids that follow the prompt, lists both."""
    v, tokens, cache = self._section('vocabulary'), list(prompt), DynamicCache()
    if not tokens:
      raise ValueError('a prompt is empty')
    for token in tokens:
      if not 0 <= token < v.size or token == v.mask:
        raise ValueError(f'token {token} of a prompt is the mask, or not in [0, {v.size})')
    for _ in range(sampling.max_text):
      if tokens[-1] in (v.begin_audio, v.begin_last):
        self._speak(tokens, cache, sampling, generator)
      (token,), _ = self._predict(tokens, cache, len(tokens) - 1, False, sampling, generator)
      tokens.append(token)
      if token == v.turn_end:
        break
    return tokens[len(prompt) :]

  def _speak(self, tokens, cache, sampling, generator):
    """Appends a span: blocks until one holds an end, behind which it is cut."""
    v, span = self._section('vocabulary'), len(tokens)
    while len(tokens) - span + sampling.block_size <= sampling.max_audio:
      block = len(tokens)
      self._reveal_block(tokens, cache, sampling, generator)
      for i in range(block, len(tokens)):
        if tokens[i] in (v.end_inner, v.end_last):
          del tokens[i + 1 :]
          return
    tokens.append(v.end_last if tokens[span - 1] == v.begin_last else v.end_inner)

  def _reveal_block(self, tokens, cache, sampling, generator):
    """Appends a block of masks and, in equal steps, reveals those the model is surest of."""
    size, steps = sampling.block_size, sampling.steps_per_block
    block, mask = len(tokens), self._section('vocabulary').mask
    tokens += [mask] * size
    for step in range(steps):
      count = size * (step + 1) // steps - size * step // steps
      if not count:
        continue
      ids, confidence = self._predict(tokens, cache, block, True, sampling, generator)
      masked = [i for i in range(size) if tokens[block + i] == mask]
      for i in sorted(masked, key=lambda i: -confidence[i])[:count]:
        tokens[block + i] = ids[i]

  def _predict(self, tokens, cache, first, audio, sampling, generator):
    """An id of the wanted class at each position from `first` on, and its probability: lists.

    Only tokens that the cache lacks are computed, and only keys that are final stay in it.
    """
    v, cached = self._section('vocabulary'), cache.get_seq_length()
    readings = [tokens, without_condition(tokens, v)] if sampling.guidance else [tokens]
    new = torch.tensor(readings, device=self.device)[:, cached:]
    seen = hybrid_mask(new[:1], None, None, cached, v, self._section('mask'))
    out = self(
      input_ids=new,
      attention_mask=seen.expand(len(new), -1, -1, -1),
      past_key_values=cache,
      use_cache=True,
      logits_to_keep=len(tokens) - first,
    )
    passing = len(tokens) - self._settled(tokens, first, audio)
    if passing:
      cache.crop(-passing)
    logits = out.logits[0].float()
    if sampling.guidance and audio:
      logits = logits + sampling.guidance * (logits - out.logits[1].float())
    ids = torch.arange(logits.shape[-1], device=logits.device)
    codes = (ids >= v.codebook_start) & (ids < v.codebook_start + v.codebook_size)
    wanted = codes | (ids == v.end_inner) | (ids == v.end_last)
    if not audio:
      wanted = (ids < v.audio_start) & (ids != v.end_prompt)
    logits = logits.masked_fill(~wanted, -torch.inf)
    ids = logits.argmax(-1, keepdim=True)
    temperature = sampling.audio_temperature if audio else sampling.text_temperature
    if temperature:
      odds = torch.softmax(logits / temperature, -1)
      ids = torch.multinomial(odds, 1, generator=generator)
    confidence = logits.log_softmax(-1).gather(-1, ids).exp()
    return ids[:, 0].tolist(), confidence[:, 0].tolist()

  def _settled(self, tokens, block, audio):
    """How many tokens keep their keys, whatever follows; audio still grows from `block`."""
    v, mask, span = self._section('vocabulary'), self._section('mask'), len(tokens)
    while span and tokens[span - 1] >= v.audio_start:
      span -= 1
    if not audio:
      return len(tokens)
    whole = (block - span) // mask.block_size * mask.block_size if mask.audio == 'block' else 0
    return span + whole


class TtTQwen2ForCausalLM(HybridGenerationMixin, Qwen2ForCausalLM):
  """Qwen2 that reads, hears and speaks."""

  config_class = TtTQwen2Config


class TtTQwen3ForCausalLM(HybridGenerationMixin, Qwen3ForCausalLM):
  """Qwen3 that reads, hears and speaks."""

  config_class = TtTQwen3Config


class TtTLlamaForCausalLM(HybridGenerationMixin, LlamaForCausalLM):
  """Llama that reads, hears and speaks."""

  config_class = TtTLlamaConfig
