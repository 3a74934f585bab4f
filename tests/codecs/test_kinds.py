"""Codecs that are found by name: built in, and plug-ins from outside the package."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from ttt_jax.codecs import codec, external, kinds, mel_vq

PAGE = pathlib.Path(kinds.__file__).parents[2] / 'docs' / 'codecs.md'


def install(folder: pathlib.Path, module: str, code: str, points: dict[str, str], name='their'):
  """A distribution as an installer leaves it behind."""
  about = folder / f'{name.replace("-", "_")}-1.0.dist-info'
  about.mkdir(parents=True)
  (about / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
  lines = [f'[{kinds.GROUP}]', *(f'{kind} = {value}' for kind, value in points.items())]
  (about / 'entry_points.txt').write_text('\n'.join(lines) + '\n')
  (folder / f'{module}.py').write_text(code)


@pytest.fixture
def site(tmp_path, monkeypatch):
  """A folder of installed distributions."""
  monkeypatch.syspath_prepend(tmp_path / 'site')
  return tmp_path / 'site'


# --- the plug-in of docs/codecs.md, word by word ---

USE = """
import sys
import numpy as np
from ttt_jax.codecs import kinds
from mu_law_codec import MuLaw

MuLaw().save(sys.argv[1])
made = kinds.load_codec(sys.argv[1])
assert type(made) is MuLaw and 'mu-law-codec (mu_law_codec:MuLaw)' in kinds.known()['mu_law']
wave = (0.5 * np.sin(np.arange(1600) / 9)).astype(np.float32)
ids = made.encode(wave, 8000)
assert ids.dtype == np.int32 and 100 < len(set(ids.tolist())) <= made.codebook_size
again = made.decode(ids)
assert 0 < np.abs(again - wave).max() < 0.02 and again.dtype == np.float32
decoder = made.decoder()
parts = [decoder.push(ids[:7]), decoder.push(ids[7:]), decoder.flush()]
assert (np.concatenate(parts) == again).all()
twice = made.encode_batch([wave, np.repeat(wave, 2)], [8000, 16000])
assert (twice[0] == ids).all() and len(twice[1]) == len(ids)
print('done')
"""


def test_the_plug_in_of_the_page_works_in_a_process_of_its_own(tmp_path):
  text = PAGE.read_text()
  (code,) = [x for x in re.findall(r'```python\n(.*?)```', text, re.S) if 'class MuLaw' in x]
  (project,) = map(tomllib.loads, re.findall(r'```toml\n(.*?)```', text, re.S))
  project = project['project']
  (group,) = project['entry-points']
  assert group == kinds.GROUP
  points = project['entry-points'][group]
  install(tmp_path / 'site', 'mu_law_codec', code, points, project['name'])
  paths = [str(tmp_path / 'site'), os.environ.get('PYTHONPATH', '')]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
  command = [sys.executable, '-c', USE, str(tmp_path / 'codec')]
  run = subprocess.run(
    command, env=environment, capture_output=True, text=True, cwd=PAGE.parents[1]
  )
  assert run.stdout == 'done\n', run.stderr
  with pytest.raises(codec.CodecError, match="codec.json: unknown kind 'mu_law'; known: ex"):
    kinds.load_codec(tmp_path / 'codec')  # not installed here


# --- plug-ins that are wrong ---

GOOD = """
from ttt_jax.codecs import external
class Good(external.External):
  kind = 'good'
"""


def test_a_plug_in_is_found_as_soon_as_it_is_there(site):
  with pytest.raises(
    codec.CodecError, match="known: external, glm4voice, .*point 'good' of gr"
  ):
    kinds.find('good')
  install(site, 'good_codec', GOOD, {'good': 'good_codec:Good'})
  assert issubclass(kinds.find('good'), external.External)
  assert kinds.known()['good'] == 'their (good_codec:Good)'


def test_no_plug_in_takes_a_name_that_is_built_in(site):
  assert kinds.find('mel_vq') is mel_vq.MelVQ
  install(site, 'evil_codec', GOOD, {'mel_vq': 'evil_codec:Good'})
  with pytest.raises(codec.CodecError, match=r"'mel_vq' is built in, .* their \(evil_codec:"):
    kinds.find('mel_vq')
  assert kinds.find('external') is external.External


def test_two_plug_ins_of_one_name_are_both_told(site):
  for name in ('one', 'two'):
    install(site, f'{name}_codec', GOOD, {'good': f'{name}_codec:Good'}, name)
  with pytest.raises(codec.CodecError, match='claimed by two .*one .*two|two .*two .*one'):
    kinds.find('good')


@pytest.mark.parametrize(
  'number,code,value,match',
  [
    (0, 'import not_installed', 'Good', "ModuleNotFoundError: No module named 'not_installed'"),
    (1, 'x = 1 / 0', 'Good', 'ZeroDivisionError.*install what their .broken1:Good. needs'),
    (2, '', 'Good', "has no attribute 'Good'"),
    (3, 'class Good: kind = "good"', 'Good', 'broken3:Good is no subclass of Codec'),
    (4, 'Good = 5', 'Good', 'broken4:Good is no subclass of Codec'),
    (5, GOOD.replace("'good'", "'other'"), 'Good', "says that its kind is 'other'"),
  ],
)
def test_plug_ins_that_do_not_work_say_why(site, tmp_path, number, code, value, match):
  install(site, f'broken{number}', code, {'good': f'broken{number}:{value}'})
  (tmp_path / codec.CONFIG_NAME).write_text('{"kind": "good"}')
  with pytest.raises(codec.CodecError, match=f"codec.json: kind 'good'.*{match}"):
    kinds.load_codec(tmp_path)


def test_a_built_in_kind_without_its_libraries_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  monkeypatch.delitem(sys.modules, 'ttt_jax.codecs.plugins.mimi', raising=False)
  with pytest.raises(codec.CodecError, match=r"'mimi' .*; pip install 'ttt_jax\[mimi\]'"):
    kinds.find('mimi')


def test_what_is_no_codec_says_so(tmp_path):
  for content in ('', '[]', '5', '{"model_type": "qwen2"}'):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(codec.CodecError, match='is this a codec directory'):
      kinds.load_codec(tmp_path)


# --- batches ---


def test_a_batch_is_one_after_the_other_unless_a_kind_knows_better(assets):
  noise = np.random.default_rng(0).normal(size=9000).astype(np.float32)
  waves, rates = [noise, noise[:300], noise[1000:]], [16_000, 16_000, 22_050]
  made = assets.codec.encode_batch(waves, rates)
  for ids, wave, rate in zip(made, waves, rates):
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, assets.codec.encode(wave, rate))
  with pytest.raises(ValueError, match='zip'):
    assets.codec.encode_batch(waves, rates[:2])
  with pytest.raises(codec.CodecError, match='is not here'):
    external.External('theirs', 24).encode_batch(waves, rates)
