"""Small things of every kind, as the project's own writers write them; made once a process."""

import functools
import io
import pathlib

import numpy as np
import soundfile

from configs import base
from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import audio_io, mel_vq, spectrogram

CODES = 8
RATE = 16_000


@functools.cache
def assets() -> assets_lib.Assets:
  rng = np.random.default_rng(0)
  words = ['system\n', 'user\n', 'assistant\n', 'speak', 'transcribe', 'answer', 'one', 'two']
  tokenizer = tokenizer_lib.SentencePiece.train([' '.join(words)] * 20, 300)
  width = spectrogram.NUM_MELS
  arrays = [(width,), (width, 2), (CODES, 2), (CODES, width)]
  codec = mel_vq.MelVQ(*(rng.normal(size=size).astype(np.float32) for size in arrays))
  vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, CODES)
  prompts = {task: [task] for task in ('speak', 'transcribe', 'answer')}
  return assets_lib.Assets(vocabulary, tokenizer, codec, prompts)


def config(**changes) -> config_lib.Config:
  """The defaults at toy size; `changes` by dotted keys, `__` for the dot."""
  values = base.get_config()
  sizes = {'model.width': 8, 'model.mlp_width': 8, 'model.head_width': 4, 'model.layers': 1}
  sizes |= {'model.heads': 2, 'model.kv_heads': 1, 'sampling.block_size': 4}
  sizes |= {'sampling.max_text': 12, 'sampling.max_audio': 24, 'sampling.max_prompt': 300}
  sizes |= {'data.directory': 'a,b', 'data.changes': ((5, (1.0, 1.0)),)}
  values.update_from_flattened_dict(sizes)
  values.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
  return config_lib.from_config_dict(values)


def record(number: int) -> records.Record:
  turns = [
    chat.Turn('system', ['speak']),
    chat.Turn('user', ['one']),
    chat.Turn('assistant', ['two', np.arange(number % 3 + 1)]),
  ]
  about = {'task': 'speak', 'text': 'one'}
  return records.Record(f'toy-{number}', assets().template.document(turns), about)


def data_set(directory: pathlib.Path, size: int = 3) -> pathlib.Path:
  """A data set of a few records."""
  records.write(directory, {'train': lambda: iter(map(record, range(size)))}, assets())
  return directory


def wave(samples: int = 300) -> np.ndarray:
  return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


def wav(samples: int = 300, rate: int = RATE) -> bytes:
  content = audio_io.pcm(wave(samples))
  return audio_io.wav_header(rate, len(content)) + content


def sounds() -> list[bytes]:
  """The same sound in other forms."""
  out = []
  for form, kind in (
    ('WAV', 'FLOAT'),
    ('WAV', 'IMA_ADPCM'),
    ('WAV', 'ULAW'),
    ('FLAC', 'PCM_16'),
    ('AIFF', 'PCM_24'),
    ('AU', 'PCM_16'),
    ('CAF', 'PCM_16'),
    ('RF64', 'PCM_16'),
    ('OGG', 'OPUS'),
    ('OGG', 'VORBIS'),
    ('MP3', 'MPEG_LAYER_III'),
  ):
    stream = io.BytesIO()
    soundfile.write(stream, wave(), RATE, subtype=kind, format=form)
    out.append(stream.getvalue())
  stereo = io.BytesIO()
  soundfile.write(stereo, np.stack([wave(), wave()], 1), RATE, format='WAV')
  return [*out, stereo.getvalue()]
