"""Two ways to train and decode speech that are not the method, to compare it with.

Left to right: audio is predicted token by token as text is, and everything is causal. Diffused:
all of an answer, its text too, is one span that is masked and revealed; so that it learns to
end within a block of decoding and to go on behind one, it is filled up by ends to whole blocks,
and SST cuts all of it. Both decode greedily and without a cache; what they are compared by is
quality, not speed.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import records
from data_pipelines.stream import rows
from ttt_jax import chat, mask
from ttt_jax import config as config_lib
from ttt_jax.diffusion import corruption, laid, schedule
from ttt_jax.evaluation import candidate
from ttt_jax.sampling import events

_TOGETHER, _MULTIPLE = 32, 64


class LeftToRight(rows.Rows):
  """Rows in which every token that the model must say is predicted from those before it."""

  def lay(self, document: chat.Document, draws: corruption.Draws) -> laid.Laid:
    """Text and audio each count as much as in the method: the mean of their tokens."""
    del draws
    size, v = len(document.tokens), self._vocabulary
    targets = np.append(document.tokens[1:], 0)
    wanted = np.append(document.targets[1:], False)
    weights = np.zeros(size, np.float32)
    for part in (wanted & v.is_audio(targets), wanted & ~v.is_audio(targets)):
      weights[part] = 1 / max(1, part.sum())
    places = np.arange(size, dtype=np.int32)
    return laid.Laid(
      document.tokens.astype(np.int32),
      places,
      np.zeros_like(places),
      places + 1,
      np.where(wanted, targets, 0).astype(np.int32),
      weights,
      np.zeros(size, np.float32),
      int(wanted.sum()),
    )


class _Filled:
  """A data set in which the end of each record is repeated to the end of a block.

  Has what rows want of `records.Source`; the answer at the end of a record is the span that SST
  cuts.
  """

  def __init__(self, source: records.Source, block: int):
    """Reads all records."""
    self.directory, self.split, self.assets = source.directory, source.split, source.assets
    self.fingerprint = f'{source.fingerprint} filled to {block}'
    self.documents, shapes = [], []
    end = source.assets.vocabulary.turn_end
    for number in range(len(source)):
      document = source.documents[number]
      start = int(np.flatnonzero(~document.targets)[-1]) + 1
      size = len(document.tokens) - start
      more = -size % block
      tokens = np.pad(document.tokens, (0, more), constant_values=end)
      targets = np.pad(document.targets, (0, more), constant_values=True)
      self.documents.append(document._replace(tokens=tokens, targets=targets))
      shapes.append((len(tokens), start, size + more))
    self.shapes = records.Shapes(*np.array(shapes, np.int64).T)


class Diffused(rows.Rows):
  """Rows in which all that the model must say is masked and predicted in its place."""

  def __init__(self, sources: Sequence[records.Source], data, mask_config, *others):
    """Like `Rows`, of records that are filled up to blocks of `mask_config.block_size`."""
    filled = [_Filled(source, mask_config.block_size) for source in sources]
    super().__init__(filled, data, mask_config, *others)

  def lay(self, document: chat.Document, draws: corruption.Draws) -> laid.Laid:
    """Every answer is one group; what it must say is one part of the loss."""
    objective, v = self._objective, self._vocabulary
    t = schedule.time(objective, draws.time)
    p = float(schedule.noise(objective, t))
    masked = document.targets & (draws.uniforms < p)
    count = max(1, int(document.targets.sum()))
    weights = masked * float(schedule.weight(objective, t)) / count
    groups = mask.order_groups(len(document.tokens), _groups(document, v))
    ends = mask.group_ends(groups)
    return laid.Laid(
      np.where(masked, v.mask, document.tokens).astype(np.int32),
      np.arange(len(ends), dtype=np.int32),
      np.zeros_like(ends),
      ends,
      np.where(masked, document.tokens, 0).astype(np.int32),
      weights.astype(np.float32),
      (p * masked).astype(np.float32),
      count,
    )


def _groups(document: chat.Document, vocabulary) -> np.ndarray:
  """Spans of the prompts' audio, and the answers."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], document.targets, [0]]))).reshape(-1, 2)
  prompts = document.spans[vocabulary.is_prompt(document.tokens, document.spans)]
  spans = np.concatenate([edges, prompts.reshape(-1, 2)])
  return spans[np.argsort(spans[:, 0])]


class _Decoder:
  """Answers prompts by whole passes, some together."""

  def __init__(self, model, params, vocabulary, sampling: config_lib.Sampling):
    self._vocabulary, self._sampling = vocabulary, sampling
    self._params = params

    @jax.jit
    def logits(params, tokens, ends, query):
      shape = tokens.shape
      place = jnp.broadcast_to(jnp.arange(shape[1]), shape)
      view = tokens, place, jnp.zeros(shape, jnp.int32), ends
      hidden = model.apply({'params': params}, *view, method='hidden')
      asked = jnp.take_along_axis(hidden, query[..., None], 1)
      return model.apply({'params': params}, asked, method='unembed').astype(jnp.float32)

    self._logits = logits

  def check(self, prompt: np.ndarray, name: str) -> None:
    """Raises VocabularyError where a token is unknown."""
    self._vocabulary.check(prompt, name)

  def answer(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int]
  ) -> Iterator[tuple[int, events.Answer]]:
    """The number of each prompt, and its answer; nothing is drawn."""
    del seeds
    order = np.argsort([len(prompt) for prompt in prompts], kind='stable')
    for first in range(0, len(order), _TOGETHER):
      chosen = order[first : first + _TOGETHER]
      for number, one in zip(chosen, self._together([prompts[i] for i in chosen])):
        yield int(number), one

  def _ask(self, said: list[np.ndarray], ends: list[np.ndarray], query: np.ndarray):
    """[B, K, V], for rows of unlike length."""
    length = -(-max(map(len, said)) // _MULTIPLE) * _MULTIPLE
    room = _TOGETHER - len(said)

    def stacked(parts):
      return np.pad(
        np.stack([np.pad(part, (0, length - len(part))) for part in parts]), [(0, room), (0, 0)]
      )

    query = np.pad(query, [(0, room), (0, 0)])
    return np.asarray(self._logits(self._params, stacked(said), stacked(ends), query))


class _LeftToRightDecoder(_Decoder):
  def _together(self, prompts: list[np.ndarray]) -> list[events.Answer]:
    v, limits = self._vocabulary, self._sampling
    said = [prompt.astype(np.int32) for prompt in prompts]
    ended = [False] * len(said)
    written, spoken = np.zeros(len(said), int), np.zeros(len(said), int)
    while not all(ended):
      query = np.array([[len(one) - 1] for one in said])
      found = self._ask(said, [np.arange(1, len(one) + 1) for one in said], query)
      for i, one in enumerate(said):
        if ended[i]:
          continue
        last = int(one[-1])
        audio = last in v.begins or (v.is_audio(last) and not v.is_end(last))
        scores = found[i, 0].copy()
        scores[v.mask] = -np.inf
        if audio:
          scores[: v.audio_start] = -np.inf
        else:
          scores[v.audio_start :] = -np.inf
        token = int(scores.argmax())
        spoken[i] = spoken[i] + 1 if audio else 0
        written[i] += not audio
        if spoken[i] >= limits.max_audio:
          token = v.end_inner
        said[i] = np.append(one, np.int32(token))
        ended[i] = token == v.turn_end or written[i] >= limits.max_text
    return [
      events.Answer(one[len(prompt) :], bool(one[-1] == v.turn_end))
      for prompt, one in zip(prompts, said)
    ]


class _DiffusedDecoder(_Decoder):
  def _together(self, prompts: list[np.ndarray]) -> list[events.Answer]:
    v, limits = self._vocabulary, self._sampling
    size, most = limits.block_size, limits.max_text + 2 * limits.max_audio
    said, ended = [prompt.astype(np.int32) for prompt in prompts], [False] * len(prompts)
    heads = [
      mask.group_ends(mask.order_groups(len(prompt), v.spans(prompt))) for prompt in prompts
    ]
    while not all(ended):
      said = [
        one if done else np.append(one, np.full(size, v.mask, np.int32))
        for one, done in zip(said, ended)
      ]
      for step in range(limits.steps_per_block):
        ends = [
          np.concatenate([head, np.full(len(one) - len(head), len(one))])
          for head, one in zip(heads, said)
        ]
        query = np.stack([np.arange(len(one) - size, len(one)) for one in said])
        found = self._ask(said, ends, query)[: len(said)].copy()
        found[..., v.mask] = -np.inf
        odds = np.asarray(jax.nn.softmax(found, -1).max(-1))
        for i, one in enumerate(said):
          if not ended[i]:
            hidden = one[-size:] == v.mask
            count = -(-int(hidden.sum()) // (limits.steps_per_block - step))
            best = np.argsort(np.where(hidden, -odds[i], np.inf), kind='stable')[:count]
            one[len(one) - size + best] = found[i, best].argmax(-1)
      for i, (prompt, one) in enumerate(zip(prompts, said)):
        if not ended[i]:
          at = np.flatnonzero(one[len(prompt) :] == v.turn_end)
          if len(at):
            said[i] = one[: len(prompt) + at[0] + 1]
          ended[i] = bool(len(at)) or len(one) - len(prompt) >= most
    return [
      events.Answer(one[len(prompt) :], bool(one[-1] == v.turn_end))
      for prompt, one in zip(prompts, said)
    ]


class LeftToRightCandidate(candidate.Candidate):
  """A model of `LeftToRight` rows."""

  def decoder(self, sampling: config_lib.Sampling):
    """Text and audio, one token a pass."""
    return _LeftToRightDecoder(self.model, self.params, self.assets.vocabulary, sampling)


class DiffusedCandidate(candidate.Candidate):
  """A model of `Diffused` rows."""

  def decoder(self, sampling: config_lib.Sampling):
    """Blocks of whatever it says, revealed by confidence."""
    return _DiffusedDecoder(self.model, self.params, self.assets.vocabulary, sampling)
