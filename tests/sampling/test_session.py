"""Sessions: what is streamed is what is replied, and what cannot be answered is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CODES, make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted

from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, description, parameters
from ttt_jax.codecs import audio_io, codec, external
from ttt_jax.evaluation import candidate
from ttt_jax.model import transformer
from ttt_jax.sampling import session, stopwatch, trained, writing


def a_session(assets, **changes):
  return session.Session(make_config(**changes), assets, {})


TEXT = st.text(st.sampled_from('one two\n é 語🎵x'), max_size=12)
SPAN = st.tuples(st.booleans(), st.lists(st.integers(0, CODES - 1), max_size=20))


@settings(max_examples=40)
@given(
  parts=st.lists(st.one_of(TEXT, SPAN), max_size=5),
  sizes=st.lists(st.integers(1, 6), min_size=1, max_size=40),
  ended=st.booleans(),
)
def test_the_pieces_are_the_reply(assets, parts, sizes, ended):
  v, tokens = assets.vocabulary, []
  for part in parts:
    if isinstance(part, str):
      tokens += assets.tokenizer.encode(part)
    else:
      last, codes = part
      begin, end = ((v.begin_audio, v.end_inner), (v.begin_last, v.end_last))[last]
      tokens += [begin, *v.from_codes(codes), end]
  # Cut short, an answer may end in a begin token.
  tokens += [v.turn_end] if ended else [v.begin_audio]
  talk = a_session(assets)
  talk.decoder = Scripted(tokens, ended, sizes, v)
  reply = talk.reply('speak', 'one')
  pieces = list(talk.stream('speak', 'one'))
  assert ''.join(piece.text for piece in pieces) == reply.text
  np.testing.assert_array_equal(
    np.concatenate([reply.wave[:0], *(piece.wave for piece in pieces)]), reply.wave
  )
  spans = [part[1] for part in parts if not isinstance(part, str)]
  assert len(reply.wave) == 640 * sum(map(len, spans))
  assert [codes.tolist() for codes in reply.codes] == spans
  assert all(codes.dtype == np.int32 for codes in reply.codes)
  assert [code for piece in pieces for code in piece.codes] == sum(spans, [])
  kinds = [piece.kind for piece in pieces]
  assert kinds.count('end') == len(spans) and kinds[-1] == 'done'
  for piece in pieces:
    assert (piece.kind == 'text') == bool(piece.text)
    assert (piece.kind == 'audio') == (piece.wave.size + piece.codes.size > 0)
  assert pieces[-1].complete == reply.complete == ended
  without = session.Reply(reply.text, reply.wave[:0], ended, reply.codes)
  _same(talk.reply('speak', 'one', sound=False), without)
  _same(talk.reply('transcribe', 'one'), without)
  for told in (talk.stream('speak', 'one', sound=False), talk.stream('transcribe', 'one')):
    _same_pieces(told, pieces)


def _same(reply, wanted):
  assert (reply.text, reply.complete) == (wanted.text, wanted.complete)
  np.testing.assert_array_equal(reply.wave, wanted.wave)
  assert [codes.tolist() for codes in reply.codes] == [x.tolist() for x in wanted.codes]


def _same_pieces(silent, pieces):
  """Holds an answer without sound to the one with it, of which sound alone is left out."""
  silent = list(silent)
  assert not any(piece.wave.size for piece in silent)
  heard = [p for p in pieces if p.kind != 'audio' or p.codes.size]
  for one, other in zip(silent, heard, strict=True):
    assert (one.kind, one.text, one.complete) == (other.kind, other.text, other.complete)
    np.testing.assert_array_equal(one.codes, other.codes)


def test_sound_comes_before_its_span_ends(assets):
  v = assets.vocabulary
  tokens = [v.begin_last, *v.from_codes(np.arange(20)), v.end_last, v.turn_end]
  talk = a_session(assets)
  talk.decoder = Scripted(tokens, True, [1, 8, 8], v)
  kinds = [(piece.kind, len(piece.wave)) for piece in talk.stream('speak', 'one')]
  assert kinds[0][0] == kinds[1][0] == 'audio' and kinds[0][1] > 8 * 640 - 0.17 * 16_000


@settings(max_examples=60)
@given(st.lists(st.integers(0, 399), max_size=30), st.integers(1, 4))
def test_text_is_given_out_once_and_never_changed(assets, ids, size):
  text, given_out = writing.Writing(assets.tokenizer), ''
  for _ in range(2):
    given_out = ''.join(
      text.push(np.array(ids[i : i + size], np.int32)) for i in range(0, len(ids), size)
    )
    assert given_out + text.flush() == assets.tokenizer.decode(ids)
  ids = assets.tokenizer.encode('語')
  pushed = [text.push(np.array([i])) for i in ids]
  assert len(ids) > 2 and ''.join(pushed) == pushed[-1] == '語'


def test_a_recording_that_no_prompt_holds_is_refused_unread(assets, monkeypatch):
  talk = a_session(assets, sampling__max_prompt=250)
  monkeypatch.setattr(type(assets.codec), '_encode', None)
  hour = np.broadcast_to(np.float32(0), 3600 * 8000)
  for ask in (talk.reply, talk.stream):
    with pytest.raises(
      audio_io.AudioError, match='lasts 3600.0 s.*max_prompt, 250 tokens.* 10.0 s'
    ):
      ask('transcribe', (hour, 8000))


def test_empty_recordings_and_unknown_voices_are_refused(assets):
  talk = a_session(assets)
  for ask in (talk.reply, talk.stream):
    with pytest.raises(audio_io.AudioError, match='the recording: holds no samples'):
      ask('transcribe', (np.zeros(0, np.float32), 16_000))
    with pytest.raises(ValueError, match="'speak' has no prompt for voice 1: .* voice 0 alone"):
      ask('speak', 'one', 1)


@pytest.mark.parametrize('prompts', [{}, {'speak': []}])
def test_who_has_no_prompts_is_told_where_they_come_from(assets, prompts):
  talk = a_session(assets._replace(prompts=prompts))
  said = "no prompt for task 'speak': .* in assets/prompts.json .* with --prompts=FILE$"
  with pytest.raises(assets_lib.AssetError, match=said):
    talk.reply('speak', 'one')


def test_voices_are_told_by_their_numbers(assets):
  talk = a_session(assets._replace(prompts={'speak': ['a', 'b', 'c']}))
  for voice in (-1, 3):
    with pytest.raises(assets_lib.AssetError, match=f'voice {voice}: voices are 0 to 2$'):
      talk.reply('speak', 'one', voice)


def test_a_codec_that_is_not_here_is_missed_before_anything_is_said(assets):
  talk = a_session(assets._replace(codec=external.External('theirs', CODES)))
  for task, said in (('speak', 'one'), ('transcribe', (np.zeros(9, np.float32), 9))):
    for ask in (talk.reply, talk.stream):
      with pytest.raises(codec.CodecError, match="codec 'theirs'"):
        ask(task, said)


def test_where_no_sound_is_wanted_any_codec_will_do(assets):
  v = assets.vocabulary
  said = [*assets.tokenizer.encode('one'), v.begin_last, *v.from_codes([3, 1]), v.end_last]
  talk = a_session(assets._replace(codec=external.External('theirs', CODES)))
  talk.decoder = Scripted([*said, v.turn_end], True, [1] * 9, v)
  for task in ('speak', 'answer', 'transcribe'):
    reply = talk.reply(task, 'one', sound=False)
    assert reply.text == 'one' and [codes.tolist() for codes in reply.codes] == [[3, 1]]
    pieces = list(talk.stream(task, 'one', sound=False))
    assert [code for piece in pieces for code in piece.codes] == [3, 1]
  # A span where text was asked for loses nothing of the text.
  assert talk.reply('transcribe', 'one').text == 'one'


def test_a_stopwatch_tells_compilation_from_the_rest():
  function = jax.jit(lambda x: jax.lax.cond(x[0] > 0, jnp.sort, jax.jit(jnp.cumsum), x))
  with stopwatch.Stopwatch() as watch:
    assert watch.lap().compiling == 0
    function(jnp.ones(3)).block_until_ready()
    first = watch.lap()
    function(jnp.ones(3)).block_until_ready()
    second = watch.lap()
    assert 0 < first.compiling == second.compiling < first.seconds < second.seconds
    # What lies within another stage counts once, and all that was lies within the last.
    for begin, end in ((1, 2), (2, 3), (0, 4)):
      jax.monitoring.record_event_time_span('/jax/core/compile/x', begin, end)
    assert watch.lap().compiling == 4
  jax.monitoring.record_event_time_span('/jax/core/compile/x', 0, 9)
  assert watch.lap().compiling == 4


@pytest.mark.parametrize(
  'missing,match',
  [
    (None, 'no run is described here'),
    ('vocabulary.json', 'vocabulary.json: not a vocabulary'),
    ('codec.json', 'codec.json: cannot be read'),
    ('prompts.json', 'prompts.json: no prompts of tasks here'),
  ],
)
def test_a_folder_that_lacks_what_speaking_needs_is_refused(assets, tmp_path, missing, match):
  described = description.of(make_config(), assets.vocabulary.fingerprint)
  if missing:
    (tmp_path / 'config.json').write_text(json.dumps(described))
    assets.save(tmp_path / 'assets')
    (tmp_path / 'assets' / missing).unlink()
  with pytest.raises(ValueError, match=match):
    session.Session.load(tmp_path)


def test_parameters_of_another_model_are_refused(assets, tmp_path):
  described = description.of(make_config(), assets.vocabulary.fingerprint)
  description.write(tmp_path, described, assets)
  parameters.save(tmp_path, {'embedding': np.zeros((3, 2))}, described)
  for load in (session.Session.load, lambda folder: candidate.Candidate.load(folder, 'a')):
    with pytest.raises(checkpoint.CheckpointError, match=r'embedding: \(3, 2\), wanted'):
      load(tmp_path)


def zeros_of(config, assets):
  """Parameters of the model that are all zero."""
  shapes = transformer.shapes(transformer.Transformer(config.model, assets.vocabulary.size))
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_a_run_of_another_platform_is_used_all_the_same(assets, tmp_path, caplog):
  config = make_config(model__attention='tpu')
  described = description.of(config, assets.vocabulary.fingerprint)
  description.write(tmp_path, described, assets)
  parameters.save(tmp_path, zeros_of(config, assets), described)
  found = trained.load(tmp_path)
  assert found.config == make_config(model__attention='auto') and found.step == 0
  assert "attention 'tpu', which does not run here" in caplog.text


def test_parameters_that_are_no_numbers_are_refused(assets, tmp_path):
  config, zeros = make_config(), zeros_of(make_config(), assets)
  described = description.of(config, assets.vocabulary.fingerprint)
  description.write(tmp_path, described, assets)
  zeros['layers']['mlp']['gate'][-1, 0, 0] = np.nan
  parameters.save(tmp_path, zeros, described)
  with pytest.raises(checkpoint.CheckpointError, match='0: layers/mlp/gate holds numbers that'):
    trained.load(tmp_path)
