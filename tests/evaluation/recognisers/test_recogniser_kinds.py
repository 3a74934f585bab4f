"""Recognisers that are found by name: built in, and plug-ins from outside the package."""

import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
import transformers

from ttt_jax.codecs import audio_io
from ttt_jax.evaluation.recognisers import kinds, recogniser

PAGE = pathlib.Path(kinds.__file__).parents[3] / 'docs' / 'evaluation.md'


def test_the_plug_in_of_the_page_is_found(clock_site):
  assert kinds.known()['clock'] == 'clock-recogniser (clock_recogniser:Clock)'
  made = kinds.make('clock:15', ['one', 'seventeen', 'twenty one'])
  assert made.hear(np.ones(8000, np.float32), 16_000) == 'seventeen'  # 7.5 letters
  assert made.hear(np.zeros(0, np.float32), 16_000) == ''


@pytest.mark.parametrize('bad', [np.array([np.nan], np.float32), np.zeros((2, 9), np.float32)])
def test_no_recogniser_is_given_what_is_no_waveform(clock_site, bad):
  with pytest.raises(audio_io.AudioError):
    kinds.make('clock', ['one']).hear(bad, 16_000)


@pytest.mark.parametrize(
  'name,said',
  [
    ('sphinx', "unknown kind 'sphinx'; known: pocketsphinx, transformers"),
    ('transformers', 'needs a model'),
    ('transformers:/nowhere/at/all', 'transformers:/nowhere/at/all cannot be loaded'),
    ('pocketsphinx:/no/where', '/no/where: cannot be read'),
  ],
)
def test_what_cannot_be_had_is_explained(name, said):
  with pytest.raises(recogniser.RecogniserError, match=said):
    kinds.make(name, ['one'])


@pytest.mark.parametrize(
  'kind,module,extra',
  [('pocketsphinx', 'sphinx', 'speech'), ('transformers', 'plugins.pipeline', 'asr')],
)
def test_missing_libraries_say_what_to_install(monkeypatch, kind, module, extra):
  monkeypatch.setitem(sys.modules, kind, None)
  monkeypatch.delitem(sys.modules, f'ttt_jax.evaluation.recognisers.{module}', raising=False)
  with pytest.raises(recogniser.RecogniserError, match=rf"pip install 'ttt_jax\[{extra}\]'"):
    kinds.make(kind, ['one'])


def test_a_pipeline_hears_what_its_model_says(tmp_path):
  letters = ['<pad>', '<s>', '</s>', '<unk>', '|', 'a', 'b']
  (tmp_path / 'vocab.json').write_text(
    '{' + ', '.join(f'"{letter}": {i}' for i, letter in enumerate(letters)) + '}'
  )
  torch.manual_seed(0)
  model = transformers.Wav2Vec2ForCTC(
    transformers.Wav2Vec2Config(
      vocab_size=len(letters),
      hidden_size=16,
      num_hidden_layers=1,
      num_attention_heads=2,
      intermediate_size=16,
      conv_dim=(8, 8),
      conv_stride=(80, 4),
      conv_kernel=(80, 4),
      num_conv_pos_embeddings=4,
      num_conv_pos_embedding_groups=2,
    )
  )
  with torch.no_grad():  # it says 'a' at once, and nothing else
    model.lm_head.weight.zero_()
    model.lm_head.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 9, 0]))
  model.save_pretrained(tmp_path)
  tokenizer = transformers.Wav2Vec2CTCTokenizer(tmp_path / 'vocab.json')
  extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=16_000)
  transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
  listener = kinds.make(f'transformers:{tmp_path}', ['unused'])
  wave = np.sin(np.arange(24_000) / 9).astype(np.float32)
  assert listener.hear(wave, 24_000) == listener.hear(wave[:16_000], 16_000) == 'a'
  assert listener.hear(wave[:0], 16_000) == ''
  # What it heard before is of no use when there is another model in the folder.
  assert kinds.make(f'transformers:{tmp_path}', []).fingerprint == listener.fingerprint
  with torch.no_grad():
    model.lm_head.bias[6] = 10
  model.save_pretrained(tmp_path)
  assert kinds.make(f'transformers:{tmp_path}', []).fingerprint != listener.fingerprint


def test_evaluation_imports_no_recogniser_before_it_is_asked_for():
  script = """
import sys
from ttt_jax.cli import evaluate
heavy = {'torch', 'transformers', 'pocketsphinx', 'jiwer', 'sacrebleu', 'whisper_normalizer'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_the_page_shows_a_class_and_its_project():
  text = PAGE.read_text()
  assert len(re.findall(r'class \w+\(recogniser.Recogniser\)', text)) == 1
  (project,) = map(tomllib.loads, re.findall(r'```toml\n(.*?)```', text, re.S))
  assert list(project['project']['entry-points']) == [kinds.GROUP]
