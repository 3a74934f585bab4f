"""The tools as a user calls them, on the whole loop at toy size."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from tools import ROOT, tool

from configs import finetune, tiny
from data_pipelines.little_world import prepare
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.cli import quickstart
from ttt_jax.codecs import audio_io

WORLD = prepare.Settings(
  world='sums',
  voices=2,
  strings=30,
  tests=3,
  codes=48,
  frames=4,
  seed=0,
  ask_every=60,
  answer_every=40,
)


def toy_config():
  c = tiny.get_config()
  c.update_from_flattened_dict(
    {
      'model.layers': 2,
      'model.width': 32,
      'model.mlp_width': 48,
      'model.head_width': 8,
      'data.batch_size': 8,
      'data.row_length': 160,
      'train.steps': 4,
      'train.log_every': 2,
      'sampling.max_audio': 16,
      'sampling.max_text': 8,
    }
  )
  return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('quickstart')
  quickstart.quickstart(toy_config(), WORLD, folder, 1.5, 'a note')
  return folder


def test_the_whole_loop_leaves_its_results(folder):
  results = json.loads((folder / 'results.json').read_text())
  figures = {name: task['figures'] for name, task in results['tasks'].items()}
  assert {name: set(found) for name, found in figures.items()} == {
    'speak': {'speech_wer'},
    'transcribe': {'wer'},
    'answer': {'accuracy', 'speech_accuracy'},
    'all': {'text_nats', 'audio_bound'},
  }
  for about in (about for found in figures.values() for about in found.values()):
    entry = about['checkpoints']['run']
    assert 0 <= entry['low'] <= entry['value'] <= entry['high'] and entry['items']
  assert figures['speak']['speech_wer']['original'] <= 0.1
  assert not any(task['failures'] for task in results['tasks'].values())
  assert set(results['seconds']) == {'install', 'prepare', 'train', 'evaluate'}
  assert results['note'] == 'a note' and results['command'] and results['versions']
  assert '<html' in (folder / 'report.html').read_text()
  prompts = json.loads((folder / 'run' / 'assets' / 'prompts.json').read_text())
  assert prompts['speak'] == ['speak voice one', 'speak voice two']
  lines = (folder / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [2, 4]


def test_a_second_run_skips_what_is_done_and_another_is_refused(folder, capsys):
  before = (folder / 'results.json').stat().st_mtime_ns
  quickstart.quickstart(toy_config(), WORLD, folder, 0.0, 'a note')
  assert capsys.readouterr().out.count('done before') == 3
  assert (folder / 'results.json').stat().st_mtime_ns == before
  other = toy_config()
  other.train.steps = 5
  with pytest.raises(config_lib.ConfigError, match='holds a quickstart with other settings'):
    quickstart.quickstart(other, WORLD, folder, 0.0, 'a note')


def test_evaluate_compares_checkpoints_by_a_suite(folder, tmp_path):
  other, path = tmp_path / 'other', tmp_path / 'suite.yaml'
  shutil.copytree(folder / 'run', other)
  path.write_text(
    f'data: {os.path.relpath(folder / "data", tmp_path)}\nresamples: 20\n'
    'tasks: [{name: read, where: {task: transcribe}, limit: 2, metrics: [wer, cer]}]'
  )
  flags = [f'--checkpoint={folder / "run"},{other}', f'--suite={path}', f'--out={tmp_path}/out']
  code, said = tool('evaluate', *flags)
  assert code == 0, said
  assert 'read: character error rate' in said and 'against the first' in said
  about = json.loads((tmp_path / 'out' / 'results.json').read_text())['tasks']['read']
  for figure in about['figures'].values():
    entry = figure['checkpoints']['other']
    assert entry['items'] == 2 and entry['difference']['value'] == 0
  assert 'run' in (tmp_path / 'out' / 'report.html').read_text()


@pytest.mark.parametrize(
  'flags,message',
  [
    (['--checkpoint={run}'], 'give --data=DATA, or --suite=FILE.yaml'),
    (['--checkpoint={run}', '--suite=/nowhere.yaml'], '/nowhere.yaml: cannot be read'),
    (['--checkpoint={run}', '--data=/nowhere'], '/nowhere: no data set'),
    (['--checkpoint={run},{run}', '--data={data}'], 'each of them once'),
    (['--checkpoint=/nowhere', '--data={data}'], '/nowhere/config.json: no run'),
    (['--checkpoint={run}', '--data={data}', '--split=dev'], "no split 'dev'"),
  ],
)
def test_evaluate_explains_what_is_wrong(folder, tmp_path, flags, message):
  flags = [flag.format(run=folder / 'run', data=folder / 'data') for flag in flags]
  code, said = tool('evaluate', f'--out={tmp_path / "out"}', *flags)
  assert code != 0 and message in said and 'Traceback' not in said, said


def test_evaluate_ends_with_an_error_where_too_many_items_failed(folder, tmp_path):
  suite, out = tmp_path / 'suite.yaml', tmp_path / 'out'
  suite.write_text(
    f'data: {os.path.relpath(folder / "data", tmp_path)}\nresamples: 0\ntolerance: 0\n'
    'tasks: [{name: read, where: {task: [transcribe, answer]}, reference: question,'
    ' metrics: [wer]}]'
  )
  flags = [f'--checkpoint={folder / "run"}', f'--suite={suite}', f'--out={out}']
  code, said = tool('evaluate', *flags)
  assert code != 0 and 'Traceback' not in said, said
  task = json.loads((out / 'results.json').read_text())['tasks']['read']
  failed = task['failed']['run']
  assert 0 < failed < task['items']  # those that are no question
  assert f"error: task 'read', checkpoint run: {failed} of {task['items']} items" in said
  assert "no text under 'question'" in (out / 'report.html').read_text()


def test_generate_speaks_transcribes_and_answers(folder, tmp_path):
  run, out = folder / 'run', tmp_path / 'out.wav'
  code, said = tool('generate', f'--checkpoint={run}', '--speak=three one', f'--out={out}')
  if code == 0:
    wave, rate = audio_io.read_wav(out)
    assert rate == 16_000 and np.isfinite(wave).all()
  else:  # four steps of training: the model may well answer without audio
    assert 'error: the model answered without audio' in said
  codes = tmp_path / 'codes.json'
  code, said = tool('generate', f'--checkpoint={run}', '--speak=three one', f'--codes={codes}')
  if code == 0:
    assert all(0 <= id < WORLD.codes for span in json.loads(codes.read_text()) for id in span)
  else:
    assert 'error: the model answered without audio' in said
  recording = next((folder / 'data' / 'audio').glob('*.wav'))
  wave, rate = audio_io.read_wav(recording)
  other, silence = tmp_path / 'stereo.wav', tmp_path / 'silence.wav'
  soundfile.write(other, np.stack([wave, wave], 1)[::2], 44_100)
  audio_io.write_wav(silence, np.zeros(16_000, np.float32), 16_000)
  for flags in (
    [f'--transcribe={recording}'],
    [f'--ask={other}', '--stream'],
    [f'--transcribe={silence}', '--stream'],
  ):
    code, said = tool('generate', f'--checkpoint={run}', *flags)
    assert code == 0, said
  # Of what is drawn evenly, the first token is not the end.
  cut = [f'--transcribe={recording}', '--text_temperature=90', '--max_text=1']
  code, said = tool('generate', f'--checkpoint={run}', *cut)
  assert code == 0 and 'cut the answer short; to raise it, give --max_text (1 text' in said


def test_a_model_that_nothing_can_be_asked_is_not_served(folder, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(folder / 'run', run)
  (run / 'assets' / 'prompts.json').write_text('{}')
  code, said = tool('serve', f'--checkpoint={run}', '--port=0')
  assert code == 1 and 'error: there is nothing to serve' in said
  assert 'listening' not in said and 'Traceback' not in said


@pytest.mark.parametrize(
  'flags,message',
  [
    (['--transcribe={missing}'], 'no such sound file'),
    (['--transcribe={empty}', '--stream'], 'empty.wav: holds no samples'),
    (['--speak=one', '--out=-', '--checkpoint=/nowhere'], 'no run is described here'),
    (['--transcribe={nan}'], 'nan'),
    (['--transcribe={text}'], 'not a readable sound file'),
    (['--speak=one'], '--speak needs --out=FILE.wav or --codes=FILE.json'),
    (['--transcribe={nan}', '--codes=x'], '--transcribe answers in text'),
    (['--speak= ', '--out={missing}'], '--speak has no text'),
    (['--speak=one', '--codes={missing}/x'], 'x cannot be written: give a file in a folder'),
    ([], 'give one of --speak'),
    (['--speak=one', '--out={missing}', '--voice=3'], 'no prompt for voice 3'),
    (
      ['--speak=one', '--out={missing}', '--audio_temperature=-1'],
      'config.sampling.audio_temperature',
    ),
    (['--speak=one', '--out={missing}', '--preset=ours'], 'there is: authors'),
    # The preset's block is more than the longest span of this model.
    (
      ['--speak=one', '--out={missing}', '--preset=authors'],
      'config.sampling.block_size is 26',
    ),
  ],
)
def test_bad_input_is_explained_without_a_traceback(folder, tmp_path, flags, message):
  nan = tmp_path / 'nan.wav'
  soundfile.write(nan, np.full(100, np.nan, np.float32), 16_000, subtype='FLOAT')
  text = tmp_path / 'text.wav'
  text.write_text('not a recording')
  empty = tmp_path / 'empty.wav'
  soundfile.write(empty, np.zeros(0, np.float32), 16_000)
  paths = {'missing': tmp_path / 'missing.wav', 'nan': nan, 'text': text, 'empty': empty}
  flags = [flag.format(**paths) for flag in flags]
  code, said = tool('generate', f'--checkpoint={folder / "run"}', *flags)
  assert code != 0 and message in said and 'Traceback' not in said


@pytest.mark.parametrize(
  'flags,message',
  [
    (
      ['--config=configs/tiny.py', '--config.optimizer.learning_rat=1'],
      "error: no such key: config.optimizer.learning_rat (did you mean 'learning_rate'?)\n",
    ),
    (['--config=configs/tiny.py', '--noconfig.model.ties'], "model.ties (did you mean 'tied'"),
    (['--config=configs/tiny.py', '--config.train.steps=many'], 'train.steps=many: invalid'),
    (['--config=configs/tiny.py', '--config.train=5'], 'config.train=5: '),
    (['--config=configs/tiny.py', '--config.train.steps=0'], 'config.train.steps is 0'),
    (['--config=configs/missing.py'], 'missing.py'),
    ([], '--config=FILE is needed'),
    (['--config=configs/tiny.py'], "config.data.directory is '', but must be the folder"),
    (['--config=configs/tiny.py', '--config.data.directory= ,'], "data.directory is ' ,', but"),
    (['--config=configs/tiny.py', '--config.data.directory=/nowhere'], '/nowhere: no data set'),
    (['--config=configs/tiny.py', '--profile_steps=15:10'], '--profile_steps=15:10: give'),
    (['--process=0'], 'need --distributed'),
    (['--distributed', '--coordinator=here:1'], 'go together'),
    (['--distributed', '--coordinator=here'], '--coordinator=here: it has no port'),
  ],
)
def test_train_explains_what_is_wrong_with_its_settings(tmp_path, flags, message):
  code, said = tool('train', f'--workdir={tmp_path / "run"}', *flags)
  assert code != 0 and message in said and 'Traceback' not in said, said


def test_keys_are_checked_where_a_config_is_given_by_default_too():
  code, said = tool('inspect_data', '--config.data.window_=3')
  assert code == errors.FINAL
  assert said == "error: no such key: config.data.window_ (did you mean 'window'?)\n"


@pytest.mark.parametrize(
  'content,message',
  [('def get_config(:', 'config.py, line 1: '), ('def get_config(): return 3', 'not 3')],
)
def test_config_files_that_are_none_are_explained(tmp_path, content, message):
  path = tmp_path / 'config.py'
  path.write_text(content)
  code, said = tool('train', f'--workdir={tmp_path / "run"}', f'--config={path}')
  assert code != 0 and message in said and 'Traceback' not in said, said


@pytest.mark.parametrize(
  'content', ['{"model_type": "qwen2"}', '[]', '{', '{"config": {"model": {}}}', None]
)
def test_a_folder_that_is_not_converted_is_told_how(tmp_path, content):
  if content is not None:
    (tmp_path / 'config.json').write_text(content)
  said = re.escape(f'{tmp_path}/config.json: does not describe a run')
  with pytest.raises(ValueError, match=said + '.*`ttt-convert from-hf --source='):
    finetune.get_config(str(tmp_path))


def test_sigterm_ends_a_process_that_trains_with_others():
  script = """
import os, signal, sys, time
from absl import flags
from ttt_jax.cli import train
flags.FLAGS(['x', '--workdir=x', '--coordinator=127.0.0.1:' + sys.argv[1],
             '--processes=1', '--process=0'])
train._join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(2)
"""
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  done = subprocess.run([sys.executable, '-c', script, str(port)], cwd=ROOT, check=False)
  assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
  'end,code',
  [
    ("raise RuntimeError('end')", 1),
    ("raise errors.UserError('end')", 1),
    ("raise checks.ConfigError('end')", errors.FINAL),
    ("raise stopping.Stopped('end', 0.5)", 143),
    ('pass', 0),
  ],
)
def test_a_run_that_ends_does_not_wait_for_threads_that_wait(tmp_path, end, code):
  script = f"""
import threading, time
from ttt_jax import checks, errors
from ttt_jax.cli import train
from ttt_jax.training import stopping

def train_and_end(*_, **__):
  threading.Thread(target=time.sleep, args=(300,)).start()
  {end}

train.train.train = train_and_end
train.run()
"""
  words = ['--config=configs/tiny.py', '--config.guard.grace=0.5']
  words += [f'--config.data.directory={tmp_path}', f'--workdir={tmp_path}']
  command = [sys.executable, '-c', script, *words]
  done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
  assert done.returncode == code
  told = 'the last step' if end == 'pass' else 'end'
  assert re.search(rf'no end 0.5 s after .*{told}.* \(config.guard.grace\)', done.stderr)


def test_what_is_supervised_has_the_same_flags_and_supervises_nothing():
  script = """
import sys
from absl import flags
from ttt_jax.cli import train
from ttt_jax.training import supervise

def parse(words):
  flags.FLAGS.unparse_flags()
  flags.FLAGS(['x', *words])
  return [flags.FLAGS[name].value for name in ('workdir', 'supervise', 'supervised')]

def start(command, workdir, guard):
  assert command[:3] == [sys.executable, '-m', 'ttt_jax.cli.train']
  print(workdir, *parse(command[3:]))

supervise.supervise = start
for flag in sys.argv[1:]:
  sys.argv[1:] = ['--config=configs/tiny.py', flag, '--workdir', 'supervise']
  parse(sys.argv[1:])
  train._supervise()
"""
  spelled = ['--supervise', '-supervise', '--supervise=true']
  command = [sys.executable, '-c', script, *spelled]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.splitlines() == ['supervise supervise False True'] * 3


def test_a_run_goes_to_hugging_face_and_back_and_on(folder, tmp_path):
  run, theirs, again = folder / 'run', tmp_path / 'theirs', tmp_path / 'again'
  for arguments in (
    ('convert', 'to-hf', f'--checkpoint={run}', f'--out={theirs}', '--shard-gib=0.0001'),
    ('convert', 'from-hf', '--source', theirs, '--out', again),
  ):
    code, said = tool(*arguments)
    assert code == 0, said
  assert (theirs / 'model.safetensors.index.json').exists()
  recording = next((folder / 'data' / 'audio').glob('*.wav'))
  answers = [tool('generate', f'--checkpoint={x}', f'--ask={recording}') for x in (run, again)]
  assert answers[0] == answers[1] and answers[0][0] == 0
  code, said = tool(
    *('train', f'--config=configs/finetune.py:{again}', f'--workdir={tmp_path / "on"}'),
    *(f'--config.data.directory={folder / "data"}', '--config.train.steps=1'),
    *('--config.data.batch_size=2', '--config.data.row_length=160'),
    '--config.train.freeze=layers',
  )
  assert code == 0, said
  assert f'starting from {again}' in said


@pytest.mark.parametrize(
  'arguments,message',
  [
    (['--out=x'], 'begin with one of: from-hf, to-hf'),
    (['from-hf', '--out=x'], 'from-hf needs --source'),
    (['to-hf', 'more', '--out=x', '--checkpoint=y'], 'not understood: more'),
    (['to-hf', '--out=x', '--checkpoint=/nowhere'], 'no run is described here'),
    (['from-hf', '--out=x', '--source=/nowhere'], '/nowhere is not a folder'),
  ],
)
def test_conversions_that_cannot_be_done_say_why(arguments, message):
  code, said = tool('convert', *arguments)
  assert code != 0 and message in said and 'Traceback' not in said
