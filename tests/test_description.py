"""What the folder of a run says of itself."""

import json
import os

import pytest
from conftest import make_config

from ttt_jax import description


def test_assets_of_a_run_are_whole_at_any_time(tmp_path):
  class Assets:
    def __init__(self, text, then=None):
      self.text, self.then = text, then

    def save(self, folder):
      folder.mkdir(exist_ok=True)
      for name in ('a', 'b'):
        (folder / name).write_text(self.text)
        if self.then:
          raise self.then

  def found():
    return [(tmp_path / 'assets' / name).read_text() for name in ('a', 'b')]

  description.write(tmp_path, {}, Assets('old'))
  with pytest.raises(KeyboardInterrupt):
    description.write(tmp_path, {}, Assets('new', KeyboardInterrupt()))
  assert found() == ['old'] * 2
  description.write(tmp_path, {}, Assets('new'))
  assert found() == ['new'] * 2
  assert sorted(os.listdir(tmp_path)) == ['assets', description.FILE]


def test_one_that_does_not_say_how_rows_were_packed_is_read(tmp_path):
  said = description.of(make_config(), 'words', ['one'], 2)
  assert said.pop('packing') == 2
  (tmp_path / description.FILE).write_text(json.dumps(said))
  assert description.read(tmp_path)['packing'] == 0
  assert description.config_of(tmp_path) == make_config()
