"""ttt-inspect as a user calls it."""

import json

import pytest
from tools import tool

SMALL = ('--config.data.row_length=128', '--config.data.batch_size=2')


def test_it_leaves_a_table_a_page_and_figures(toy_data, tmp_path):
  page, figures = tmp_path / 'page.html', tmp_path / 'figures.json'
  flags = (f'--out={page}', f'--json={figures}', '--records=toy-3,toy-7', '--split=test')
  code, said = tool('inspect_data', f'--data={toy_data}', *flags, *SMALL)
  assert code == 0, said
  found = json.loads(figures.read_text())
  assert found['split'] == 'test' and f'{found["total"]["tokens"]:,}' in said
  assert found['rows']['rows'] == 2 and found['row_length'] == 128
  written = page.read_text()
  assert written.count('<article class="card">') == 2 and 'toy-7' in written


@pytest.mark.parametrize(
  'flags,message',
  [
    (['--data=/nowhere'], '/nowhere: no data set of records here'),
    (['--data={data}', '--records=toy-3,nobody'], "no record of the key 'nobody'"),
    (['--data={data}', '--sample=0'], '--sample=0'),
    (['--data={data}', '--json={data}'], 'cannot be written: give a file in a folder'),
    (['--data={data}', '--out=/nowhere/page'], '--out=/nowhere/page cannot be written'),
  ],
)
def test_what_cannot_be_shown_is_explained(toy_data, flags, message):
  code, said = tool('inspect_data', *(flag.format(data=toy_data) for flag in flags), *SMALL)
  assert code != 0 and message in said and 'Traceback' not in said, said
