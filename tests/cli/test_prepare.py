import contextlib
import json
import os
import pty
import subprocess
import sys
import termios

import machines
import numpy as np
import pytest
import soundfile
from tools import ROOT, tool

from data_pipelines import records
from ttt_jax.codecs import external


@pytest.fixture
def checkpoint(assets, tmp_path):
  """A folder of a run, as far as preparing needs one."""
  assets.save(tmp_path / 'run' / 'assets')
  return tmp_path / 'run'


@pytest.fixture
def lines(tmp_path):
  path = tmp_path / 'records.jsonl'
  said = {'prompt': 'one', 'response': 'two three'}
  path.write_text(''.join(json.dumps(said) + '\n' for _ in range(50)))
  return path


def prepare(checkpoint, out, *more):
  return tool('prepare', f'--checkpoint={checkpoint}', f'--out={out}', *more)


def table(said):
  """What the printed table says, by its first column."""
  rows = (line.strip().partition('  ') for line in said.splitlines())
  return {name: value.strip() for name, _, value in rows}


def test_conversations_become_a_data_set(checkpoint, lines, tmp_path):
  lines.write_text(lines.read_text() + '{"prompt": "one", "response": "<|begin_of_quad|>"}\n')
  more = (f'--source=text_chat={lines}', '--piece-mb=0.001', '--processes=2', '--held-out=0.2')
  code, said = prepare(checkpoint, tmp_path / 'data', *more, '--max-rejected=0.05')
  assert code == 0, said
  train, test = (records.Source(tmp_path / 'data', split) for split in ('train', 'test'))
  assert len(train) + len(test) == 50 and len(test) > 2
  assert train[0].about['task'] == 'text_chat'
  shown = table(said)
  assert f'{tmp_path / "data"}: 50 records' in said
  assert (shown['in train'], shown['in test']) == (str(len(train)), str(len(test)))
  tokens = sum(source.shapes.lengths.sum() for source in (train, test))
  assert shown['tokens'] == f'{tokens:,}' and shown['rejected'] == '1 of 51'
  assert shown['a begin token is followed by no audio'] == '1'
  assert f'what was rejected: {tmp_path / "data" / "quarantine.jsonl"}' in said


def test_too_many_rejections_name_the_quarantine_and_a_mend_goes_on(
  checkpoint, lines, tmp_path
):
  broken = tmp_path / 'broken.jsonl'
  broken.write_text('{"prompt": "one", "response": "<|begin_of_quad|>"}\n')
  more = (f'--source={lines}', f'--source={broken}')
  code, said = prepare(checkpoint, tmp_path / 'data', *more)
  assert code != 0 and '1 of 51 records' in said and 'Traceback' not in said
  (line,) = (tmp_path / 'data.partial' / 'quarantine.jsonl').read_text().splitlines()
  assert json.loads(line)['file'] == str(broken) and json.loads(line)['line'] == 1
  assert 'After mending a sound that a manifest names, touch the manifest' in said
  broken.write_text('{"prompt": "one", "response": "two"}\n')
  code, said = prepare(checkpoint, tmp_path / 'data', *more)
  assert code == 0 and table(said)['pieces done before'] == '1'


def test_audio_is_told_in_hours_and_may_be_encoded_by_a_codec_beside(assets, lines, tmp_path):
  rng = np.random.default_rng(0)
  soundfile.write(tmp_path / 'a.wav', rng.normal(size=24_000) / 8, 16_000)
  turns = [
    {'role': 'user', 'parts': [{'audio': 'a.wav'}]},
    {'role': 'assistant', 'parts': [{'text': 'one two'}]},
  ]
  lines.write_text(json.dumps({'turns': turns, 'task': 'transcribe'}) + '\n')
  assets.codec.save(tmp_path / 'codec')
  absent = assets._replace(codec=external.External('absent', assets.codec.codebook_size))
  absent.save(tmp_path / 'run' / 'assets')
  code, said = prepare(tmp_path / 'run', tmp_path / 'data', f'--source={lines}')
  assert code != 0 and 'absent' in said and 'Traceback' not in said
  more = (f'--source={lines}', f'--codec={tmp_path / "codec"}')
  code, said = prepare(tmp_path / 'run', tmp_path / 'other', *more)
  assert code == 0, said
  source = records.Source(tmp_path / 'other', 'train')
  codes = assets.vocabulary.to_codes(source[0].document.tokens)
  wave = soundfile.read(tmp_path / 'a.wav', dtype='float32')[0]
  np.testing.assert_array_equal(codes, assets.codec.encode(wave, 16_000))
  assert table(said)['hours of audio'] == '0.00' and table(said)['of audio'] == str(len(codes))
  assert source.fingerprints == absent.fingerprints


def test_a_terminal_sees_a_bar(checkpoint, lines, tmp_path):
  ours, theirs = pty.openpty()
  termios.tcsetwinsize(theirs, (24, 120))
  words = [f'--checkpoint={checkpoint}', f'--out={tmp_path / "data"}', f'--source={lines}']
  done = subprocess.run(
    [sys.executable, '-m', 'ttt_jax.cli.prepare', *words],
    stdout=subprocess.PIPE,
    stderr=theirs,
    cwd=ROOT,
    check=True,
  )
  os.close(theirs)
  shown = ''
  with contextlib.suppress(OSError):  # the other end is closed, and all is read
    while True:
      shown += os.read(ours, 100_000).decode()
  os.close(ours)
  assert '1/1' in shown and 'records/s' in shown and 'tokens/s' in shown
  assert b'50 records' in done.stdout


@pytest.mark.parametrize(
  'more,message',
  [
    ([], 'nothing to read'),
    (['--source=/nowhere'], '/nowhere: no such file'),
    (['--source={lines}', '--split=test', '--held_out=0.1'], 'use another --split'),
    (['--source={lines}', '--max_rejected=2'], 'max_rejected'),
    (['--source={lines}', '--codec=/nowhere'], '/nowhere'),
  ],
)
def test_what_cannot_be_done_is_said(checkpoint, lines, tmp_path, more, message):
  code, said = prepare(checkpoint, tmp_path / 'data', *(m.format(lines=lines) for m in more))
  assert code != 0 and message in said and 'Traceback' not in said
  assert not (tmp_path / 'data').exists()


def test_a_system_that_does_not_tell_its_cores_prepares_too(checkpoint, lines, tmp_path):
  script = 'import os; del os.sched_getaffinity; from ttt_jax.cli import prepare; prepare.run()'
  words = [f'--checkpoint={checkpoint}', f'--out={tmp_path / "data"}', f'--source={lines}']
  subprocess.run([sys.executable, '-c', script, *words], cwd=ROOT, check=True)
  assert len(records.Source(tmp_path / 'data', 'train')) == 50


def test_beam_makes_the_same(checkpoint, lines, tmp_path):
  machines.package('apache_beam')
  words = [f'--checkpoint={checkpoint}', f'--out={tmp_path / "here"}', f'--source={lines}']
  command = [sys.executable, '-m', 'ttt_jax.cli.prepare', *words]
  subprocess.run(command, cwd=ROOT, check=True)  # its sets have an order of their own
  more = (f'--source={lines}', '--beam=runner=FnApiRunner')
  code, said = prepare(checkpoint, tmp_path / 'there', *more)
  assert code == 0 and table(said)['tokens'], said
  here, there = (records.Source(tmp_path / name, 'train') for name in ('here', 'there'))
  assert here.fingerprint == there.fingerprint


WITHOUT = """
import sys, types
from ttt_jax.cli import prepare
prepare._BEAM = types.SimpleNamespace(value=['runner=any'])
for module in ('apache_beam', 'data_pipelines.preparing.beam'):
  sys.modules[module] = None  # as if it were not there
  try:
    prepare._prepare(None)
  except Exception as error:
    print(type(error).__name__, error)
  del sys.modules[module]
"""


def test_the_extra_is_asked_for_only_where_it_is_missing():
  machines.package('apache_beam')
  command = [sys.executable, '-c', WITHOUT]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  extra, *ours = done.stdout.splitlines()
  assert extra.startswith('UserError --beam needs the extra')
  assert len(ours) == 1 and 'Error' in ours[0] and 'data_pipelines.preparing' in ours[0]
