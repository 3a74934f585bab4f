"""Readers of assets, of runs, and of checkpoints of others."""

import dataclasses
import json
import pathlib
from unittest import mock

import numpy as np
import tokenizers
import toys
from safetensors import numpy as safetensors_numpy
from target import Target, of_file
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ttt_jax import assets as assets_lib
from ttt_jax import chat, checkpoint, description, hashes, parameters, resuming
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs import external, kinds
from ttt_jax.codecs.glm4voice import encoder, weights
from ttt_jax.codecs.glm4voice import shape as shape_lib
from ttt_jax.codecs.glm4voice import tokenizer as glm4voice
from ttt_jax.conversion import families, table, tensors, tokenizer_files
from ttt_jax.evaluation import curves, log, suite_file
from ttt_jax.model import formula
from ttt_jax.planning import plan as plan_lib
from ttt_jax.planning import report, sweep, work
from ttt_jax.training import clock, ledger

TOPOLOGY = 'v5e:2x2'
SUITE = """\
data: [data, other]
seed: 3
sampling: {text_temperature: 0.5}
tasks:
- name: speak
  where: {task: speak, kind: [a, b]}
  metrics:
  - {metric: wer, of: speech, normaliser: basic}
  - likelihood
- name: yes-no
  split: dev
  limit: 10
  metrics: [{metric: accuracy, match: option, options: ['yes', 'no']}]
"""


def _assets(folder: pathlib.Path, name: str, *more: bytes) -> Target:
  """Assets of which one file is replaced, and a conversation in their ids."""
  toys.assets().save(folder)

  def read() -> None:
    found = assets_lib.load(folder)
    for task in ('speak', 'transcribe', 'answer'):
      found.template.prompt([chat.Turn('system', [found.prompt(task)])])
    if 'decode' in found.codec.abilities:
      found.codec.decode(np.arange(2))
      found.codec.encode(toys.wave(), toys.RATE)

  return of_file(folder / name, read, *more)


def vocabulary(folder: pathlib.Path) -> Target:
  return _assets(folder, vocabulary_lib.FILE)


def prompts(folder: pathlib.Path) -> Target:
  return _assets(folder, assets_lib.PROMPTS)


def codec_config(folder: pathlib.Path) -> Target:
  external.External('theirs', toys.CODES).save(folder)
  return _assets(folder, codec_lib.CONFIG_NAME, (folder / codec_lib.CONFIG_NAME).read_bytes())


def codec_arrays(folder: pathlib.Path) -> Target:
  return _assets(folder, 'codec.npz')


def _glm4voice(folder: pathlib.Path) -> glm4voice.Glm4Voice:
  shape = shape_lib.Shape(4, 2, 4, 1, 2, 3, 4, 1500)
  made = glm4voice.Glm4Voice(shape, _zeros(encoder.Encoder(shape).parameters()))
  made.save(folder)
  return made


def _zeros(tree):
  import jax
  from flax import linen as nn

  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), nn.unbox(tree))


def glm4voice_config(folder: pathlib.Path) -> Target:
  _glm4voice(folder)
  (folder / codec_lib.CONFIG_NAME).unlink()
  return of_file(folder / shape_lib.CONFIG, lambda: kinds.load_codec(folder))


def glm4voice_weights(folder: pathlib.Path) -> Target:
  _glm4voice(folder)
  return of_file(folder / weights.NAME, lambda: kinds.load_codec(folder))


def _tokenizer(folder: pathlib.Path, name: str) -> Target:
  """A text tokenizer, extended by audio and written as others read it."""

  def read() -> None:
    found = tokenizer_lib.load(folder)
    ids = found.encode('one two <|im_end|>\u00e9\n')
    found.decode([*ids, found.size, 0])
    whole = found.added(vocabulary_lib.TEXT_SPECIALS)
    extended = vocabulary_lib.Vocabulary.extend(whole, toys.CODES)
    chat.Template(whole, extended).prompt([chat.Turn('user', ['one'])])
    tokenizer_files.write(folder / 'out', whole, extended)

  (folder / 'out').mkdir()
  return of_file(folder / name, read)


def tokenizer_model(folder: pathlib.Path) -> Target:
  toys.assets().tokenizer.save(folder)
  return _tokenizer(folder, tokenizer_lib.SentencePiece.FILE)


def tokenizer_json(folder: pathlib.Path) -> Target:
  made = tokenizers.Tokenizer(models.BPE({'o': 0, 'n': 1, 'on': 2}, [('o', 'n')]))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder, made.normalizer = decoders.ByteLevel(), normalizers.NFC()
  made.add_special_tokens([vocabulary_lib.TURN_END])
  path = folder / tokenizer_lib.HuggingFace.FILE
  path.write_text(made.to_str(), encoding='utf-8')
  return _tokenizer(folder, path.name)


def run_config(folder: pathlib.Path) -> Target:
  config, assets = toys.config(), toys.assets()
  described = description.of(config, assets.vocabulary.fingerprint, ['a', 'b'])
  description.write(folder, described, assets)

  def read() -> None:
    found = description.read(folder)
    try:
      resuming.refuse_another(folder, described)
    finally:
      description.config_of(folder)
    assert isinstance(found['config'], dict)

  (folder / checkpoint.DIRECTORY / '7').mkdir(parents=True)
  return of_file(folder / description.FILE, read)


def _step(folder: pathlib.Path) -> pathlib.Path:
  step = folder / 'step'
  (step / 'params').mkdir(parents=True)
  (step / 'params' / 'array').write_bytes(bytes(range(64)))
  (step / 'metadata').write_bytes(b'{}')
  hashes.write(step)
  return step


def hashes_file(folder: pathlib.Path) -> Target:
  step = _step(folder)
  good = json.loads((step / hashes.FILE).read_text())

  def read() -> None:
    wrong = hashes.damage(step) + hashes.damage(step, 'params')
    assert wrong or json.loads((step / hashes.FILE).read_text())['files'] == good['files']

  return of_file(step / hashes.FILE, read)


def step_file(folder: pathlib.Path) -> Target:
  """Whatever happens to a file of a step is found."""
  step = _step(folder)
  path = step / 'params' / 'array'
  whole = path.read_bytes()

  def read() -> None:
    assert bool(hashes.damage(step)) == (path.read_bytes() != whole)

  return of_file(path, read)


def _params(folder: pathlib.Path, pattern: str) -> Target:
  """Parameters of which a stranger replaced one file, and hashed all."""
  held = {'a': np.arange(12, dtype=np.float32).reshape(3, 4), 'b': {'c': np.ones(5, np.int32)}}
  parameters.save(folder, held, {})
  step = checkpoint.folder(folder, 0)
  (path,) = (step / 'params').glob(pattern)

  def read() -> None:
    hashes.write(step)
    found = parameters.restore(folder)
    again = parameters.read(folder, 0, ('b', 'c'))
    np.testing.assert_array_equal(found['b']['c'], again)
    assert parameters.shapes(folder, 0)['b']['c'].shape == again.shape

  return of_file(path, read)


def params_metadata(folder: pathlib.Path) -> Target:
  return _params(folder, '_METADATA')


def params_manifest(folder: pathlib.Path) -> Target:
  return _params(folder, 'manifest.ocdbt')


def params_arrays(folder: pathlib.Path) -> Target:
  return _params(folder, 'd/*')


def times(folder: pathlib.Path) -> Target:
  made = clock.Clock()
  for process, start in (('a', 0), ('b', 3)):
    written = ledger.Ledger(folder, made, start)
    written._about['process'] = process
    for step in (start + 2, start + 5):
      written.note(step)
  return of_file(folder / ledger.FILE, lambda: ledger.summary(folder))


def metrics(folder: pathlib.Path) -> Target:
  names = ('text_loss', 'audio_loss', 'audio_accuracy', 'audio_loss/0.3', 'audio_accuracy/0.3')
  lines = [json.dumps({'step': step, **dict.fromkeys(names, 0.5)}) for step in (10, 20)]
  path = folder / curves.FILE
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')

  def read() -> None:
    reports = curves.read(folder)
    for draw in (curves.against_step, curves.against_noise):
      str(draw(reports, 33)).encode()

  return of_file(path, read)


def kept_answers(folder: pathlib.Path) -> Target:
  def made(writes: bool = False) -> log.Log:
    return log.Log(folder, 'speak-answers', {'seed': 0}, writes)

  written = made(True)
  written['a'], written['b'] = [[1, 2], True], 'one'
  (path,) = folder.glob('*.jsonl')

  def read() -> None:
    found = made()
    if 'a' in found:
      json.dumps(found['a'])
    made(True)['c'] = [[], False]
    assert made()['c'] == [[], False]

  return of_file(path, read)


def suite(folder: pathlib.Path) -> Target:
  path = folder / 'suite.yaml'
  path.write_text(SUITE, encoding='utf-8')

  def read() -> None:
    json.dumps(suite_file.read(path).to_dict())
    suite_file.read(path, 'a,b', recogniser='pocketsphinx')

  return of_file(path, read, suite_file.STANDARD.read_bytes())


def plan(folder: pathlib.Path) -> Target:
  """What a sweep kept; the compiler is left out."""
  rows, config = formula.Rows(128.0, 0.5, 0.9), toys.config()
  traffic = (work.Traffic('all-gather', ('fsdp',), 'bf16', 1e6),)
  mesh = dict(dataclasses.asdict(config.mesh), fsdp=4, data=1)
  sizes = (10**6, 10**7, 10**6, 1.6e10, 1e9, 2e9, 1e6)
  made = plan_lib.Plan(
    TOPOLOGY, 4, 1.0, mesh, (8, 256, 1), 'none', rows, *sizes, traffic, compile_seconds=1.0
  )

  def kept() -> plan_lib.Plan:
    with mock.patch.object(plan_lib, 'make', return_value=made):
      return sweep.kept(config, toys.assets().vocabulary, TOPOLOGY, rows, folder)

  def read() -> None:
    found = kept()
    report.text(found), report.table([found]), report.drawing([found]), report.ranked([found])

  read()
  kept()
  (path,) = folder.glob('*.json')
  return of_file(path, read)


def _theirs(folder: pathlib.Path) -> None:
  """A checkpoint of one layer in Hugging Face's format."""
  model = toys.config(model__tied=True).model
  values = families.config_of(model, 16, 'float32', 3, 64)
  (folder / families.CONFIG).write_text(json.dumps(values, indent=1), encoding='utf-8')
  shapes = {
    name: row.their_shape
    for row in table.rows(model, 16)
    for name in table._names(row, model.layers)
  }
  held = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  safetensors_numpy.save_file(held, folder / tensors.SINGLE)


def _converted(folder: pathlib.Path) -> None:
  found = tensors.Folder(folder)
  values = families.read_config(folder)
  model, rows = families.model_from(values, toys.config().model, 'config.json')
  table.check(found.shapes, model, rows)
  table.to_ours(found, model, rows)


def hf_config(folder: pathlib.Path) -> Target:
  _theirs(folder)
  llama = json.loads((folder / families.CONFIG).read_text())
  llama |= {'model_type': 'llama', 'layer_types': ['full_attention'], 'head_dim': None}
  llama |= {'rope_scaling': {'rope_type': 'linear', 'factor': 3.0}}
  return of_file(
    folder / families.CONFIG, lambda: _converted(folder), json.dumps(llama).encode()
  )


def hf_tensors(folder: pathlib.Path) -> Target:
  _theirs(folder)
  return of_file(folder / tensors.SINGLE, lambda: _converted(folder))


def hf_index(folder: pathlib.Path) -> Target:
  _theirs(folder)
  index = {'weight_map': dict.fromkeys(tensors.Folder(folder), 'a.safetensors')}
  (folder / tensors.SINGLE).rename(folder / 'a.safetensors')
  (folder / tensors.INDEX).write_text(json.dumps(index), encoding='utf-8')
  return of_file(folder / tensors.INDEX, lambda: _converted(folder))


def hf_prompts(folder: pathlib.Path) -> Target:
  path = folder / 'prompts.json'
  path.write_text(json.dumps({'speak': ['speak', 'sing'], 'answer': ['answer']}))

  def read() -> None:
    found = toys.assets()._replace(prompts=assets_lib.read_prompts(path))
    found.prompt('speak')

  return of_file(path, read)
