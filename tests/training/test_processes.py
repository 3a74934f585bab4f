import socket
import subprocess
import sys

import pytest

from ttt_jax import errors

SCRIPT = """
import sys, jax, numpy as np
from ttt_jax import batch, config, errors, resuming, sharding, together
from ttt_jax.training import place, train
from configs import base
port, number, said, data, *folders = sys.argv[1:]
sys.stdout = open(said, 'w')  # what Gloo prints goes to the other one
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(number))
sizes = config.Mesh(slices=2, data=-1, outer=1, fsdp=2, sequence=1, tensor=1)
first, second = sharding.make_mesh(sizes).devices
print({device.process_index for device in first.flat})
print({device.process_index for device in second.flat})
# A mesh along a ring of a torus, of which each process has a square of chips.
laid = np.reshape(jax.devices(), (2, 4, 2)).transpose(1, 0, 2).reshape(1, 4, 1, 4, 1, 1)
mesh = jax.sharding.Mesh(laid, sharding.AXES)
own = sharding.rows_of_process(mesh, 32)
print(own.tolist())
whole = np.add.outer(1000 * np.arange(32), np.arange(6)).astype(np.int32)
every = batch.Batch(*(whole if x.ndim else whole[:, 0] for x in batch.empty(6, 1)))
put = sharding.put_batch(jax.tree.map(lambda x: x[own], every), mesh, 32)
print(all(
  np.array_equal(shard.data, right[shard.index])
  for array, right in zip(put, every) for shard in array.addressable_shards
))
for rate, records in ((0.1, 'ab'), (0.1 + int(number), 'a' + number)):
  settings = {'optimizer': {'learning_rate': rate}, 'data': {'directory': number}}
  about = {'config': settings, 'records': records}
  try:
    print(together.checked(lambda: resuming.refuse_disagreement(about)))
  except errors.UserError as error:
    print(error.exit_code, error)
settings = base.get_config()
settings.data.directory = data
try:
  train.train(config.from_config_dict(settings.to_dict()), folders[0])
except errors.UserError as error:
  print(error)
for folder in folders:
  try:
    place.refuse_unshared(folder, patience=0.2)
    print('shared')
  except errors.UserError as error:
    print(error)
"""


@pytest.fixture
def both(tmp_path_factory):
  """Runs SCRIPT in two processes, each with folders of its own; what they say, line by line."""
  notes = tmp_path_factory.mktemp('notes')
  started = []

  def run(*folders):
    with socket.create_server(('127.0.0.1', 0)) as free:
      port = free.getsockname()[1]
    for number, own in enumerate(folders):
      said = [str(port), str(number), notes / str(number), *own]
      command = [sys.executable, '-c', SCRIPT, *map(str, said)]
      started.append(subprocess.Popen(command))
    for process in started:
      process.wait(timeout=300)
    return [(notes / str(number)).read_text().splitlines() for number in range(len(folders))]

  yield run
  for process in started:
    process.kill()
    process.wait()


def test_two_processes_share_slices_rows_and_a_folder_and_what_one_of_them_refuses(
  both, toy_data, tmp_path
):
  (tmp_path / 'file').touch()
  data = (toy_data, tmp_path / 'none')
  first = (tmp_path / 'a' / 'run', tmp_path / 'mine', tmp_path / 'file' / 'run')
  second = (first[0], tmp_path / 'yours', first[2])
  said = both((data[0], *first), (data[1], *second))
  for number, lines in enumerate(said):
    *slices, rows, right, agreed, other, lack, shared, private, unwritable = lines
    folders = (first, second)[number]
    missing = f'{data[1]}: no data set of records here'
    assert lack == (missing if number else f'process 1: {missing}')
    assert slices == ['{0}', '{1}'] and shared == 'shared'
    wanted = [row for row in range(32) if row // 4 % 2 == number]
    assert rows == str(wanted) and right == 'True'
    # Each may have its copy of the data set; all else is the same, or both tell what is not.
    assert agreed == 'None'
    assert other.startswith(f'{errors.FINAL} {"" if number else "process 1: "}unlike process 0')
    assert 'has records a1 (there a0), optimizer.learning_rate 1.1 (there 0.1):' in other
    assert 'directory' not in other
    assert f'{folders[1]} is not one folder' in private and 'processes [1] do not' in private
    assert f'cannot write to {folders[2]}' in unwritable
  assert said[1][-1] == f'process 0: {said[0][-1]}' and 'Not a directory' in said[1][-1]
  assert not list(tmp_path.glob('**/.shared-*'))
