import datetime
import decimal
import json
import pickle

import numpy as np
import pyarrow
import pytest
import soundfile
from conftest import CODES
from pyarrow import parquet

from data_pipelines.converting import clips, conversion, interleave
from data_pipelines.items import Rejected
from data_pipelines.reading import sources
from data_pipelines.records import Record
from ttt_jax import chat
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs.audio_io import AudioError

RATE = 16_000
USER = {'role': 'user', 'parts': [{'text': 'one'}]}


@pytest.fixture(scope='module')
def folder(assets, tmp_path_factory):
  """Assets, and sounds of two seconds in many forms."""
  folder = tmp_path_factory.mktemp('manifest')
  assets.save(folder / 'assets')
  tone = np.sin(np.arange(2 * RATE) / 9) * np.linspace(0.1, 0.6, 2 * RATE)
  for name, subtype in (
    *(('u8.wav', 'PCM_U8'), ('s16.wav', 'PCM_16'), ('s24.wav', 'PCM_24'), ('f.wav', 'FLOAT')),
    *(('a.flac', 'PCM_24'), ('a.ogg', 'VORBIS'), ('a.mp3', None), ('a.aiff', 'PCM_16')),
  ):
    soundfile.write(folder / name, tone, RATE, subtype=subtype)
  soundfile.write(folder / 'stereo.wav', np.stack([tone, tone], 1), RATE)
  soundfile.write(folder / 'a8k.wav', tone[::2], RATE // 2)
  soundfile.write(
    folder / 'a44k.wav',
    np.interp(np.arange(88_200) / 44.1e3 * RATE, np.arange(2 * RATE), tone),
    44_100,
  )
  return folder


def convert(folder, *contents, **settings):
  path = folder / 'manifest.jsonl'
  path.write_text('\n'.join(map(json.dumps, contents)))
  return convert_file(path, **settings)


def convert_file(path, **settings):
  pieces = sources.pieces([sources.Source(str(path))], 10**9)
  made = conversion.Conversion(str(path.parent / 'assets'), **settings)
  return list(made(one for piece in pieces for one in sources.read(piece)))


def speaks(*parts, **more):
  return {'turns': [USER, {'role': 'assistant', 'parts': list(parts), **more}]}


def heard(record, assets):
  return assets.vocabulary.to_codes(record.document.tokens)


def test_a_record_is_what_the_template_makes_of_its_parts(folder, assets):
  content = {
    'turns': [
      {'role': 'system', 'parts': [{'text': 'transcribe'}]},
      {'role': 'user', 'parts': [{'audio': 's16.wav', 'start': 0.5, 'end': 1.25}]},
      {'role': 'assistant', 'parts': [{'text': 'one two'}, {'audio': 'a.flac'}]},
    ],
    'task': 'transcribe',
    'about': {'kind': 'words'},
  }
  (record,) = convert(folder, content)
  waves = [soundfile.read(folder / name, dtype='float32')[0] for name in ('s16.wav', 'a.flac')]
  waves[0] = waves[0][RATE // 2 : RATE * 5 // 4]
  codes = [assets.codec.encode(wave, RATE) for wave in waves]
  wanted = assets.template.document(
    [
      chat.Turn('system', ['transcribe']),
      chat.Turn('user', codes[:1]),
      chat.Turn('assistant', ['one two', codes[1]]),
    ]
  )
  for got, also in zip(record.document, wanted):
    np.testing.assert_array_equal(got, also)
  about = {'kind': 'words', 'source': 'manifest.jsonl', 'task': 'transcribe', 'text': 'one two'}
  assert record.about == about and record.key == '0/manifest.jsonl:1'


def test_all_of_a_text_without_turns_is_a_target(folder, assets):
  content = {'parts': [{'text': 'one two'}, {'audio': 's16.wav'}], 'interleave': [2, 5]}
  (record,) = convert(folder, content)
  assert record.document.targets.all()
  tokens = record.document.tokens
  codes = assets.codec.encode(*soundfile.read(folder / 's16.wav', dtype='float32'))
  begin, end = assets.vocabulary.begin_last, assets.vocabulary.end_last
  audio = [begin, *(codes + assets.vocabulary.audio_start), end]
  wanted = assets.tokenizer.encode('one two') + audio
  assert sorted(tokens.tolist()) == sorted(wanted)


def test_answers_are_interleaved_as_they_ask_for(folder, assets):
  text = 'one two three four five six seven zero one two three four five six seven zero'
  parts = {'text': text}, {'audio': 's16.wav'}
  words = [{'word': w, 'start': n / 8, 'end': n / 8 + 0.1} for n, w in enumerate(text.split())]
  ids = assets.tokenizer.encode(text)
  whole, true, pattern, by_words = convert(
    folder,
    speaks(*parts),
    speaks(*parts, interleave=True),
    speaks(*parts, interleave=[3, 8]),
    speaks(parts[0], parts[1] | {'words': words}, interleave='words'),
  )
  codes = heard(whole, assets)
  for record, wanted in (
    (whole, [ids, codes]),
    (true, interleave.by_count(ids, codes, (13, 26))),
    (pattern, interleave.by_count(ids, codes, (3, 8))),
  ):
    turns = [chat.Turn('user', ['one']), chat.Turn('assistant', wanted)]
    np.testing.assert_array_equal(
      record.document.tokens, assets.template.document(turns).tokens
    )
  spans = by_words.document.spans
  np.testing.assert_array_equal(heard(by_words, assets), codes)
  assert len(spans) == 2  # of 13 words and of 3
  rate = assets.codec.frame_rate
  assert spans[0, 1] - spans[0, 0] - 1 == round((12 / 8 + 0.1 + 13 / 8) / 2 * rate)


def test_sounds_of_all_forms_are_heard_alike(folder, assets):
  names = ['s16.wav', 'u8.wav', 's24.wav', 'f.wav', 'a.flac', 'a.ogg', 'a.mp3', 'a.aiff']
  names += ['stereo.wav', 'a8k.wav', 'a44k.wav']
  made = convert(folder, *(speaks({'audio': name}) for name in names))
  assert all(isinstance(one, Record) for one in made)
  first = heard(made[0], assets)
  assert len(first) == 2 * assets.codec.frame_rate
  for name, record in zip(names, made):
    codes = heard(record, assets)
    assert abs(len(codes) - len(first)) <= 2, name
    if name in ('s24.wav', 'f.wav', 'a.flac', 'a.aiff', 'stereo.wav'):
      assert np.mean(codes == first) > 0.9, name


def test_a_clip_is_the_stretch_of_the_whole(folder):
  for name in ('s24.wav', 'a.flac', 'stereo.wav'):
    whole, rate = clips.read(clips.Clip(folder / name), 10)
    part, _ = clips.read(clips.Clip(folder / name, 0.25, 1.125), 10)
    np.testing.assert_array_equal(part, whole[4000:18_000])
    rest, _ = clips.read(clips.Clip(folder / name, 1.5), 10)
    np.testing.assert_array_equal(rest, whole[24_000:])
    late, _ = clips.read(clips.Clip(folder / name, 1.5, 2.04), 10)  # rounded up by someone
    np.testing.assert_array_equal(late, rest)


def test_a_stereo_clip_is_the_mean_of_its_channels(tmp_path):
  sound = np.random.default_rng(0).uniform(-0.5, 0.5, (100_000, 3)).astype(np.float32)
  soundfile.write(tmp_path / 'a.wav', sound, RATE, subtype='FLOAT')
  wave, rate = clips.read(clips.Clip(tmp_path / 'a.wav'), 10)
  assert rate == RATE and wave.dtype == np.float32
  np.testing.assert_allclose(wave, sound.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize('name', ['s16.wav', 'u8.wav', 'a.flac', 'a.ogg', 'a.mp3', 'a.aiff'])
@pytest.mark.parametrize('share', [0.0, 0.001, 0.5, 0.9])
def test_a_truncated_sound_is_refused(folder, tmp_path, name, share):
  content = (folder / name).read_bytes()
  (tmp_path / name).write_bytes(content[: int(len(content) * share)])
  with pytest.raises(AudioError, match='truncated|empty|no sound file'):
    clips.read(clips.Clip(tmp_path / name), 10)


def test_the_length_of_a_stream_that_no_header_tells_is_taken_as_it_is(folder, tmp_path):
  content = bytearray((folder / 's16.wav').read_bytes())
  content[4:8] = content[40:44] = b'\xff' * 4
  (tmp_path / 'a.wav').write_bytes(content)
  assert len(clips.read(clips.Clip(tmp_path / 'a.wav'), 10)[0]) == 2 * RATE


def sounds_that_are_none(folder):
  soundfile.write(folder / 'zero.wav', np.zeros(0), RATE)
  soundfile.write(folder / 'nan.wav', np.array([0.1, np.nan, 0.2]), RATE, subtype='FLOAT')
  soundfile.write(folder / 'inf.wav', np.array([0.1, np.inf, 0.2]), RATE, subtype='DOUBLE')
  (folder / 'empty.wav').write_bytes(b'')
  (folder / 'text.wav').write_text('no sound')
  (folder / 'a.raw').write_bytes(b'1234' * 100)
  (folder / 'short.wav').write_bytes((folder / 's16.wav').read_bytes()[:9000])
  (folder / 'dir.wav').mkdir(exist_ok=True)
  for link, target in (('out.wav', '/etc/hosts'), ('loop.wav', folder / 'loop.wav')):
    (folder / link).unlink(missing_ok=True)
    (folder / link).symlink_to(target)
  return [
    ({'audio': 'zero.wav'}, 'zero.wav: the sound: holds no samples'),
    ({'audio': 'nan.wav'}, 'nan.wav: the sound: sample 1 is nan'),
    ({'audio': 'inf.wav'}, 'inf.wav: the sound: sample 1 is inf'),
    ({'audio': 'empty.wav'}, 'empty.wav: is empty'),
    ({'audio': 'text.wav'}, 'text.wav: is no sound file'),
    ({'audio': 'a.raw'}, 'a.raw: is no sound file'),
    ({'audio': 'dir.wav'}, 'dir.wav: is no sound file'),
    ({'audio': 'short.wav'}, 'short.wav: is truncated: its header promises 64044 bytes, 9000'),
    ({'audio': 'none.wav'}, "'none.wav' cannot be found"),
    ({'audio': '../none.wav'}, "'../none.wav' cannot be found"),
    ({'audio': 'out.wav'}, "'out.wav' lies outside"),
    ({'audio': '/etc/hosts'}, "'/etc/hosts' lies outside"),
    ({'audio': 'loop.wav'}, "'loop.wav' cannot be found"),
    ({'audio': 'a\0.wav'}, 'cannot be found'),
    ({'audio': 'x' * 5000}, 'cannot be found'),
    ({'audio': 's16.wav', 'start': 2.0}, 's16.wav: has 2.000 s: the stretch from 2.0'),
    ({'audio': 's16.wav', 'end': 2.1}, 's16.wav: has 2.000 s'),
    ({'audio': 's16.wav', 'start': 0.5, 'end': 0.50001}, 's16.wav: .*(no samples|too short)'),
    ({'audio': 's16.wav', 'start': 1.5, 'end': 1.5}, '"end" must be behind "start"'),
    ({'audio': 's16.wav', 'start': -1}, '"start" must be a number of seconds'),
    ({'audio': 's16.wav', 'start': True}, '"start" must be a number'),
    ({'audio': 's16.wav', 'start': '1'}, '"start" must be a number'),
    ({'audio': 's16.wav', 'begin': 1}, "no such key: 'begin'"),
    ({'audio': 3}, 'a part is'),
    ({'audio': 's16.wav', 'text': 'x'}, 'a part is'),
    ({'text': ' '}, 'a part is'),
    ({'text': 'x', 'end': 3}, 'a part is'),
    ('x', 'an object with text, audio'),
    ({'audio': 's16.wav', 'words': [{'word': 'a'}]}, '"start" must be a number'),
    ({'audio': 's16.wav', 'words': [{'word': 'a', 'start': 0, 'end': 1}]}, 'alone'),
  ]


def test_bad_sounds_are_rejected_by_line_and_file_and_cost_no_other(folder):
  parts = sounds_that_are_none(folder)
  contents = [speaks({'text': 'x'}, {'audio': 's16.wav'})]
  for part, _ in parts:
    contents += [speaks(part), contents[0]]
  made = convert(folder, *contents)
  assert len(made) == len(contents)
  good = made[0].document.tokens
  for record in made[::2]:
    np.testing.assert_array_equal(record.document.tokens, good)
  for line, (rejected, (part, said)) in enumerate(zip(made[1::2], parts), 1):
    assert isinstance(rejected, Rejected), part
    assert rejected.place == (str(folder / 'manifest.jsonl'), 2 * line)
    match = pytest.raises(ValueError, match=said)
    with match:
      raise ValueError(rejected.reason)


@pytest.mark.parametrize(
  'content,said',
  [
    ({'turns': []}, '"turns" must be a list that is not empty'),
    ({'turns': 'x'}, '"turns" must be a list'),
    ({'turns': [{'role': 'user', 'parts': []}]}, '"parts" must be a list that is not empty'),
    ({'turns': [{'role': 'robot', 'parts': [{'text': 'x'}]}]}, '"role" must be one of system'),
    ({'turns': [{'role': ['user'], 'parts': [{'text': 'x'}]}]}, '"role" must be one of'),
    ({'turns': [USER]}, 'out of order .user.'),
    ({'turns': [USER, USER]}, 'out of order .user, user.'),
    ({'turns': [3]}, 'an object with role'),
    ({'turns': [USER], 'tasks': 'chat'}, "no such key: 'tasks' .did you mean 'task'"),
    (speaks({'text': 'x'}) | {'task': 'caht'}, "no such task: 'caht' .did you mean 'chat'"),
    (speaks({'text': 'x'}) | {'task': ['chat']}, 'no such task'),
    (speaks({'text': 'x'}) | {'about': 3}, '"about" must be an object'),
    (speaks({'text': 'x'}, interleave=True), '"interleave" needs two parts'),
    (speaks({'audio': 'a.wav'}, {'text': 'x'}, interleave=True), '"interleave" needs two'),
    (
      speaks({'text': 'x'}, {'audio': 'a.wav'}, interleave=[13, 0]),
      '"interleave" must be true',
    ),
    (speaks({'text': 'x'}, {'audio': 'a.wav'}, interleave=[1, 2, 3]), '"interleave" must be'),
    (speaks({'text': 'x'}, {'audio': 'a.wav'}, interleave='words'), 'needs the "words"'),
    ({'turns': [{**USER, 'interleave': True}]}, '"interleave" needs two parts'),
    ({'parts': [{'text': 'x'}], 'role': 'user'}, "no such key: 'role'"),
    ({'parts': [{'text': 'x'}], 'turns': [USER]}, "no such key: 'parts'"),
  ],
)
def test_records_that_mean_nothing_are_rejected(folder, content, said):
  (rejected,) = convert(folder, content)
  assert isinstance(rejected, Rejected) and rejected.place.line == 1
  with pytest.raises(ValueError, match=said):
    raise ValueError(rejected.reason)


def test_a_table_says_what_lines_say(folder):
  words = [{'word': 'one', 'start': 0, 'end': 0.2}, {'word': 'two', 'start': 0.5, 'end': 0.9}]
  part = {'audio': 's16.wav', 'start': 0.25, 'end': 1.5, 'words': words}
  contents = [
    speaks({'text': 'one two'}, part, interleave='words') | {'about': {'speaker': 'anna'}},
    speaks({'text': 'one'}, {'audio': 'a.flac'}) | {'about': {'age': 7}, 'task': 'speak'},
    {'parts': [{'text': 'one'}, {'audio': 'a.flac', 'end': 1}]},
  ]
  path = folder / 'manifest.parquet'
  parquet.write_table(pyarrow.Table.from_struct_array(pyarrow.array(contents)), path)
  table, lines = convert_file(path), convert(folder, *contents)
  assert all(isinstance(one, Record) for one in (*table, *lines)), table
  for row, line in zip(table, lines, strict=True):
    np.testing.assert_array_equal(row.document.tokens, line.document.tokens)
    assert row.about | {'source': ''} == line.about | {'source': ''}


@pytest.mark.parametrize('value', [datetime.date(2024, 1, 2), b'x', decimal.Decimal(1), np.nan])
def test_what_a_table_alone_can_say_of_a_record_is_rejected(folder, value):
  row = {'parts': [{'text': 'one'}], 'about': {'deep': [{'of': value}]}}
  path = folder / 'manifest.parquet'
  parquet.write_table(pyarrow.Table.from_pylist([row]), path)
  (rejected,) = convert_file(path)
  assert isinstance(rejected, Rejected)
  assert rejected.reason.startswith('"about" has a value that JSON has not: ')


def test_a_user_is_not_interleaved(folder):
  user = {'role': 'user', 'parts': [{'text': 'x'}, {'audio': 's16.wav'}], 'interleave': True}
  (rejected,) = convert(folder, {'turns': [user, USER | {'role': 'assistant'}]})
  assert '"interleave" is for assistants' in rejected.reason


def test_what_a_record_may_have_of_audio_is_a_setting(folder):
  two = speaks({'text': 'x'}, {'audio': 's16.wav'})
  three = speaks({'audio': 's16.wav'}, {'text': 'x'}, {'audio': 's16.wav', 'end': 1})
  made = convert(folder, two, three, max_seconds=2.5)
  assert isinstance(made[0], Record) and isinstance(made[1], Rejected)
  assert 's16.wav: is to be read from 0.000 to 1.000 s, but only 0.500 s' in made[1].reason
  assert all(isinstance(one, Record) for one in convert(folder, two, three, max_seconds=3.0))


@pytest.mark.parametrize('seconds', [0.1, 3.0, 600.0])
def test_records_do_not_depend_on_what_is_encoded_with_them(folder, seconds):
  contents = [speaks({'text': 'x'}, {'audio': 's16.wav', 'end': 0.2 + n / 9}) for n in range(9)]
  contents[3] = contents[5] = {'text': 'one two'}
  contents[4] = speaks({'audio': 'none.wav'})
  made = convert(folder, *contents, batch_seconds=seconds)
  alone = [convert(folder, content)[0] for content in contents]
  assert [type(one) for one in made] == [type(one) for one in alone]
  for got, wanted in zip(made, alone):
    if isinstance(got, Record):
      np.testing.assert_array_equal(got.document.tokens, wanted.document.tokens)
  keys = [one.key for one in made if isinstance(one, Record)]
  assert keys == [f'0/manifest.jsonl:{n}' for n in (1, 2, 3, 4, 6, 7, 8, 9)]


def test_audio_may_lie_below_another_root(folder, tmp_path):
  (tmp_path / 'manifest.jsonl').write_text(json.dumps(speaks({'audio': 's16.wav'})))
  pieces = conversion.plan([str(tmp_path / '*.jsonl')], [], 100)
  made = conversion.Conversion(str(folder / 'assets'), audio_root=str(folder))
  made = pickle.loads(pickle.dumps(made))
  (record,) = made(sources.read(pickle.loads(pickle.dumps(pieces[0]))))
  assert isinstance(record, Record)


def test_a_codec_that_refuses_one_sound_or_makes_nothing_of_it(folder, monkeypatch, assets):
  def encode(self, wave):
    if len(wave) == RATE:
      raise codec_lib.CodecError('too odd')
    return np.zeros(0 if len(wave) < RATE else 3, np.int32)

  monkeypatch.setattr(type(assets.codec), '_encode', encode)
  lengths = (1.5, 1.0, 0.5, 2.0)
  made = convert(folder, *(speaks({'audio': 's16.wav', 'end': end}) for end in lengths))
  assert [isinstance(one, Record) for one in made] == [True, False, False, True]
  assert made[1].reason == 's16.wav: too odd'
  assert made[2].reason == 's16.wav: is too short for a single token'


def test_a_codec_that_cannot_encode_stops_at_once(folder, assets, tmp_path):
  from ttt_jax.codecs import external

  assets._replace(codec=external.External('theirs', CODES)).save(tmp_path / 'assets')
  (tmp_path / 'm.jsonl').write_text(json.dumps(speaks({'audio': 's16.wav'})))
  pieces = conversion.plan([str(tmp_path / 'm.jsonl')], [], 100)
  made = conversion.Conversion(str(tmp_path / 'assets'), audio_root=str(folder))
  with pytest.raises(codec_lib.CodecError, match="codec 'theirs' of these audio tokens"):
    list(made(sources.read(pieces[0])))


def test_a_defect_tells_where_it_happened(folder, monkeypatch):
  def read(clip, seconds):
    raise ZeroDivisionError

  monkeypatch.setattr(clips, 'read', read)
  with pytest.raises(ZeroDivisionError) as raised:
    convert(folder, {'text': 'one'}, speaks({'audio': 's16.wav'}))
  assert 'manifest.jsonl:2' in raised.value.__notes__[0]
