"""The same preparation on Apache Beam, for clusters; needs the extra `beam`.

Each piece becomes its shard by the very function that the processes of one machine run
(`piecework.Work`), so the data set is the same, byte for byte. TFDS's own builders for Beam
order records by a hash and their fields by chance, and begin anew after a failure.
"""

import functools
import hashlib
import pathlib
import pickle
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options import pipeline_options

from data_pipelines.preparing import piecework, preparation
from ttt_jax import folders


def prepare(
  out: str | pathlib.Path, job: preparation.Job, options: Sequence[str] = ()
) -> preparation.Result:
  """`preparation.prepare` by the machines of a cluster.

  All of them must find the files that are read, and `out`, under the same paths as this one:
  on a network file system or in a mounted bucket.

  Args:
    out: the data set's folder.
    job: what to make.
    options: of Beam's pipeline, such as `--runner=FlinkRunner`.

  Raises:
    As `preparation.prepare` does, but that too many rejections end it only when all is read,
    and that what happens on another machine is raised as the runner does.
  """
  with preparation.opened(out, job) as state:
    todo = [task for task in state.tasks if task.name not in state.done]
    path = _keep(state.work, state.folder)
    with beam.Pipeline(options=pipeline_options.PipelineOptions(list(options))) as pipeline:
      _ = (
        pipeline
        | beam.Create([tuple(task) for task in todo])
        | beam.Reshuffle()
        | beam.ParDo(_Do(str(path)))
      )
    for task in todo:
      summary = piecework.done(pathlib.Path(state.work.folder), task.name)
      if summary is None:
        raise preparation.JobError(
          f'{task}: the pipeline has ended, but its shard is not in {state.work.folder}: do '
          'all machines see the same folder there?'
        )
      state.done[task.name] = summary
    return state.finish()


def _keep(work: piecework.Work, folder: pathlib.Path) -> pathlib.Path:
  """The file of the work; another work has another, since machines keep what they read."""
  content = pickle.dumps(work)
  path = folder / f'work-{hashlib.sha256(content).hexdigest()[:16]}.pickle'
  with folders.writing(path):
    path.write_bytes(content)
  return path


class _Do(beam.DoFn):
  """Works on tasks. The work itself is read from a file: it may hold a whole tokenizer."""

  def __init__(self, path: str):
    self._path = path

  def process(self, element):
    task = piecework.Task(*element)
    _work(self._path)(task, lambda counts: None)
    yield task.name


@functools.cache
def _work(path: str) -> piecework.Work:
  return pickle.loads(pathlib.Path(path).read_bytes())
