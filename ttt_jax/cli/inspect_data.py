"""Shows what a data set holds: a table, and a page with figures, rows, text and sound.

ttt-inspect --data=DATA --out=page.html
"""

import functools

from absl import flags

from ttt_jax.cli import settings
from ttt_jax.inspection import survey, tables

_CONFIG = settings.define_config('base.py')
_DATA = flags.DEFINE_string('data', None, 'Data set of records.', required=True)
_SPLIT = flags.DEFINE_string('split', 'train', 'Split of the data set.')
_OUT = flags.DEFINE_string('out', None, 'The page: one HTML file.')
_JSON = flags.DEFINE_string('json', None, 'A file for the figures, for programs.')
_SAMPLE = flags.DEFINE_integer(
  'sample', None, 'Take figures of so many records only, at random.', lower_bound=1
)
_RECORDS = flags.DEFINE_list(
  'records', ['6'], 'Records to show: a number of random ones, or keys, by commas.'
)
_STEP = flags.DEFINE_integer('step', 0, 'Step of training whose rows are drawn.', lower_bound=0)
_ROWS = flags.DEFINE_integer('rows', 2, 'Rows that are drawn; 0 plans none.', lower_bound=0)


def main():
  """Reads the flags."""
  config = settings.checked(_CONFIG.value)
  settings.check_files(_OUT, _JSON)
  wanted = _RECORDS.value
  number = len(wanted) == 1 and wanted[0].isascii() and wanted[0].isdigit()
  choice = survey.Choice(
    sample=_SAMPLE.value,
    shown=int(wanted[0]) if number else 0,
    keys=[] if number else wanted,
    step=_STEP.value,
    rows=_ROWS.value,
  )
  found = survey.survey(_DATA.value, _SPLIT.value, config, choice)
  if _JSON.value:
    survey.write_json(_JSON.value, found.figures)
  if _OUT.value:
    survey.write_page(_OUT.value, found)
  if found.figures['sampled']:
    print(f'of {found.figures["sampled"]:,} records at random:\n')
  print(tables.text(found.figures))


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
