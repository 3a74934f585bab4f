import socket
import subprocess
import sys

import pytest

SCRIPT = """
import sys, jax
from ttt_jax import checkpoint, config, sharding
from ttt_jax.training import place
port, number, said, *folders = sys.argv[1:]
sys.stdout = open(said, 'w')  # what Gloo prints goes to the other one
jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(number))
sizes = config.Mesh(slices=2, data=-1, outer=1, fsdp=2, sequence=1, tensor=1)
first, second = sharding.make_mesh(sizes).devices
print({device.process_index for device in first.flat})
print({device.process_index for device in second.flat})
for folder in folders:
  try:
    place.refuse_unshared(folder, patience=0.2)
    print('shared')
  except checkpoint.CheckpointError as error:
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
      process.wait(timeout=60)
    return [(notes / str(number)).read_text().splitlines() for number in range(len(folders))]

  yield run
  for process in started:
    process.kill()
    process.wait()


def test_processes_are_slices_and_refuse_a_folder_that_is_not_shared(both, tmp_path):
  (tmp_path / 'file').touch()
  first = (tmp_path / 'a' / 'run', tmp_path / 'mine', tmp_path / 'file' / 'run')
  second = (first[0], tmp_path / 'yours', first[2])
  said = both(first, second)
  for (*slices, shared, private, unwritable), folders in zip(said, (first, second)):
    assert slices == ['{0}', '{1}'] and shared == 'shared'
    assert f'{folders[1]} is not one folder' in private and 'processes [1] do not' in private
    assert f'cannot write to {folders[2]}' in unwritable
  assert 'Not a directory' in said[0][-1] and 'process 0 tells why' in said[1][-1]
  assert not list(tmp_path.glob('**/.shared-*'))
