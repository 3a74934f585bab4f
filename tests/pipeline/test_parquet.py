import json
import sys

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from data_pipelines.items import Item, Rejected
from data_pipelines.reading import sources
from data_pipelines.records import DataError

TURN = st.fixed_dictionaries(
  {'role': st.text(max_size=5), 'content': st.text(max_size=9)},
  optional={'text_content': st.text(max_size=5)},
)
COLUMNS = {
  'messages': st.lists(TURN, min_size=1, max_size=3),
  'conversations': st.lists(
    st.fixed_dictionaries({'from': st.text(max_size=3), 'value': st.text()}), min_size=1
  ),
  'text': st.text(max_size=20),
  'prompt': st.text(max_size=20),
}


def read(path, size=10**9, **source):
  pieces = sources.pieces([sources.Source(str(path), **source)], size)
  return [one for piece in pieces for one in sources.read(piece)]


@settings(max_examples=40)
@given(st.data(), st.integers(1, 5), st.integers(1, 2000))
def test_every_row_comes_out(tmp_path_factory, data, group, size):
  path = tmp_path_factory.mktemp('rows') / 'a.parquet'
  name = data.draw(st.sampled_from(sorted(COLUMNS)))
  rows = data.draw(st.lists(COLUMNS[name] | st.none(), min_size=1, max_size=12))
  table = pyarrow.table({name: rows, 'id': range(len(rows))})
  parquet.write_table(table, path, row_group_size=group)
  got = read(path, size)
  assert [one.content for one in got] == [
    {name: row} if row is not None else {} for row in rows
  ]
  assert [one.place.line for one in got] == list(range(1, len(rows) + 1))
  assert [one.key for one in got] == [f'0/a.parquet:{n}' for n in range(1, len(rows) + 1)]


def table_of_groups(path):
  rows = [f'{number} ' * 200 for number in range(40)]
  parquet.write_table(
    pyarrow.table({'text': rows}), path, row_group_size=10, compression='snappy'
  )
  return rows


def test_pieces_are_groups_of_rows(tmp_path):
  table_of_groups(tmp_path / 'a.parquet')
  source = [sources.Source(str(tmp_path / 'a.parquet'))]
  whole, small = sources.pieces(source, 10**9), sources.pieces(source, 1)
  assert [(p.start, p.end, p.number) for p in whole] == [(0, 4, 1)]
  assert [(p.start, p.end, p.number) for p in small] == [
    (n, n + 1, 10 * n + 1) for n in range(4)
  ]


def test_a_damaged_group_costs_its_own_rows_and_counts_them(tmp_path):
  path = tmp_path / 'a.parquet'
  rows = table_of_groups(path)
  chunk = parquet.ParquetFile(path).metadata.row_group(1).column(0)
  raw = bytearray(path.read_bytes())
  start = chunk.dictionary_page_offset or chunk.data_page_offset
  raw[start : start + chunk.total_compressed_size] = b'\xff' * chunk.total_compressed_size
  path.write_bytes(raw)
  got = read(path)
  assert [one.place.line for one in got] == list(range(1, 41))
  broken = [n for n, one in enumerate(got) if isinstance(one, Rejected)]
  assert broken == list(range(10, 20)) and 'group of rows is damaged' in got[10].reason
  assert [one.content['text'] for one in got if isinstance(one, Item)] == rows[:10] + rows[20:]


def test_a_text_that_is_no_utf8_costs_its_row(tmp_path):
  texts = pyarrow.array([b'a', b'\xff\xfe', b'c'])
  texts = pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers())
  parquet.write_table(pyarrow.table({'text': texts}), tmp_path / 'a.parquet')
  one, broken, other = read(tmp_path / 'a.parquet')
  assert (one.content, other.content) == ({'text': 'a'}, {'text': 'c'})
  assert broken.place.line == 2 and 'cannot be read' in broken.reason


def test_a_row_nested_deeper_than_json_may_be_costs_itself(tmp_path):
  deep = pyarrow.array(['x', None])
  for _ in range(1200):
    deep = pyarrow.StructArray.from_arrays([deep], ['a'], mask=pyarrow.array([False, True]))
  path = tmp_path / 'a.parquet'
  parquet.write_table(
    pyarrow.table({'about': deep, 'text': ['x', 'y']}), path, store_schema=False
  )
  broken, other = read(path)
  assert 'is nested too deeply' in broken.reason and other.content == {'text': 'y'}


def test_a_row_longer_than_the_limit_is_rejected(tmp_path):
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.table({'text': ['a', 'b' * 5000, 'c']}), path)
  (piece,) = sources.pieces([sources.Source(str(path))], 10)
  got = list(sources.read(piece, limit=1000))
  assert [isinstance(one, Item) for one in got] == [True, False, True]
  assert 'bytes long; a record may have 1000' in got[1].reason


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_truncated_table_is_refused(tmp_path, share):
  path = tmp_path / 'a.parquet'
  table_of_groups(path)
  raw = path.read_bytes()
  path.write_bytes(raw[: int(len(raw) * share)])
  with pytest.raises(DataError, match='a.parquet: no whole parquet file .*copy or make it'):
    read(path)


def test_a_table_is_known_by_its_content(tmp_path):
  path = tmp_path / 'a.parquet'
  rows = table_of_groups(path)
  path.rename(tmp_path / 'table')
  assert [one.content['text'] for one in read(tmp_path / 'table')] == rows


def test_a_table_without_rows_or_known_columns(tmp_path):
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.table({'text': pyarrow.array([], pyarrow.string())}), path)
  assert read(path) == []
  parquet.write_table(pyarrow.table({'other': [1, 2]}), path)
  assert [one.content for one in read(path)] == [{}, {}]


def test_without_pyarrow_one_is_told_what_to_install(tmp_path, monkeypatch):
  path = tmp_path / 'a.parquet'
  table_of_groups(path)
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  monkeypatch.delitem(sys.modules, 'pyarrow.parquet', raising=False)
  with pytest.raises(DataError, match=r"a.parquet: .*pip install 'ttt_jax\[parquet\]'"):
    read(path)


def test_rows_and_lines_say_the_same(tmp_path):
  rows = [{'messages': [{'role': 'user', 'content': 'x'}]}, {'messages': []}]
  parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / 'a.parquet')
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  table, lines = read(tmp_path / 'a.parquet'), read(tmp_path / 'a.jsonl')
  assert [one.content for one in table] == [one.content for one in lines]
