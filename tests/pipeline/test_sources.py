import json
import os
import pathlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.converting import data_config
from data_pipelines.items import Item, Rejected
from data_pipelines.reading import files, sources
from data_pipelines.records import DataError

texts = st.text(st.characters(exclude_categories=['Cs']), max_size=12)
values = st.recursive(
  st.none() | st.booleans() | st.integers() | texts,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
  max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
# None of them is an object of JSON, whatever stands around it on its line.
BROKEN = [b'{', b'}', b'{"a": NaN}', b'{"a": -Infinity}', b'[1]', b'3', b'"a"', b'\xfe{}']
BROKEN += [
  b'{"a": 1, "a": 2}',
  b'{"a": "\\ud800"}',
  b'{"a": tru',
  b'{"a"\x00: 1}',
  b'nul',
  b'{}{}',
]
BROKEN += [b'[' * 5000, b'{"a":' * 300 + b'1' + b'}' * 300, b'{"a": 1e5,}', b'{"a": "\t"}']
BROKEN += [b'{"a": ' + b'9' * 5000 + b'}', b'\xef\xbb\xbf\xef\xbb\xbf{}', b'{"a": "\xc3"}']
sizes = st.integers(1, 400)


def read(path, size=10**9, **source):
  found = []
  for piece in sources.pieces([sources.Source(str(path), **source)], size):
    found += sources.read(piece)
  return found


@settings(max_examples=150)
@given(
  st.lists(objects | st.sampled_from(BROKEN) | st.sampled_from([b'', b'  ', b'\r'])),
  sizes,
  st.sampled_from([b'', b'\n', b'\r\n', b'\n\n']),
  st.booleans(),
)
def test_every_line_comes_out_with_its_number(tmp_path_factory, lines, size, end, marked):
  path = tmp_path_factory.mktemp('lines') / 'a.jsonl'
  raw = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
  path.write_bytes(b'\xef\xbb\xbf' * marked + b'\n'.join(raw) + end)
  got = read(path, size)
  wanted = [(n, x) for n, x in enumerate(lines, 1) if not isinstance(x, bytes) or x.strip()]
  assert [one.place.line for one in got] == [n for n, _ in wanted]
  for one, (number, line) in zip(got, wanted):
    assert one.place.path == str(path)
    if isinstance(line, bytes):
      assert isinstance(one, Rejected) and one.reason
    else:
      assert one.content == line and one.key == f'0/a.jsonl:{number}'


@settings(max_examples=150)
@given(
  st.lists(st.tuples(objects, st.sampled_from(['', ' ', '\n', '\n\n  ', '\r\n']))),
  sizes,
  st.sampled_from([None, 1]),
  st.booleans(),
)
def test_every_record_of_a_list_comes_out_with_its_line(
  tmp_path_factory, entries, size, indent, ascii_only
):
  path, text, lines = tmp_path_factory.mktemp('lists') / 'a.json', ' \n[', []
  for number, (content, space) in enumerate(entries):
    text += ',' * (number > 0) + space
    lines.append(text.count('\n') + 1)
    text += json.dumps(content, indent=indent, ensure_ascii=ascii_only) + space
  path.write_bytes((text + ']\n').encode())
  got = read(path, size)
  assert [one.content for one in got] == [content for content, _ in entries]
  assert [one.place.line for one in got] == lines
  assert [one.key for one in got] == [f'0/a.json:{n}' for n in range(1, len(entries) + 1)]


@settings(max_examples=150)
@given(st.data())
def test_one_damaged_record_of_an_indented_list_costs_no_other(tmp_path_factory, data):
  path = tmp_path_factory.mktemp('damage') / 'a.json'
  contents = [{'text': f'{number} "x\\', 'more': [{'a': 'b'}]} for number in range(6)]
  texts = json.dumps(contents, indent=1).split('\n {')  # the list's bracket, then records
  which = data.draw(st.integers(1, 6))
  at = data.draw(st.integers(0, len(texts[which].rstrip('\n,]}')) - 1))
  put = data.draw(st.sampled_from(['', '"', '{', '}', ']', '[', '\\', '\x00', '\n', 'x']))
  cut = data.draw(st.integers(0, 1))
  line = '\n {'.join(texts[:which]).count('\n') + 2
  texts[which] = texts[which][:at] + put + texts[which][at + cut :]
  path.write_text('\n {'.join(texts))
  got = read(path, data.draw(sizes))
  others = [one for number, one in enumerate(contents) if number != which - 1]
  items = [one for one in got if isinstance(one, Item) and one.content in others]
  assert [one.content for one in items] == others
  rest = [one for one in got if one not in items]
  assert rest and all(line <= one.place.line for one in rest)
  assert got == read(path)  # in one piece


def test_a_list_that_lost_its_way_says_where(tmp_path):
  path = tmp_path / 'a.json'
  for text, count, line, said in (
    ('[{"a": 1},\n{"a": "2},\n{"a": 3}]', 1, 2, 'does not end on its line'),
    ('[{"a": 1},\n{"a": 2}},\n{"a": 3}]', 1, 2, 'brackets do not match'),
    ('[{"a": 1},\n{"a": 2', 1, 2, 'cut off'),
    ('[{"a": 1},\n{"a": 2},', 2, 2, 'cut off'),
    ('[{"a": 1}\n', 0, 1, 'cut off'),
    ('[{"a": 1},\n{"a": 2}]\n{"a": 3}', 2, 3, 'follows the end'),
    ('[{"a": 1},\n{"a": 2},\n]', 2, 3, 'a comma has no record on one side'),
    ('[{"a": 1},\n,{"a": 2}]', 2, 2, 'a comma has no record on one side'),
    ('[{"a": 1},\n' + '[' * 10**6, 1, 2, 'nest too deeply'),
    ('[{"a": 1},\n[1], {"a": 2}]', 2, 2, 'must be an object'),
    ('[', 0, 1, 'cut off'),
  ):
    path.write_text(text)
    got = read(path)
    broken = [one for one in got if isinstance(one, Rejected)]
    assert (len(got) - len(broken), len(broken)) == (count, 1), text
    assert broken[0].place == (str(path), line) and said in broken[0].reason


@pytest.mark.parametrize('form', ['a.jsonl', 'a.json'])
def test_a_record_longer_than_the_limit_is_rejected_and_never_in_memory(tmp_path, form):
  path = tmp_path / form
  begin, comma, end = ('[', ',', ']') if form == 'a.json' else ('', '', '')
  with path.open('wb') as file:
    file.write(f'{begin}{{"text": "a"}}{comma}\n{{"text": "'.encode())
    file.seek(2**28, os.SEEK_CUR)  # a hole, which takes no place on the disk
    file.write(f'"}}{comma}\n{{"text": "b"}}{end}\n'.encode())
  (piece,) = sources.pieces([sources.Source(str(path))], 2**30)
  tracemalloc.start()
  first, broken, last = sources.read(piece, limit=2**20)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**23
  assert (first.content, last.content) == ({'text': 'a'}, {'text': 'b'})
  assert broken.place.line == 2 and 'bytes long' in broken.reason
  assert len(broken.excerpt) <= 200


@pytest.mark.parametrize('form', ['a.jsonl', 'a.json'])
def test_the_limit_is_exact(tmp_path, form):
  path = tmp_path / form
  begin, comma, end = ('[', ',', ']') if form == 'a.json' else ('', '', '')
  path.write_text(f'{begin}{{"a": 12}}{comma}\n{{"a": 123}}{comma}\n{{"a": 12}}{end}')
  (piece,) = sources.pieces([sources.Source(str(path))], 100)
  assert [isinstance(one, Item) for one in sources.read(piece, limit=9)] == [1, 0, 1]


def test_pieces_are_of_the_size_that_was_asked_for(tmp_path):
  contents = [{'text': 'x' * (n % 50)} for n in range(400)]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, contents)) + '\n')
  (tmp_path / 'a.json').write_text(json.dumps(contents))
  for name in ('a.jsonl', 'a.json'):
    pieces = sources.pieces([sources.Source(str(tmp_path / name))], 1000)
    lengths = [piece.end - piece.start for piece in pieces]
    assert all(1000 <= length < 1100 for length in lengths[:-1])
    assert sum(lengths) == (tmp_path / name).stat().st_size
    assert [a.end for a in pieces[:-1]] == [b.start for b in pieces[1:]]


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
  for name, text in (('a.jsonl', '{"a": 1}\n{"a": 2}\n'), ('a.json', '[{"a": 1},\n{"a": 2}]')):
    path = tmp_path / name
    path.write_text(text)
    pieces = sources.pieces([sources.Source(str(path))], 100)
    path.write_text(text[: text.index('\n') + 1])
    first, broken = sources.read(pieces[0])
    assert first.content == {'a': 1} and broken.place.line == 2
    path.unlink()
    with pytest.raises(DataError, match=f'{name}: cannot be read'):
      list(sources.read(pieces[0]))


def test_folders_and_patterns_are_read_in_order_of_names(tmp_path):
  for name in ('b/z.jsonl', 'b/a.json', 'a.jsonl', 'c.txt', '.hidden.jsonl', 'd/x.ndjson'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"text": "x"}')
  (tmp_path / 'e.jsonl').write_text('')
  (tmp_path / 'around').symlink_to(tmp_path, target_is_directory=True)
  keys = [one.key for one in read(tmp_path)]
  assert keys == ['0/a.jsonl:1', '0/b/a.json:1', '0/b/z.jsonl:1', '0/d/x.ndjson:1']
  assert [one.key for one in read(tmp_path / 'b' / '*')] == ['0/a.json:1', '0/z.jsonl:1']
  assert [one.key for one in read(tmp_path / '*' / 'z.*')][-1] == '0/b/z.jsonl:1'
  (tmp_path / 'b[1].jsonl').write_text('{"text": "y"}')
  assert [one.content for one in read(tmp_path / 'b[1].jsonl')] == [{'text': 'y'}]


@pytest.mark.parametrize(
  'name,content,said',
  [
    ('a.jsonl', None, 'no such file of records'),
    ('none/', None, 'no such file of records'),
    ('*.jsonl', None, 'no files of records here'),
    ('.', None, 'no files of records here'),
    ('a.parquet', b'', 'no whole parquet file'),
    ('a.parquet', b'PAR1 and more', 'no whole parquet file'),
    ('a.jsonl', b'\x1f\x8b\x08', 'compressed by gzip: unpack'),
    ('a.json', '[{"a": 1}]'.encode('utf-16'), 'is UTF-16'),
  ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, said):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(DataError, match=f'{tmp_path}.*: .*{said}'):
    read(f'{tmp_path}/{name}')


def test_a_share_of_records_is_the_same_whatever_the_pieces(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('\n'.join(f'{{"text": "{n}"}}' for n in range(2000)) + '\n{')
  some = read(path, ratio=0.3)
  assert some == read(path, 500, ratio=0.3)
  assert isinstance(some[-1], Rejected)  # what cannot be read is never left out
  assert 540 < len(some) < 660
  more = {one.key for one in read(path, ratio=0.5)[:-1]}
  assert {one.key for one in some[:-1]} < more
  twice = read(path, ratio=2.3)
  assert len(twice) == 2 * 2000 + len(some)
  assert len({one.key for one in twice[:-1]}) == len(twice) - 1
  assert read(path, ratio=0.0) == some[-1:]


def test_records_of_another_type_than_their_source_says_are_rejected(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "a"}\n{"messages": []}\n{"parts": []}\n{"turns": []}')
  for data_type, wanted in (('PT', [1, 0, 1, 0]), ('IT', [0, 1, 0, 1]), ('', [1, 1, 1, 1])):
    got = read(path, data_type=data_type)
    assert [isinstance(one, Item) for one in got] == wanted
    assert all(
      f'data_type {data_type}' in one.reason for one in got if isinstance(one, Rejected)
    )


def test_a_data_config_names_files_beside_it(tmp_path):
  (tmp_path / 'asr').mkdir()
  for name in ('asr/1.json', 'asr/2.json', 'text.jsonl'):
    (tmp_path / name).write_text('{"text": "a"}' if 'l' in name else '[{"messages": []}]')
  entries = [
    {'path': 'asr/*.json', 'sample_ratio': 2, 'data_type': 'IT', 'task': 'transcribe'},
    {'path': './text.jsonl', 'sample_ratio': 1.0, 'data_type': 'PT'},
  ]
  (tmp_path / 'data.json').write_text(json.dumps(entries))
  listed = data_config.read_data_config(tmp_path / 'data.json')
  got = [one for piece in sources.pieces(listed, 100) for one in sources.read(piece)]
  assert [one.key for one in got] == [
    *('0/1.json:1', '0/1.json:1#1', '0/2.json:1', '0/2.json:1#1', '1/text.jsonl:1')
  ]
  assert got[0].about == {'task': 'transcribe', 'source': '1.json'}
  assert got[-1].about == {'source': 'text.jsonl'}
  elsewhere = data_config.read_data_config(tmp_path / 'data.json', tmp_path / 'asr')
  with pytest.raises(DataError, match='no files of records'):
    sources.pieces(elsewhere, 100)


@pytest.mark.parametrize(
  'entries,said',
  [
    ([{'path': 'a', 'sample_ration': 1}], "entry 1: no such key.*mean 'sample_ratio'"),
    ([{'path': 'a'}, {'sample_ratio': 1}], 'entry 2: "path" must be a text'),
    ([{'path': 'a', 'sample_ratio': -1}], 'must be a number from 0 to 10000, not -1'),
    ([{'path': 'a', 'sample_ratio': 10**400}], 'must be a number from 0'),
    ([{'path': 'a', 'sample_ratio': True}], 'must be a number from 0'),
    ([{'path': 'a', 'sample_ratio': float('inf')}], 'must be a number from 0'),
    ([{'path': 'a', 'sample_ratio': float('nan')}], 'must be a number from 0'),
    ([{'path': 'a', 'data_type': 'SFT'}], '"IT" .turns. or "PT" .text., not .SFT'),
    ([{'path': 'a', 'task': 'transcibe'}], "no such task.*mean 'transcribe'"),
    (['a'], "must be an object, not 'a'"),
    ([], 'a data config is a JSON list'),
    ({'path': 'a'}, 'a data config is a JSON list'),
  ],
)
def test_a_data_config_that_cannot_be_meant_is_refused(tmp_path, entries, said):
  path = tmp_path / 'data.json'
  path.write_text(json.dumps(entries))
  with pytest.raises(DataError, match=f'data.json: .*{said}'):
    data_config.read_data_config(path)


@pytest.mark.parametrize('text', ['', '[', '[' * 10**5, None])
def test_a_data_config_that_is_none_is_refused(tmp_path, text):
  if text is not None:
    (tmp_path / 'data.json').write_text(text)
  with pytest.raises(DataError, match='data.json: no data config'):
    data_config.read_data_config(tmp_path / 'data.json')


def test_a_data_config_that_may_have_no_end_is_not_begun(tmp_path):
  os.mkfifo(tmp_path / 'data.json')
  with pytest.raises(DataError, match='data.json: no data config .no plain file'):
    data_config.read_data_config(tmp_path / 'data.json')


@pytest.mark.parametrize(
  'path', ['../out.jsonl', 'in/../../out.jsonl', '{out}', 'link.jsonl', 'folder', 'l*', 'loop']
)
def test_paths_that_leave_the_root_are_refused(tmp_path, path):
  root = tmp_path / 'root'
  (root / 'folder').mkdir(parents=True)
  (root / 'in').mkdir()
  out = tmp_path / 'out.jsonl'
  out.write_text('{"text": "secret"}')
  (root / 'link.jsonl').symlink_to(out)
  (root / 'folder' / 'a.jsonl').symlink_to(out)
  (root / 'loop').symlink_to(root / 'loop2')
  (root / 'loop2').symlink_to(root / 'loop')
  path = path.format(out=out)
  said = 'cannot be found' if path == 'loop' else f'lies outside {root}'
  with pytest.raises(DataError, match=said):
    sources.pieces([sources.Source(path, root=str(root))], 100)


@pytest.mark.parametrize('path', ['/', '../..', '/**/*.jsonl', '../../**/*.jsonl', '*/../../*'])
def test_what_lies_outside_the_root_is_not_even_listed(tmp_path, path, monkeypatch):
  root = tmp_path / 'root'
  (root / 'in').mkdir(parents=True)

  def listed(folder, *_, **__):
    assert pathlib.Path(folder).is_relative_to(root), folder
    return iter(())

  for library, name in ((files.os, 'walk'), (files.glob, 'iglob')):
    monkeypatch.setattr(library, name, listed)
  with pytest.raises(DataError, match='lies outside|may not have'):
    sources.pieces([sources.Source(path, root=str(root))], 100)


def test_paths_may_be_absolute_or_linked_within_the_root(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "a"}')
  (tmp_path / 'b.jsonl').symlink_to('a.jsonl')
  for path in ('a.jsonl', 'b.jsonl', str(tmp_path / 'a.jsonl'), 'x/../a.jsonl'[5:]):
    (piece,) = sources.pieces([sources.Source(path, root=str(tmp_path))], 100)
    assert [one.content for one in sources.read(piece)] == [{'text': 'a'}]
