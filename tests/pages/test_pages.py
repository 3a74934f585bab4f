"""What pages are made of: markup that escapes, drawings, sound, and a picture of a row."""

import io
import re
import struct
import wave
import zlib

import numpy as np
import pytest
from toy_rows import VOCABULARY, packed

from ttt_jax.pages import markup, packed_row, plots, sound


def test_wav_clips():
  with wave.open(io.BytesIO(sound.wav(np.array([-2, 0, 2], 'f4'), 8000))) as file:
    assert np.frombuffer(file.readframes(3), '<i2').tolist() == [-32767, 0, 32767]


def test_packed_row_classes():
  inputs, targets = packed_row.classes(packed(), VOCABULARY)
  t, p, r, m = 'text', 'prompt', 'response', 'masked'
  assert inputs.tolist() == [t, t, t, m, r, m, t, t, t, p, p, t, t, '', '', '']
  assert targets.nonzero()[0].tolist() == [2, 3, 5, 10]
  assert targets[2] == targets[10] == 'text-target'
  assert targets[3] == targets[5] == 'audio-target'


def test_picture_shows_the_rule():
  """The rectangles of the picture cover what the intervals let be seen, and nothing else."""
  row = packed()
  drawn = np.zeros((16, 16), int)
  picture = packed_row.picture(row, VOCABULARY)
  paths = ''.join(re.findall(r'<path class="tone[^"]*" d="([^"]*)"', picture))
  boxes = np.array(re.findall(r'M(\d+) (\d+)h(\d+)v1', paths), int)
  for x, y, width in boxes - [boxes[:, 0].min(), boxes[:, 1].min(), 0]:
    drawn[y, x : x + width] += 1
  index = np.arange(16)
  seen = (index >= row.kv_start[:, None]) & (index < row.kv_end[:, None])
  np.testing.assert_array_equal(drawn, seen)


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 7.2, [0, 2, 4, 6, 8]), (3.2, 6.2, [3, 4, 5, 6, 7])],
)
def test_ticks(low, high, expected):
  assert plots.ticks(low, high) == expected


def test_png_holds_the_pixels():
  pixels = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
  content = plots.png(pixels, np.arange(9).reshape(3, 3))
  assert content[:8] == b'\x89PNG\r\n\x1a\n'
  chunks, at = {}, 8
  while at < len(content):
    size, name = struct.unpack('>I4s', content[at : at + 8])
    chunks[name] = content[at + 8 : at + 8 + size]
    (check,) = struct.unpack('>I', content[at + 8 + size : at + 12 + size])
    assert check == zlib.crc32(name + chunks[name])
    at += size + 12
  assert list(chunks) == [b'IHDR', b'PLTE', b'IDAT', b'IEND']
  assert struct.unpack('>II', chunks[b'IHDR'][:8]) == (3, 2)
  assert list(chunks[b'PLTE']) == list(range(9))
  lines = np.frombuffer(zlib.decompress(chunks[b'IDAT']), np.uint8).reshape(2, 4)
  np.testing.assert_array_equal(lines[:, 1:], pixels)
  assert not lines[:, 0].any()


def test_no_text_gets_out_of_its_element():
  hostile = '<script>&"\'\x00\x1b[2J\x85\ud800\u202e\r\x7f'
  written = markup.element('p', hostile, title=hostile)
  written.encode()  # half a surrogate pair would fail
  assert not re.search('[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]', written)
  shown = '&lt;script&gt;&amp;"\'\u2400\u241b[2J\ufffd\ufffd\ufffd\u240d\u2421'
  assert written.endswith(f'>{shown}</p>')
  assert written.count('<') == 2 and 'title="&lt;script&gt;&amp;&quot;&#x27;' in written


def test_printable_keeps_what_people_write():
  text = 'tab\tline\n\u4f60\u597d \u05e9\u05dc\u05d5\u05dd \U0001f600 e\u0301'
  assert markup.printable(text) == text
