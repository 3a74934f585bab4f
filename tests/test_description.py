"""What the folder of a run says of itself."""

import os

import pytest

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
