"""A conversion that fails as tests ask it to, and a program that prepares and is killed."""

import os
import pathlib
import signal
import sys

import numpy as np

from data_pipelines import items, records
from data_pipelines.preparing import preparation
from data_pipelines.reading import sources
from ttt_jax import assets as assets_lib
from ttt_jax import chat, folders


class Repeat:
  """Says the text of an item twice, as text and as codes; a text of few letters is refused.

  An item {"die": FLAG} kills the process, if there is no file FLAG yet.
  """

  def __init__(self, template: chat.Template):
    self._template = template

  def __call__(self, found):
    for item in found:
      if isinstance(item, items.Rejected):
        yield item
        continue
      if 'die' in item.content and not pathlib.Path(item.content['die']).exists():
        pathlib.Path(item.content['die']).touch()
        os.kill(os.getpid(), signal.SIGKILL)
      if 'defect' in item.content:
        raise KeyError('a defect')
      text = item.content.get('text', 'one')
      if len(text) < 3:
        yield items.Rejected(item.place, f'has {len(text)} letters', text)
        continue
      codes = np.frombuffer(text.encode(), np.uint8) % self._template.vocabulary.codebook_size
      said = 'user' if 'mute' in item.content else 'assistant'
      document = self._template.document([chat.Turn(said, [text, codes])])
      yield records.Record(item.key, document, item.about)


def job(assets: assets_lib.Assets, path, piece_bytes=200, **changes) -> preparation.Job:
  """What is to be done with the files at `path`."""
  pieces = sources.pieces([sources.Source(str(path))], piece_bytes)
  given = {'settings': {'piece_bytes': piece_bytes}} | changes
  return preparation.Job(pieces, sources.read, Repeat(assets.template), assets, **given)


def main(assets, path, out, processes, when):
  """Prepares; kills itself, and nobody else, as soon as `when` has come.

  Args:
    when: so many pieces are done; or 'move', the first shard was put into its place; or
      'become', everything is there but under its name.
  """

  def progress(done, pieces, counts):
    if str(done) == when:
      os.kill(os.getpid(), signal.SIGKILL)

  def become(*_):
    os.kill(os.getpid(), signal.SIGKILL)

  if when == 'become':
    folders.become = become
  elif when == 'move':
    pathlib.Path.rename = _rename_then_die(pathlib.Path.rename)
  todo = job(assets_lib.load(assets), path, held_out=0.2)
  preparation.prepare(out, todo, int(processes), progress)


def _rename_then_die(rename):
  def renamed(self, target):
    rename(self, target)
    if '-of-' in str(target):
      os.kill(os.getpid(), signal.SIGKILL)

  return renamed


if __name__ == '__main__':
  main(*sys.argv[1:])
