"""How many a server serves at a time, and how soon each hears something.

    python benchmarks/serving.py --checkpoint RUN [--quick] [--json FILE]

`ttt-serve` runs in a process of its own, on this machine alone. Clients say sentences of the
little world to it, each the next one as soon as the last has been heard: 1, 8 and 32 of them at
a time. The same sentences one after the other are the line of one client. Then the eight ask
again beside two hundred connections that never finish their requests.
"""

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent import futures

import record

from data_pipelines.little_world import sums

FORMULA = (
  'rate = requests / second; first = seconds from the request to the first samples, median and '
  '95 %; sound = seconds of sound made in a second; batch = answers a pass served, on average'
)
CLIENTS = (1, 8, 32)
_BESIDE, _CROWD = 8, 200
_LIBRARIES = ('jax', 'numpy', 'fastapi', 'uvicorn')
_SAMPLES = 32_000  # bytes of a second at 16 kHz


@contextlib.contextmanager
def served(folder: str):
  """The address of a server that is ready."""
  command = [sys.executable, '-m', 'ttt_jax.cli.serve', f'--checkpoint={folder}']
  command += ['--port=0', '--max_prompt=128']
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    try:
      told = process.stderr.readline()
      if not told.startswith('listening on '):
        sys.exit(told + process.stderr.read())
      address = told.split()[-1]
      threading.Thread(target=process.stderr.read, daemon=True).start()
      while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f'{address}/readyz'):
          break
        time.sleep(0.2)
      yield address
    finally:
      process.terminate()
      process.wait(60)


def speak(address: str, text: str) -> dict[str, float]:
  """Seconds to the first sound and to the last, and seconds of sound, of one request."""
  headers = {'content-type': 'application/json', 'accept': 'audio/pcm'}
  body = json.dumps({'text': text}).encode()
  begin, first, size = time.perf_counter(), None, 0
  request = urllib.request.Request(f'{address}/v1/speak', body, headers)
  with urllib.request.urlopen(request, timeout=300) as told:
    while part := told.read1(2**16):
      first = first or time.perf_counter() - begin
      size += len(part)
  whole = time.perf_counter() - begin
  return {'first': first or whole, 'whole': whole, 'sound': size / _SAMPLES}


def passes(address: str) -> tuple[float, float]:
  """Passes so far, and the answers that they served."""
  with urllib.request.urlopen(f'{address}/metrics') as told:
    text = told.read().decode()
  return tuple(
    float(re.search(rf'^ttt_{n}_total (\S+)', text, re.M)[1]) for n in ('passes', 'rows')
  )


def load(address: str, clients: int, texts: list[str]) -> dict[str, float]:
  """One line of the table."""
  before, begin = passes(address), time.perf_counter()
  with futures.ThreadPoolExecutor(clients) as pool:
    told = list(pool.map(lambda text: speak(address, text), texts))
  seconds, after = time.perf_counter() - begin, passes(address)
  first = sorted(one['first'] for one in told)
  return {
    'clients': clients,
    'requests': len(texts),
    'rate': len(texts) / seconds,
    'first': statistics.median(first),
    'first_most': first[int(0.95 * len(first))],
    'whole': statistics.median(one['whole'] for one in told),
    'sound': sum(one['sound'] for one in told) / seconds,
    'batch': (after[1] - before[1]) / (after[0] - before[0]),
  }


@contextlib.contextmanager
def crowd(address: str, count: int):
  """Connections that send a part of a request, and no more; renewed when they are dropped."""
  host, port = address.removeprefix('http://').split(':')
  over = threading.Event()

  def annoy():
    while not over.is_set():
      with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as one:
        one.sendall(b'POST /v1/speak HTTP/1.1\r\nhost: localhost\r\n')
        one.settimeout(1)
        while not over.is_set():
          try:
            if not one.recv(1000):
              break
          except TimeoutError:
            continue

  threads = [threading.Thread(target=annoy, daemon=True) for _ in range(count)]
  for thread in threads:
    thread.start()
  try:
    yield
  finally:
    over.set()
    for thread in threads:
      thread.join()


def main():
  """Measures, and prints a table."""
  parser = record.parser(__doc__, 'fewer requests')
  parser.add_argument('--checkpoint', default='runs/quickstart/run', help='folder of a run')
  options = parser.parse_args()
  results = record.begin(FORMULA, _LIBRARIES, device=os.environ.get('JAX_PLATFORMS', 'any'))
  each = 3 if options.quick else 8
  world = sums.make_world(0, 64, 0).test_strings
  texts = [world[i % len(world)] for i in range(each * max(CLIENTS))]
  rows, columns = [], ('rate', 'first', 'first_most', 'whole', 'sound', 'batch')
  print(*(f'{name:>10}' for name in ('clients', *columns)))
  with served(options.checkpoint) as address:
    for clients in CLIENTS:  # what was not compiled ahead
      load(address, clients, texts[: 2 * clients])
    for beside, clients in [*((0, n) for n in CLIENTS), (_CROWD, _BESIDE)]:
      with crowd(address, beside):
        row = load(address, clients, texts[: each * max(clients, 4)]) | {'beside': beside}
      figures = [f'{row[name]:10.3f}' for name in columns]
      print(f'{clients:>10}', *figures, f'beside {beside}' if beside else '', flush=True)
      rows.append(row)
  record.save(results | {'rows': rows}, options.json)


if __name__ == '__main__':
  main()
