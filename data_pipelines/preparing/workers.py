"""Processes that work on pieces; when one dies, it is known on what."""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from data_pipelines import records
from ttt_jax import errors
from ttt_jax.codecs import threads

# Given a piece and where to send word of how far it is; returns what came of it.
Work = Callable[[Any, Callable[[Any], None]], Any]

# Is told the number of a piece, whether it is done, and what the work sent or returned.
Told = Callable[[int, bool, Any], None]


class WorkerError(errors.UserError):
  """A process ended in the middle of its work."""


def run(work: Work, pieces: Sequence[Any], processes: int, told: Told) -> None:
  """Works on every piece, each once.

  Matrix products of NumPy take one thread each, so that how they are rounded does not depend
  on how many processes there are.

  Args:
    work: is sent to the processes, as the pieces are; so both must allow pickling.
    pieces: are begun in this order. What `str` says of one is its name in messages.
    processes: how many; with 1, the work is done in this one.
    told: is called in this process. What it raises ends the work.

  Raises:
    WorkerError: a process was killed.
    UserError: a piece cannot be worked on.
  """
  if min(processes, len(pieces)) > 1:
    _run_apart(work, pieces, min(processes, len(pieces)), told)
    return
  with threads.one_thread():
    for number, piece in enumerate(pieces):
      result = work(piece, lambda word, number=number: told(number, False, word))
      told(number, True, result)


class _Worker:
  """A process, and the number of the piece that it works on."""

  def __init__(self, work: Work):
    context = multiprocessing.get_context('spawn')  # forks of threaded programs lock up
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    self.process.start()
    theirs.close()  # so that its death ends the pipe
    self.number = -1

  def give(self, number: int, piece: Any) -> None:
    self.number = number
    with contextlib.suppress(ConnectionError):  # it has died: who receives is told
      self.pipe.send(piece)


def _run_apart(work: Work, pieces: Sequence[Any], processes: int, told: Told) -> None:
  left = iter(enumerate(pieces))
  workers = {}
  try:
    for _ in range(processes):
      worker = _Worker(work)
      workers[worker.pipe] = worker
      worker.give(*next(left))
    while workers:
      for pipe in connection.wait(list(workers)):
        worker = workers[pipe]
        try:
          kind, content = pipe.recv()
        except (EOFError, ConnectionError) as error:
          raise WorkerError(_death(worker, pieces[worker.number])) from error
        if kind == 'cannot':
          raise records.DataError(content)
        if kind == 'defect':
          raise RuntimeError(f'{pieces[worker.number]}\n{content}')
        told(worker.number, kind == 'done', content)
        if kind == 'done':
          if following := next(left, None):
            worker.give(*following)
          else:
            workers.pop(pipe)
            _end(worker)
  finally:
    for worker in workers.values():
      _end(worker)


def _end(worker: _Worker) -> None:
  worker.process.terminate()
  worker.process.join()
  worker.pipe.close()


def _death(worker: _Worker, piece: Any) -> str:
  worker.process.join()
  code = worker.process.exitcode
  how = f'was ended by {signal.Signals(-code).name}' if code < 0 else f'ended with code {code}'
  hint = ', perhaps because memory ran out: fewer processes need less' if code == -9 else ''
  return (
    f'{piece}: the process that worked on it {how}{hint}. What is done is kept; run the same '
    'command again to go on'
  )


def _serve(pipe: connection.Connection, work: Work) -> None:
  """What a process does: works on what it is given until it is ended."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers it, for all
  with threads.one_thread():
    try:
      while True:
        _send_result(pipe, work, pipe.recv())
    except (EOFError, ConnectionError):
      return  # the first process is no more


def _send_result(pipe: connection.Connection, work: Work, piece: Any) -> None:
  try:
    answer = ('done', work(piece, lambda word: pipe.send(('word', word))))
  except errors.UserError as error:
    answer = ('cannot', str(error))
  except ConnectionError:
    raise
  except Exception:  # pylint: disable=broad-except
    answer = ('defect', traceback.format_exc())
  pipe.send(answer)
