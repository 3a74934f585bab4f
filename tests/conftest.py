"""What tests share: eight virtual devices, and a toy data set."""

import atexit
import os
import pathlib
import re
import shutil
import tempfile
import tomllib

import machines

# Before jax starts: the tests of meshes need several devices, and a CPU can pretend. What is
# compiled runs but a few times: most of the time of a test would go into making it fast. Only
# the tools compile as they do for users (tools.py); for all else, set the variable to false.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')
os.environ['XLA_FLAGS'] = machines.xla_flags(devices=8)
os.environ['JAX_PLATFORMS'] = 'cpu'

# Before transformers is imported, which keeps the code of exports here, once a process.
os.environ['HF_MODULES_CACHE'] = tempfile.mkdtemp()

import hypothesis
import numpy as np
import pytest
from absl import flags

from configs import base
from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import mel_vq
from ttt_jax.evaluation.recognisers import kinds

# A machine may be busy: no example is timed. The rest is as it was, in CI as hypothesis has it.
hypothesis.settings.register_profile('untimed', hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile('untimed')

flags.FLAGS.mark_as_parsed()
atexit.register(shutil.rmtree, os.environ['HF_MODULES_CACHE'], ignore_errors=True)

WORDS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven']
CODES = 32

# A model of toy size, for the tools.
TOY_FLAGS = [
  '--config=configs/base.py',
  '--config.model.layers=1',
  '--config.model.width=32',
  '--config.model.mlp_width=48',
  '--config.model.head_width=8',
  '--config.model.vocabulary_multiple=8',
  '--config.model.dtype=float32',
  '--config.model.remat=none',
  '--config.model.attention=dense',
  '--config.data.row_length=128',
  '--config.data.batch_size=8',
]


def make_config(**changes) -> config_lib.Config:
  """The defaults at toy size; `changes` by dotted keys, `__` for the dot."""
  c = base.get_config()
  c.model.dtype = 'float32'
  c.model.width = 32
  c.model.mlp_width = 48
  c.model.head_width = 8
  c.model.vocabulary_multiple = 8
  c.data.row_length = 128
  c.data.batch_size = 8
  c.optimizer.warmup_steps = 5
  c.sampling.block_size = 4
  c.sampling.steps_per_block = 2
  c.sampling.max_text = 12
  c.sampling.max_audio = 24
  c.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
  return config_lib.from_config_dict(c)


@pytest.fixture(scope='session')
def assets() -> assets_lib.Assets:
  rng = np.random.default_rng(0)
  text = [' '.join(rng.choice(WORDS, 5)) for _ in range(300)]
  corpus = [*text, *(chat.ROLES * 50), *(['speak', 'transcribe', 'answer'] * 50)]
  tokenizer = tokenizer_lib.SentencePiece.train(corpus, 400)
  noise = rng.normal(size=(4, 16_000)).astype(np.float32)
  codec = mel_vq.MelVQ.fit(list(noise), 16_000, codebook_size=CODES, seed=0)
  vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, CODES)
  prompts = {task: [task] for task in ('speak', 'transcribe', 'answer')}
  return assets_lib.Assets(vocabulary, tokenizer, codec, prompts)


def conversation(rng: np.random.Generator, template: chat.Template) -> chat.Document:
  """A random conversation of some turns, with up to three spans in an answer."""
  turns = [chat.Turn('system', ['speak'])]
  for _ in range(rng.integers(1, 3)):
    for role in ('user', 'assistant'):
      parts = []
      for _ in range(rng.integers(1, 4)):
        parts.append(' '.join(rng.choice(WORDS, rng.integers(1, 4))))
        if rng.random() < 0.6:
          parts.append(rng.integers(0, CODES, rng.integers(1, 14)))
      turns.append(chat.Turn(role, parts))
  return template.document(turns)


@pytest.fixture(scope='session')
def documents(assets) -> list[chat.Document]:
  rng = np.random.default_rng(1)
  return [conversation(rng, assets.template) for _ in range(60)]


@pytest.fixture(scope='session')
def toy_data(assets, documents, tmp_path_factory):
  """A data set whose train split is `documents`; each speaks to one or more of the tasks."""
  directory = tmp_path_factory.mktemp('toy') / 'data'

  def examples():
    for number, document in enumerate(documents):
      yield records.Record(f'toy-{number}', document, {'task': 'speak', 'text': 'one'})

  records.write(directory, {'train': examples, 'test': examples}, assets)
  return directory


@pytest.fixture(scope='session')
def source(toy_data) -> records.Source:
  return records.Source(toy_data, 'train')


@pytest.fixture
def clock_site(tmp_path_factory, monkeypatch) -> pathlib.Path:
  """A folder of installed distributions, with the recogniser of docs/evaluation.md in it."""
  page = pathlib.Path(kinds.__file__).parents[3] / 'docs' / 'evaluation.md'
  text = page.read_text()
  (code,) = re.findall(r'```python\n(.*?)```', text, re.S)
  (project,) = map(tomllib.loads, re.findall(r'```toml\n(.*?)```', text, re.S))
  project = project['project']
  site = tmp_path_factory.mktemp('site')
  about = site / 'clock_recogniser-1.0.dist-info'
  about.mkdir()
  (about / 'METADATA').write_text(
    f'Metadata-Version: 2.1\nName: {project["name"]}\nVersion: {project["version"]}\n'
  )
  ((kind, where),) = project['entry-points'][kinds.GROUP].items()
  (about / 'entry_points.txt').write_text(f'[{kinds.GROUP}]\n{kind} = {where}\n')
  (site / 'clock_recogniser.py').write_text(code)
  monkeypatch.syspath_prepend(site)
  return site
