import json

import pytest

from ttt_jax import errors
from ttt_jax.inspection import quarantine


def test_rejections_are_counted_by_reason(tmp_path):
  lines = [{'file': 'a.jsonl', 'line': n, 'reason': 'r', 'excerpt': f'e{n}'} for n in range(9)]
  lines.insert(4, {'file': 'b.json', 'line': 1, 'reason': 'other' * 99, 'excerpt': 'x' * 5000})
  text = '\n'.join(map(json.dumps, lines)) + '\nno json\n[]\n{"file": "c"}\n'
  (tmp_path / 'quarantine.jsonl').write_text(text)
  found = quarantine.read(tmp_path)
  assert found['rejected'] == 13
  first, damaged, other = found['reasons']
  assert (first['reason'], first['count']) == ('r', 9)
  assert [example['excerpt'] for example in first['examples']] == ['e0', 'e1', 'e2']
  assert first['examples'][1] == {'file': 'a.jsonl', 'line': '1', 'excerpt': 'e1'}
  assert 'cannot be read' in damaged['reason'] and damaged['count'] == 3
  assert [example['line'] for example in damaged['examples']] == ['11', '12', '13']
  assert len(other['examples'][0]['excerpt']) == len(other['reason']) == 300


def test_endless_lines_and_many_reasons_take_little(tmp_path, monkeypatch):
  monkeypatch.setattr(quarantine, '_LINE', 100)
  monkeypatch.setattr(quarantine, '_REASONS', 3)
  lines = [f'{{"file": "a", "line": 1, "reason": "r{n}"}}' for n in range(5)]
  text = '\n'.join(['z' * 1000, *lines, 'z' * 99, 'z' * 100])
  (tmp_path / 'quarantine.jsonl').write_text(text)
  found = quarantine.read(tmp_path)
  assert found['rejected'] == 8
  counts = {item['reason']: item['count'] for item in found['reasons']}
  assert counts['other reasons'] == 3 and counts['r0'] == counts['r1'] == 1
  assert sum(counts.values()) == 8 and max(counts.values()) == 3


def test_without_the_file_nothing_is_known(tmp_path):
  assert quarantine.read(tmp_path) is None
  (tmp_path / 'quarantine.jsonl').mkdir()
  with pytest.raises(errors.UserError, match='quarantine.jsonl: cannot be read'):
    quarantine.read(tmp_path)
