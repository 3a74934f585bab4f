import fcntl
import json
import multiprocessing
import operator
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import stand_ins

from data_pipelines import records
from data_pipelines.preparing import preparation, workers
from ttt_jax import folders

ROOT = pathlib.Path(preparation.__file__).parents[1]


def write_lines(path, number=60, bad=()):
  """Lines of short texts; `bad` replaces some, by their number from 1."""
  words = ['zero', 'one', 'two', 'three']
  lines = [json.dumps({'text': f'{words[i % 4]} {words[i // 4 % 4]}'}) for i in range(number)]
  for line, text in dict(bad).items():
    lines[line - 1] = text
  path.write_text('\n'.join(lines) + '\n')


BAD = {7: '{"text": "on"}', 8: 'no json', 41: '{"text": ""}'}


@pytest.fixture
def lines(tmp_path):
  path = tmp_path / 'lines.jsonl'
  write_lines(path, bad=BAD)
  return path


def tree(folder):
  """Every file below a folder, and what is in it."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def prepare(out, assets, path, processes=1, **changes):
  return preparation.prepare(
    out, stand_ins.job(assets, path, **({'max_rejected': 0.1} | changes)), processes
  )


def keys(out, split):
  source = records.Source(out, split)
  return [source[i].key for i in range(len(source))]


def test_records_come_in_the_order_of_the_input(assets, lines, tmp_path):
  result = prepare(tmp_path / 'data', assets, lines)
  wanted = [f'0/lines.jsonl:{line}' for line in range(1, 61) if line not in BAD]
  assert keys(tmp_path / 'data', 'train') == wanted
  assert result.counts.records == 57 and result.splits == {'train': 57}
  source = records.Source(tmp_path / 'data', 'train')
  lengths = [len(source[i].document.tokens) for i in range(57)]
  assert result.counts.tokens == sum(lengths) == source.shapes.lengths.sum()
  assert not (tmp_path / 'data.partial').exists()


def test_held_out_records_are_a_share_that_depends_on_their_keys_alone(assets, tmp_path):
  write_lines(tmp_path / 'lines.jsonl', 300)
  for name, piece_bytes in (('a', 500), ('b', 3000)):
    prepare(
      tmp_path / name,
      assets,
      tmp_path / 'lines.jsonl',
      1,
      piece_bytes=piece_bytes,
      held_out=0.1,
    )
  train, test = (keys(tmp_path / 'a', split) for split in ('train', 'test'))
  assert 15 < len(test) < 48 and not set(train) & set(test)
  assert len(train) + len(test) == 300
  assert keys(tmp_path / 'b', 'test') == test


def killed(assets, path, out, processes, when):
  """Prepares in a process of its own that kills itself."""
  folder = out.parent / 'assets'
  assets.save(folder)
  script = pathlib.Path(stand_ins.__file__)
  words = [script, folder, path, out, processes, when]
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, *map(str, words)], check=False, capture_output=True, env=environment
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()
  assert not out.exists()


def finished(partial):
  """Inodes of the shards of pieces that are done, also if they were put into their places."""
  done = {path.stem for path in partial.glob('pieces/*.json')}
  shards = partial.glob('pieces/*.array_record'), partial.glob('whole/**/*.array_record*')
  inside = {path.stat().st_ino for path in shards[0] if path.name.split('.')[0] in done}
  return inside | {path.stat().st_ino for path in shards[1]}


@pytest.mark.parametrize(
  'whens',
  [[(1, 0), (2, 3), (1, 8)], [(2, 5), (1, 'move'), (2, 'become')]],
  ids=['early', 'late'],
)
def test_a_killed_run_goes_on_and_its_output_is_the_same(assets, tmp_path, whens):
  path, out = tmp_path / 'lines.jsonl', tmp_path / 'data'
  write_lines(path, 120, {7: '{"text": ""}'})
  job = stand_ins.job(assets, path, held_out=0.2)
  assert len(job.pieces) > 9
  preparation.prepare(tmp_path / 'alone', job)
  kept = set()
  for processes, when in whens:
    killed(assets, path, out, processes, when)
    now = finished(tmp_path / 'data.partial')
    assert kept <= now and len(now) >= (when if isinstance(when, int) else len(job.pieces))
    kept = now
  pieces = len(list(tmp_path.glob('data.partial/pieces/*.json')))
  assert preparation.prepare(out, job, 2).kept == pieces
  assert tree(out) == tree(tmp_path / 'alone')
  assert kept <= {path.stat().st_ino for path in out.rglob('*.array_record*')}


def test_the_output_does_not_depend_on_the_processes(assets, lines, tmp_path):
  trees = []
  for name, processes in (('a', 1), ('b', 2), ('c', 3)):
    prepare(tmp_path / name, assets, lines, processes)
    trees.append(tree(tmp_path / name))
  assert trees[0] == trees[1] == trees[2]


def test_what_is_rejected_is_kept_with_its_place_and_reason(assets, lines, tmp_path):
  result = prepare(tmp_path / 'data', assets, lines, 2)
  text = (tmp_path / 'data' / 'quarantine.jsonl').read_text()
  found = [json.loads(line) for line in text.splitlines()]
  assert [entry['line'] for entry in found] == [7, 8, 41]
  assert all(entry['file'] == str(lines) for entry in found)
  assert found[0] == {'file': str(lines), 'line': 7, 'reason': 'has 2 letters', 'excerpt': 'on'}
  assert 'no json' in found[1]['excerpt'] and found[2]['excerpt'] == ''
  assert list(result.reasons.values()) == [2, 1]
  assert result.reasons['has … letters'] == 2
  kept = json.loads((tmp_path / 'data' / 'summary.json').read_text())
  assert kept['reasons'] == result.reasons
  assert (kept['items'], kept['records'], kept['rejected']) == (60, 57, 3)


def test_records_that_are_not_sound_are_rejected(assets, tmp_path):
  path = tmp_path / 'lines.jsonl'
  write_lines(path, 20, {4: '{"text": "one two", "mute": true}'})
  prepare(tmp_path / 'data', assets, path)
  (found,) = (tmp_path / 'data' / 'quarantine.jsonl').read_text().splitlines()
  assert "lines.jsonl:4': has no target" in json.loads(found)['reason']
  assert len(records.Source(tmp_path / 'data', 'train')) == 19


def test_too_many_rejections_end_the_run_and_a_mend_lets_it_go_on(assets, lines, tmp_path):
  other = tmp_path / 'fine.jsonl'
  write_lines(other, 30)
  both = tmp_path / '*.jsonl'
  with pytest.raises(preparation.RejectedError, match=r'3 of 90 .*0\.01.*quarantine\.jsonl'):
    prepare(tmp_path / 'data', assets, both, max_rejected=0.01)
  kept = tmp_path / 'data.partial' / 'quarantine.jsonl'
  assert [json.loads(line)['line'] for line in kept.read_text().splitlines()] == [7, 8, 41]
  assert not (tmp_path / 'data').exists()
  write_lines(lines)
  result = prepare(tmp_path / 'data', assets, both, max_rejected=0.01)
  assert result.counts.rejected == 0 and result.counts.records == 90
  assert result.kept == len(stand_ins.job(assets, other).pieces) > 2


def test_a_higher_share_redoes_nothing(assets, lines, tmp_path):
  with pytest.raises(preparation.RejectedError):
    prepare(tmp_path / 'data', assets, lines, max_rejected=0.01)
  result = prepare(tmp_path / 'data', assets, lines, max_rejected=0.05)
  assert result.kept == len(stand_ins.job(assets, lines).pieces)


@pytest.mark.parametrize('processes', [1, 2])
def test_a_hopeless_run_ends_before_all_is_read(assets, tmp_path, processes):
  path = tmp_path / 'lines.jsonl'
  path.write_text('{"text": ""}\n' * 20_000)
  with pytest.raises(preparation.RejectedError) as caught:
    prepare(tmp_path / 'data', assets, path, processes, piece_bytes=3000)
  read = int(str(caught.value).split(' of ')[1].split()[0])
  assert preparation.ENOUGH <= read < 5000
  kept = (tmp_path / 'data.partial' / 'quarantine.jsonl').read_text().splitlines()
  assert len(kept) >= read


def test_it_ends_where_a_folder_in_use_cannot_be_deleted(assets, lines, tmp_path, monkeypatch):
  remove = shutil.rmtree

  def of_network(path, **more):
    if (lock := pathlib.Path(path, 'lock')).exists():
      with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError while it is in use
    remove(path, **more)

  (tmp_path / 'data.partial.spent.1').mkdir()  # of one that was killed
  monkeypatch.setattr(shutil, 'rmtree', of_network)
  assert prepare(tmp_path / 'data', assets, lines).counts.records
  assert sorted(os.listdir(tmp_path)) == ['data', 'lines.jsonl']


def test_another_job_is_refused_by_its_difference(assets, lines, tmp_path):
  with pytest.raises(preparation.RejectedError):
    prepare(tmp_path / 'data', assets, lines, max_rejected=0)
  with pytest.raises(preparation.JobError, match='begun with held_out 0.0.* 0.5: .*delete'):
    prepare(tmp_path / 'data', assets, lines, held_out=0.5)
  with pytest.raises(preparation.JobError, match='piece_bytes 200'):
    prepare(tmp_path / 'data', assets, lines, piece_bytes=300)


def test_two_runs_at_once_are_refused(assets, lines, tmp_path):
  job = stand_ins.job(assets, lines)
  with (
    preparation.opened(tmp_path / 'data', job),
    pytest.raises(preparation.JobError, match='another process'),
  ):
    preparation.prepare(tmp_path / 'data', job)


def test_a_worker_that_dies_is_named_and_the_next_run_goes_on(assets, tmp_path):
  path, flag = tmp_path / 'lines.jsonl', tmp_path / 'died'
  write_lines(path, bad={31: json.dumps({'text': 'one two', 'die': str(flag)})})
  with pytest.raises(
    workers.WorkerError, match=r'lines.jsonl:\d+: .*SIGKILL.*memory'
  ) as caught:
    prepare(tmp_path / 'data', assets, path, 2)
  first = int(str(caught.value).split('lines.jsonl:')[1].split(':')[0])
  assert first <= 31 < first + 10
  result = prepare(tmp_path / 'data', assets, path, 2)
  assert result.counts.records == 60 and result.kept > 0


def test_a_worker_that_dies_between_two_pieces_is_named():
  def told(number, done, content):
    for child in multiprocessing.active_children():
      child.kill()
      child.join()

  with pytest.raises(workers.WorkerError, match='^[a-d]: the process .* SIGKILL'):
    workers.run(operator.is_, 'abcd', 2, told)


def test_defects_show_where_they_are(assets, tmp_path):
  path = tmp_path / 'lines.jsonl'
  write_lines(path, bad={31: '{"defect": 1}'})
  with pytest.raises(RuntimeError, match=r"(?s)lines.jsonl:\d+\n.*KeyError: 'a defect'"):
    prepare(tmp_path / 'data', assets, path, 2)


def test_a_file_that_changes_meanwhile_is_refused(assets, lines, tmp_path):
  job = stand_ins.job(assets, lines)

  def progress(done, pieces, counts):
    lines.write_text(lines.read_text() + '\n')

  with pytest.raises(records.DataError, match='lines.jsonl: was changed'):
    preparation.prepare(tmp_path / 'data', job, 1, progress)


def test_places_that_cannot_be_written_are_named(assets, lines, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(folders.FolderError, match='cannot write to .*file/data'):
    prepare(tmp_path / 'file' / 'data', assets, lines)
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'sound.wav').touch()
  with pytest.raises(folders.FolderError, match='full holds something already'):
    prepare(tmp_path / 'full', assets, lines)


def test_a_full_disk_is_named(assets, lines, tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
  try:
    with pytest.raises(folders.FolderError, match='cannot write to .*array_record'):
      prepare(tmp_path / 'data', assets, lines)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert prepare(tmp_path / 'data', assets, lines).kept == 0


def test_files_of_nothing_but_rejections_leave_no_data_set(assets, tmp_path):
  (tmp_path / 'lines.jsonl').write_text('{"text": ""}\n')
  with pytest.raises(records.DataError, match="no records for the split 'train'"):
    prepare(tmp_path / 'data', assets, tmp_path / 'lines.jsonl', max_rejected=1.0)


def test_a_piece_without_records_leaves_no_shard(assets, tmp_path):
  write_lines(tmp_path / 'b.jsonl', 10)
  (tmp_path / 'a.jsonl').write_text('{"text": ""}\n')
  prepare(tmp_path / 'data', assets, tmp_path / '*.jsonl', max_rejected=0.5, piece_bytes=10**6)
  assert len(list((tmp_path / 'data').rglob('*.array_record*'))) == 1
  assert len(records.Source(tmp_path / 'data', 'train')) == 10


def test_damaged_summaries_and_lost_shards_are_made_again(assets, lines, tmp_path):
  with pytest.raises(preparation.RejectedError):
    prepare(tmp_path / 'data', assets, lines, max_rejected=0)
  pieces = tmp_path / 'data.partial' / 'pieces'
  sorted(pieces.glob('*.json'))[0].write_text('{"spl')
  sorted(pieces.glob('*.array_record'))[-1].unlink()
  total = len(list(pieces.glob('*.json')))
  assert prepare(tmp_path / 'data', assets, lines).kept == total - 2
