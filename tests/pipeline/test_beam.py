import json
import pathlib

import machines
import pytest
import stand_ins
from test_preparation import BAD, tree, write_lines

machines.package('apache_beam')

from data_pipelines.preparing import beam, preparation

# What the DirectRunner runs; by that name it would first look for another on the network.
RUNNER = ['--runner=FnApiRunner']


@pytest.fixture
def lines(tmp_path):
  path = tmp_path / 'lines.jsonl'
  write_lines(path, bad=BAD)
  return path


def test_the_output_is_that_of_one_machine(assets, lines, tmp_path):
  job = stand_ins.job(assets, lines, held_out=0.2, max_rejected=0.1)
  here = preparation.prepare(tmp_path / 'here', job)
  there = beam.prepare(tmp_path / 'there', job, RUNNER)
  assert tree(tmp_path / 'there') == tree(tmp_path / 'here')
  assert there[:3] == here[:3] and not (tmp_path / 'there.partial').exists()


def test_what_is_done_is_kept_between_both(assets, lines, tmp_path):
  job = stand_ins.job(assets, lines, max_rejected=0.0)
  with pytest.raises(preparation.RejectedError, match='3 of 60'):
    beam.prepare(tmp_path / 'data', job, RUNNER)
  kept = tmp_path / 'data.partial' / 'quarantine.jsonl'
  assert [json.loads(line)['line'] for line in kept.read_text().splitlines()] == [7, 8, 41]
  result = preparation.prepare(tmp_path / 'data', job._replace(max_rejected=0.1))
  assert result.kept == len(job.pieces) > 3


def test_machines_that_do_not_share_the_folder_are_found(assets, lines, tmp_path, monkeypatch):
  monkeypatch.setattr(beam.piecework.Work, '__call__', lambda *_: None)
  with pytest.raises(preparation.JobError, match=r'lines.jsonl:1: .*do all machines see'):
    beam.prepare(tmp_path / 'data', stand_ins.job(assets, lines), RUNNER)


def test_the_program_on_a_cluster_gets_the_work_from_the_folder(assets, lines, tmp_path):
  job = stand_ins.job(assets, lines)
  with preparation.opened(tmp_path / 'data', job) as state:
    path = pathlib.Path(beam._keep(state.work, state.folder))
    assert beam._work(str(path))._replace(convert=None) == state.work._replace(convert=None)
    other = beam._keep(state.work._replace(held_out=0.5), state.folder)
  assert path != other
