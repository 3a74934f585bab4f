"""Folders of safetensors files: read lazily, written in shards, never a pickle."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from ttt_jax import json_file
from ttt_jax.conversion import table

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt')


class Folder(Mapping[str, np.ndarray]):
  """The tensors of a checkpoint by name; each is read when it is asked for.

  Attributes:
    shapes: of all tensors.
    dtypes: of all tensors, as numpy names them.
  """

  def __init__(self, directory: str | pathlib.Path):
    """Reads the headers of all files.

    Raises:
      ConversionError: there are no safetensors files, one is missing or damaged, the index
        names a file elsewhere, or a dtype is unknown.
    """
    self._files = _find(pathlib.Path(directory))
    self.shapes: dict[str, tuple[int, ...]] = {}
    self.dtypes: dict[str, str] = {}
    wrong = []
    for path in sorted(set(self._files.values())):
      named = {name for name, where in self._files.items() if where == path}
      with _open(path) as file:
        held = set(file.keys())
        wrong += [f'{path.name} has no tensor {name}' for name in sorted(named - held)]
        # What lies in the files and the index forgot is not lost in silence.
        wrong += [f'{path.name} has {name}, unnamed' for name in sorted(held - named)]
        for name in sorted(named & held):
          part = file.get_slice(name)
          kind = part.get_dtype()
          if kind not in DTYPES:
            wrong.append(f'{path.name}: {name} is {kind}, not {", ".join(DTYPES)}')
          self.shapes[name] = tuple(part.get_shape())
          self.dtypes[name] = DTYPES.get(kind, kind)
    if wrong:
      raise table.ConversionError(
        f'{directory}: files and index do not agree, or weights are quantized:\n  '
        + '\n  '.join(wrong)
      )

  def __getitem__(self, name: str) -> np.ndarray:
    # Opened anew for each tensor, so that no mapped pages of the others stay in memory.
    with _open(self._files[name]) as file:
      return file.get_tensor(name)

  def __iter__(self) -> Iterator[str]:
    return iter(self.shapes)

  def __len__(self) -> int:
    return len(self.shapes)


def _open(path: pathlib.Path):
  try:
    return safetensors.safe_open(path, framework='numpy')
  except (OSError, safetensors.SafetensorError) as error:
    raise table.ConversionError(f'{path}: not a whole safetensors file ({error})') from error


def _find(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Which file has each tensor."""
  index = directory / INDEX
  if index.exists():
    try:
      names = json_file.read(index)['weight_map']
      files = {str(name): str(file) for name, file in names.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
      raise table.ConversionError(f'{index}: not an index of tensors ({error})') from error
    for name, file in files.items():
      if pathlib.PurePosixPath(file).name != file or '\\' in file or file in ('.', '..'):
        raise table.ConversionError(
          f'{index}: {name} is said to lie in {file!r}, not beside it'
        )
    gone = sorted({file for file in files.values() if not os.path.isfile(directory / file)})
    if gone:
      raise table.ConversionError(f'{directory}: missing {", ".join(gone)}, named by the index')
    return {name: directory / file for name, file in files.items()}
  if (directory / SINGLE).exists():
    with _open(directory / SINGLE) as file:
      return dict.fromkeys(file.keys(), directory / SINGLE)
  pickles = [path.name for kind in _PICKLES for path in sorted(directory.glob(kind))]
  if pickles:
    raise table.ConversionError(
      f'{directory}: {pickles[0]} is a pickle, which can run code when it is read; take the '
      'safetensors files, or make them where you trust it: '
      'AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other_folder)'
    )
  raise table.ConversionError(f'{directory}: neither {SINGLE} nor {INDEX}')


def write(
  directory: pathlib.Path,
  tensors: Iterable[tuple[str, Callable[[], np.ndarray]]],
  sizes: Mapping[str, int],
  shard_bytes: int,
) -> None:
  """Writes tensors in order, in files of at most `shard_bytes` (or of one tensor).

  Args:
    directory: an existing folder.
    tensors: names, each with a function that makes the tensor; called once, in order.
    sizes: bytes of each tensor.
    shard_bytes: that are held in memory at a time.
  """
  shards: list[list[str]] = []
  room = 0
  for name in sizes:
    if not shards or sizes[name] > room:
      shards.append([])
      room = shard_bytes
    shards[-1].append(name)
    room -= sizes[name]
  stream, where = iter(tensors), {}
  for number, names in enumerate(shards, 1):
    file = SINGLE if len(shards) == 1 else f'model-{number:05}-of-{len(shards):05}.safetensors'
    held = {}
    for wanted in names:
      name, make = next(stream)
      assert name == wanted, (name, wanted)
      held[name] = make()
      del make  # it holds the parameter that the tensor was cut from
      where[name] = file
    safetensors_numpy.save_file(held, directory / file, metadata={'format': 'pt'})
    (directory / file).chmod(0o644)  # the library writes for the owner alone
  if len(shards) > 1:
    index = {'metadata': {'total_size': sum(sizes.values())}, 'weight_map': where}
    (directory / INDEX).write_text(json.dumps(index, indent=1) + '\n', encoding='utf-8')
