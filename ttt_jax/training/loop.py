"""The training loop: batches in, checkpoints and metrics out."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ttt_jax import assets as assets_lib
from ttt_jax import batch as batch_lib
from ttt_jax import (
  checkpoint,
  description,
  json_lines,
  parameters,
  resuming,
  sharding,
  together,
)
from ttt_jax import config as config_lib
from ttt_jax.training import clock as clock_lib
from ttt_jax.training import (
  follow,
  ledger,
  metrics,
  place,
  saver,
  state,
  stopping,
  trace,
  watchdog,
)
from ttt_jax.training import program as program_lib
from ttt_jax.training import step as step_lib


class Feed(NamedTuple):
  """What a run is trained on.

  Attributes:
    assets: of the data.
    fingerprints: of the data sets.
    packing: version of the algorithm that makes rows of them.
    batches: from a first step and numbers of rows, yields these rows of each global batch;
      is closed when the run ends.
    records: names of the records of the global batch of a step, counted from 0.
  """

  assets: assets_lib.Assets
  fingerprints: Sequence[str]
  packing: int
  batches: Callable[[int, Sequence[int]], Generator[batch_lib.Batch, None, None]]
  records: Callable[[int], list[str]]


class Attendants(NamedTuple):
  """Who attends to the steps of a run.

  Attributes:
    store: keeps states.
    clock: is told what the host does.
    follower: reads and reports what steps give.
    tracer: of some of the steps.
    notice: of the wish to stop, in this process.
    watch: is told that something happens.
    evaluate: is given the number of a step and its parameters, or None.
  """

  store: saver.Saver
  clock: clock_lib.Clock
  follower: follow.Follower
  tracer: trace.Tracer
  notice: stopping.Notice
  watch: watchdog.Watchdog
  evaluate: Callable[[int, Any], None] | None


# Judges a model: from its assets, the mesh that parameters lie on, the step and the parameters
# to figures by name. All processes call it; figures of the first one are written.
Judge = Callable[[assets_lib.Assets, Mesh, int, Any], dict[str, float]]


def train(
  config: config_lib.Config,
  feed: Feed,
  workdir: str | pathlib.Path,
  profiled: range = range(0),
  judge: Judge | None = None,
  allowed: Sequence[str] = (),
) -> state.State:
  """Trains up to `config.train.steps` and returns the last state.

  A run that was stopped goes on from its latest checkpoint: 1. the state is laid out,
  without allocating it; 2. it is filled from the latest checkpoint that is whole, else from
  `config.init.checkpoint`, else at random; 3. the folder's description is written; 4. the
  batches start at the state's step. They are a function of the step, so nothing else needs
  to be restored.

  Args:
    config: all settings.
    feed: the data.
    workdir: folder of the run.
    profiled: steps of which a trace is written (see `trace`).
    judge: is asked every `config.evaluation.every` steps, and at the end; of the state that a
      run goes on from too, where it ended before.
    allowed: settings that may differ from those of the run in `workdir` (see `resuming`).

  Raises:
    CheckpointError: `workdir` holds another kind of run, cannot be written, is not one folder
      for all processes, or another run trains there; or its disk is full at the end.
    ConfigError: the mesh does not fit the devices, the model or the batch; or this process
      has other settings, data or libraries than the first one.
    ElsewhereError: one of these, in another process.
    DivergedError: too many updates had to be skipped.
    Stopped: SIGTERM came; what was done is saved, and there is more to do.
  """
  clock, assets = clock_lib.Clock(), feed.assets
  made_of = feed.fingerprints, feed.packing
  about = description.of(config, assets.vocabulary.fingerprint, *made_of)
  with contextlib.ExitStack() as stack:
    watch = watchdog.Watchdog(config.guard.hang, workdir, jax.process_index())
    stack.enter_context(watch)
    together.checked(lambda: resuming.refuse_disagreement(about))
    refuse = functools.partial(resuming.refuse_another, workdir, about, allowed)
    together.checked(refuse)
    mesh = sharding.make_mesh(config.mesh)
    own = sharding.rows_of_process(mesh, config.data.batch_size)
    program = program_lib.assemble(config, assets.vocabulary, mesh)
    logging.info('%.3g M parameters on %s', state.count(program.layout.params) / 1e6, mesh)
    watch.alive()
    checkpoints, done = _opened(stack, config, workdir, watch, refuse)
    current = _filled(config, assets, program, mesh, checkpoints, done)
    watch.alive()
    together.checked(lambda: _describe(workdir, about, assets, done))
    start = int(current.step)
    made = stack.enter_context(contextlib.closing(feed.batches(start, own)))
    stream = _loaded(made, mesh, config, assets.vocabulary.size)
    book = ledger.Ledger(workdir, clock, start) if jax.process_index() == 0 else None
    writer = metrics.Writer(workdir, config.train.steps, start, book)
    skipped = functools.partial(_note_skipped, workdir, feed)
    size, devices = assets.vocabulary.size, mesh.devices.flat
    follower = follow.Follower(clock, writer, config, size, devices, skipped)
    tracer = trace.Tracer(workdir, profiled, follower.catch_up)
    store = saver.Saver(checkpoints, workdir, about)
    evaluate = judge and functools.partial(_evaluate, judge, assets, mesh, writer)
    notice = stack.enter_context(stopping.Notice(config.guard.grace))
    who = Attendants(store, clock, follower, tracer, notice, watch, evaluate)
    with contextlib.closing(follower), contextlib.closing(tracer):
      if evaluate and _is_owed(config, start, writer):
        clock.enter('evaluate')
        evaluate(start, current.params)
        watch.alive()
      current, complete = run(config, program.step, current, stream, who)
    clock.enter('save')
    store.finish()
  _tell_times(clock, book, int(current.step), workdir)
  if not complete:
    told = f'step {int(current.step)} is saved: the same command goes on'
    raise stopping.Stopped(told, notice.left)
  return current


def _opened(
  stack: contextlib.ExitStack,
  config: config_lib.Config,
  workdir: str | pathlib.Path,
  watch: watchdog.Watchdog,
  refuse: Callable[[], None],
):
  """The checkpoints of a folder that is this run's alone, and the step to go on from."""
  place.refuse_unshared(workdir)
  stack.enter_context(place.alone(workdir, config.guard.grace))
  together.checked(refuse)  # again: another run may have been waited for, whose folder it is
  done = resuming.newest_whole(workdir)
  watch.alive()
  kept = config.train.keep, config.train.keep_every
  opened = checkpoint.opened(workdir, *kept, patience=config.guard.hang)
  checkpoints = stack.enter_context(opened)
  together.checked(lambda: resuming.wait_for(checkpoints, done))
  return checkpoints, done


def _evaluate(
  judge: Judge,
  assets: assets_lib.Assets,
  mesh: Mesh,
  writer: metrics.Writer,
  number: int,
  params: Any,
) -> None:
  """Has the parameters of a step judged, and reports the figures."""
  if figures := judge(assets, mesh, number, params):
    writer.write(number, figures)


def _tell_times(
  clock: clock_lib.Clock, book: ledger.Ledger | None, step: int, workdir: str | pathlib.Path
) -> None:
  """Tells where the time of this start went, and of all starts, if there is a book of them."""
  clock.settle()
  logging.info('where the time went: %s', clock)
  if book:
    book.note(step)
    logging.info('all starts of this run: %s', ledger.summary(workdir))


def _describe(
  workdir: str | pathlib.Path, about: dict, assets: assets_lib.Assets, done: int | None
) -> None:
  """Writes what the folder holds; without room, what the last start wrote stays."""
  try:
    description.write(workdir, about, assets)
  except checkpoint.CheckpointError as error:
    if done is None or not saver.is_full(error):
      raise
    logging.error('ALARM: %s; its description stays that of the last start', error)


def _is_owed(config: config_lib.Config, start: int, writer: metrics.Writer) -> bool:
  """Whether the state that a run goes on from was to be judged, and the run ended before."""
  due = start > 0 and (start % config.evaluation.every == 0 or start == config.train.steps)
  # The first process knows what was reported.
  return due and not multihost_utils.broadcast_one_to_all(np.array(writer.judged))


def _note_skipped(
  workdir: str | pathlib.Path, feed: Feed, number: int, results: step_lib.Results
) -> None:
  """Tells of a step whose update was skipped, and of the records of its batch."""
  if jax.process_index() != 0:
    return
  loss = float(results.sums.objective / max(float(results.sums.normalizer), 1))
  try:
    records = feed.records(number - 1)
  except Exception as error:  # whatever it is, a note that lacks names does not end a run
    logging.error('the records of step %d cannot be told: %s', number, error)
    records = []
  logging.error(
    'step %d: the update is skipped: loss %.4g, norm of the gradient %.4g; its %d records are '
    'in %s',
    *(number, loss, results.norm, len(records), follow.SKIPPED),
  )
  about = {'step': number, 'loss': str(loss), 'gradient_norm': str(results.norm)}
  path = pathlib.Path(workdir, follow.SKIPPED)
  # A full disk does not end a run.
  with contextlib.suppress(OSError):
    json_lines.append(path, about | {'records': records})


def _filled(config, assets, program, mesh, checkpoints, done: int | None) -> state.State:
  """The state that a run goes on from, or begins with."""
  layout = program.layout
  if done is not None:
    trees = checkpoint.restore(checkpoints, done, layout.params, layout.optimizer)
    logging.info('going on from step %d', done)
    return state.State(jax.device_put(jax.numpy.int32(done), layout.step.sharding), *trees)
  if config.init.checkpoint:
    together.checked(lambda: _refuse_other_model(config, assets))
    params = parameters.restore(config.init.checkpoint, layout.params)
    logging.info('starting from %s', config.init.checkpoint)
    return state.around(params, program.optimizer, mesh, layout)
  return state.fresh(program.model, program.optimizer, mesh, layout, config.seed)


def _refuse_other_model(config: config_lib.Config, assets: assets_lib.Assets) -> None:
  """Refuses the run that `config.init` names where its parameters do not fit this one.

  Raises:
    AssetError, CheckpointError, ConfigError: they do not, or there is none.
  """
  source = config.init.checkpoint
  other = description.config_of(source).model
  assets_of_source = assets_lib.load(pathlib.Path(source, assets_lib.DIRECTORY))
  assets.refuse_mismatch(assets_of_source.fingerprints, source)
  wanted = dataclasses.asdict(other).items()
  wrong = [
    f'--config.model.{name}={value}'
    for name, value in wanted
    if name not in config_lib.HOW_COMPUTED and getattr(config.model, name) != value
  ]
  if wrong:
    raise config_lib.ConfigError(
      f'{source} is another model; add {" ".join(wrong)} '
      f'(or train with --config=configs/finetune.py:{source})'
    )


def _loaded(stream, mesh, config: config_lib.Config, vocabulary_size: int):
  """The batches of `stream` on the mesh, of which the first is checked."""
  for number, batch in enumerate(stream):
    if number == 0:
      batch_lib.check(batch, vocabulary_size)
    yield sharding.put_batch(batch, mesh, config.data.batch_size)


def run(
  config: config_lib.Config,
  step: Callable[[state.State, batch_lib.Batch, bool], tuple[state.State, step_lib.Results]],
  current: state.State,
  stream: Iterable[batch_lib.Batch],
  who: Attendants,
) -> tuple[state.State, bool]:
  """Takes a step for each batch, or until it is told to stop.

  The last state is saved, and so are those between when they are due.

  Args:
    config: when to save, and when to evaluate.
    step: as `step.Step`; its first call compiles.
    current: the state to start from.
    stream: batches on the mesh.
    who: attends to the steps.

  Returns:
    The last state, and whether all was done that there was to do.
  """
  store, clock, follower, tracer, notice, watch, evaluate = who
  train, every = config.train, config.evaluation.every if evaluate else 0
  first = int(current.step) + 1
  clock.enter('data')
  for number, batch in enumerate(stream, first):
    clock.enter('rest')
    with tracer.before(number):
      begin = clock.enter('compile' if number == first else 'rest')
      current, results = step(current, batch, notice.given)
      called = clock.enter('rest')
    follower.follow(number, called if number == first else begin, results)
    watch.alive()
    tracer.after(number)
    due = number % train.checkpoint_every == 0 or number == train.steps
    judged = every > 0 and (number % every == 0 or number == train.steps)
    if due or judged or follower.stop:
      # What leads up to a checkpoint is reported before it is kept. And this tells of a wish to
      # stop, which is granted before an evaluation: that may take longer than there is time.
      follower.catch_up()
    if due or follower.stop:
      clock.enter('save')
      store.save(number, current.params, current.optimizer)
      watch.alive()
    if follower.stop and (judged or number < train.steps):
      return current, False
    if judged:
      clock.enter('evaluate')
      evaluate(number, current.params)
      watch.alive()
    clock.enter('data')
  return current, True
