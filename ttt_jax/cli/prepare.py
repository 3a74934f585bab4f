"""Makes a data set of records in the authors' format: JSON lists or JSON lines.

ttt-prepare --source=asr.json --source=tts.jsonl --checkpoint=START --out=DATA
"""

import functools
import pathlib

from absl import flags

from data_pipelines import authors, records
from ttt_jax import assets as assets_lib
from ttt_jax.cli import settings

_SOURCE = flags.DEFINE_multi_string('source', None, 'File of records.', required=True)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'Folder of a run, whose vocabulary the records are for.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the data set.', required=True)


def main():
  """Reads the flags."""
  assets = assets_lib.load(pathlib.Path(_CHECKPOINT.value, assets_lib.DIRECTORY))
  template = assets.template

  def examples():
    for number, path in enumerate(_SOURCE.value):
      for name, content in authors.read(path):
        document = authors.document(name, content, template)
        yield records.Record(f'{number}/{name}', document, {'source': name})

  records.write(_OUT.value, {'train': examples}, assets)
  print(f'{_OUT.value}: {len(records.Source(_OUT.value, "train"))} records')


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
