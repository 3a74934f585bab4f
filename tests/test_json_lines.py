import json
import resource

import pytest

from ttt_jax import json_lines


def test_lines_are_whole_behind_one_that_was_cut_off_and_on_a_full_disk(tmp_path):
  path = tmp_path / 'lines'
  path.write_bytes(b'{"a": 1}\n{"a": ')
  json_lines.append(path, {'a': 2})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, hard))
  try:
    with pytest.raises(OSError, match='No space left .*lines'):
      json_lines.append(path, {'a': 'too long'})
    json_lines.append(path, [1])
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  json_lines.append(path, 'é')
  first, cut, *others = path.read_text().splitlines()
  assert [json.loads(line) for line in (first, *others)] == [{'a': 1}, {'a': 2}, [1], 'é']
  assert cut == '{"a": ' and path.read_bytes().endswith(b'\n')
