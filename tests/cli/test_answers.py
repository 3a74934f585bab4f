"""What is written as it comes is what is written at the end."""

import json
import re

import numpy as np
import pytest
from conftest import CODES, make_config
from scripted import Scripted

from ttt_jax import errors
from ttt_jax.cli import answers
from ttt_jax.codecs import codec, external
from ttt_jax.sampling import session


@pytest.fixture
def talk(assets):
  v, tokens = assets.vocabulary, assets.tokenizer.encode('one two')
  tokens += [v.begin_audio, *v.from_codes(np.arange(20)), v.end_inner]
  tokens += [
    *assets.tokenizer.encode(' three'),
    v.begin_last,
    *v.from_codes([3, 1]),
    v.end_last,
  ]
  made = session.Session(make_config(), assets, {})
  made.decoder = Scripted([*tokens, v.turn_end], False, [1, 1, 1, 8, 8, 4, 1, 1, 8], v)
  return made


def test_a_live_answer_is_the_whole_one(talk, tmp_path, capfd):
  told = {}
  for way in (answers.whole, answers.live):
    out = tmp_path / f'{way.__name__}.wav'
    assert way(talk, 'speak', 'one', 0, str(out)) is False
    told[way.__name__] = [text.replace(str(out), 'OUT') for text in capfd.readouterr()]
  assert (tmp_path / 'live.wav').read_bytes() == (tmp_path / 'whole.wav').read_bytes()
  assert (tmp_path / 'live.wav').stat().st_size == 44 + 2 * 22 * 640
  text, errors_of_whole = told['whole']
  assert text == 'one two three\n' and errors_of_whole == 'OUT: 0.88 s of speech\n'
  assert told['live'][0] == text
  timing = r'first sound after .* s, and .* s of compilation\nreal-time factor .*\n'
  assert re.fullmatch(re.escape(errors_of_whole) + timing, told['live'][1])


def test_the_file_grows_with_the_answer(talk, tmp_path, monkeypatch):
  out, sizes, stream = tmp_path / 'out.wav', [], talk.stream

  def watched(*arguments, **more):
    for piece in stream(*arguments, **more):
      yield piece
      sizes.append(out.stat().st_size if out.exists() else None)

  monkeypatch.setattr(talk, 'stream', watched)
  answers.live(talk, 'speak', 'one', 0, str(out))
  grown = [size for size in sizes if size is not None]
  assert sizes[0] is None and grown == sorted(grown) and len(set(grown)) > 3


@pytest.mark.parametrize('way', [answers.whole, answers.live])
def test_sound_and_text_part_at_the_standard_output(talk, capfdbinary, way):
  way(talk, 'speak', 'one', 0, '-')
  out, err = capfdbinary.readouterr()
  assert out[:4] == b'RIFF' and len(out) == 44 + 2 * 22 * 640
  assert b'one two three\n' in err


@pytest.mark.parametrize('way', [answers.whole, answers.live])
def test_codes_are_given_without_a_codec_that_makes_sound(talk, tmp_path, capfd, way):
  talk.assets = talk.assets._replace(codec=external.External('theirs', CODES))
  path = tmp_path / 'codes.json'
  assert way(talk, 'answer', 'one', 0, None, str(path)) is False
  assert json.loads(path.read_text()) == [list(range(20)), [3, 1]]
  text, told = capfd.readouterr()
  assert text == 'one two three\n' and told == f'{path}: 22 codes, spans: 2\n'
  with pytest.raises(codec.CodecError, match="'theirs'"):
    way(talk, 'answer', 'one', 0, str(tmp_path / 'out.wav'), str(path))
  with pytest.raises(errors.UserError, match='--codes=/nowhere/x: cannot be written'):
    way(talk, 'answer', 'one', 0, None, '/nowhere/x')


@pytest.mark.parametrize('way', [answers.whole, answers.live])
def test_sound_and_codes_are_given_together(talk, tmp_path, way):
  out, path = tmp_path / 'out.wav', tmp_path / 'codes.json'
  way(talk, 'speak', 'one', 0, str(out), str(path))
  assert json.loads(path.read_text()) == [list(range(20)), [3, 1]]
  assert out.stat().st_size == 44 + 2 * 22 * 640


@pytest.mark.parametrize('way', [answers.whole, answers.live])
def test_an_answer_without_sound_leaves_the_file_alone(talk, assets, tmp_path, way):
  out = tmp_path / 'out.wav'
  out.write_bytes(b'from before')
  talk.decoder = Scripted([assets.vocabulary.turn_end], True, [1], assets.vocabulary)
  with pytest.raises(errors.UserError, match='answered without audio'):
    way(talk, 'speak', 'one', 0, str(out))
  with pytest.raises(errors.UserError, match='answered without audio'):
    way(talk, 'speak', 'one', 0, None, str(out))
  assert out.read_bytes() == b'from before'
  assert way(talk, 'speak', 'one', 0, None) is True
