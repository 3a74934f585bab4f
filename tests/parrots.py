"""Models without a network, for evaluations: they say what their prompts make them say."""

import numpy as np
from conftest import CODES, WORDS, make_config

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import chat
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation import candidate, likelihood
from ttt_jax.sampling import events


class Killed(BaseException):
  """As if the process had ended: nobody catches it."""


class Parrot(candidate.Candidate):
  """Says a word or some for each item, and some codes; which ones, its `voice` decides.

  Attributes:
    asked: seeds of all prompts that were answered.
    read: documents whose likelihood was taken.
  """

  def __init__(self, assets, voice=0, name='parrot', dies_after=None):
    self.voice, self.asked, self.read, self.left = voice, [], [], dies_after
    params = {'voice': np.full((2, 3), voice, np.float32)}
    super().__init__(name, f'runs/{name}', 10 + voice, make_config(), assets, params)

  def says(self, seed) -> tuple[str, np.ndarray]:
    rng = np.random.default_rng([self.voice, seed])
    return ' '.join(rng.choice(WORDS, rng.integers(1, 4))), rng.integers(0, CODES, 9)

  def decoder(self, sampling):
    return _Decoder(self, sampling)

  @property
  def scorer(self):
    return _Scorer(self)

  def spend(self):
    if self.left is not None:
      if not self.left:
        raise Killed
      self.left -= 1


class _Decoder:
  def __init__(self, parrot, sampling):
    self._parrot, self._sampling = parrot, sampling

  def check(self, prompt, name):
    if len(prompt) > 60:
      raise ValueError(f'{name} is too long')

  def answer(self, prompts, seeds):
    template = self._parrot.assets.template
    for number in reversed(range(len(prompts))):
      self._parrot.spend()
      seed = seeds[number]
      self._parrot.asked.append(seed)
      text, codes = self._parrot.says(seed)
      tokens = template.body(chat.Turn('assistant', [text, codes]))
      yield number, events.Answer(np.array(tokens, np.int32), seed % 5 > 0)


class _Scorer:
  def __init__(self, parrot):
    self._parrot = parrot

  def read(self, document, samples, seed):
    return document, samples, seed

  def score(self, params, read):
    self._parrot.spend()
    self._parrot.read += read
    return [
      likelihood.Sums(seed % 11 / 7, float(document.targets.sum()), samples + 0.1, 3.0)
      for document, samples, seed in read
    ]


def write_data(directory, assets: assets_lib.Assets, count=12) -> None:
  """A data set whose test split has `count` records to read, and as many to say."""
  rng = np.random.default_rng(5)
  examples = []
  for number in range(count):
    text, codes = ' '.join(rng.choice(WORDS, rng.integers(1, 5))), rng.integers(0, CODES, 12)
    for task, user, reply in (('transcribe', codes, text), ('speak', text, codes)):
      turns = [chat.Turn('system', [task]), chat.Turn('user', [user])]
      document = assets.template.document([*turns, chat.Turn('assistant', [reply])])
      about = {'task': task, 'text': text, 'kind': 'ab'[number % 2], 'number': number}
      if number % 3 == 0:
        about['audio'] = f'audio/{number}.wav'
      examples.append(records.Record(f'{task}-{number}', document, about))

  def extras(folder):
    (folder / 'audio').mkdir()
    for number in range(0, count, 3):
      wave = (0.3 * np.sin(np.arange(6000 + 500 * number) / 7)).astype(np.float32)
      audio_io.write_wav(folder / 'audio' / f'{number}.wav', wave, 8000)

  splits = {'train': lambda: iter(examples[:4]), 'test': lambda: iter(examples)}
  records.write(directory, splits, assets, extras)
