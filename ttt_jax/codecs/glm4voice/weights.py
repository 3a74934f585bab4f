"""The released parameters: safetensors under the names of their authors."""

import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors
from flax import linen as nn
from flax import traverse_util
from safetensors import numpy as safetensors_numpy

from ttt_jax.codecs import codec
from ttt_jax.codecs.glm4voice import encoder
from ttt_jax.codecs.glm4voice import shape as shape_lib

NAME = 'model.safetensors'

# Of the codebook's training, and of what comes behind the tokens.
_UNUSED = ('ema_count', 'ema_weight', 'embed_positions2.weight')
_STACKED = 'layers.'


def read(directory: str | os.PathLike, shape: shape_lib.Shape) -> dict:
  """Reads the parameters of `Encoder(shape)`.

  Returns:
    A tree of float32 numpy arrays, its layers stacked.

  Raises:
    CodecError: the file is missing or damaged, or a tensor is missing, unknown, not float32,
      not finite, or of another shape; the message names the file and the tensor.
  """
  path = pathlib.Path(directory, NAME)
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      if shape.quantize_position > len(file.keys()):  # before as many names are made
        raise codec.CodecError(
          f'{path}: has {len(file.keys())} tensors, but {shape_lib.CONFIG} beside it asks for '
          f'{shape.quantize_position} layers (quantize_position); copy both again'
        )
      wanted = _wanted(shape)
      _check(file, {name: size for _, names, size in wanted for name in names}, path)
      flat = {
        ours: np.stack([_finite(file.get_tensor(name), name, path) for name in names])
        for ours, names, _ in wanted
      }
  except FileNotFoundError as error:
    raise codec.CodecError(
      f'{path}: missing; copy the whole folder of the tokenizer'
    ) from error
  except (OSError, safetensors.SafetensorError) as error:
    raise codec.CodecError(f'{path}: damaged ({error}); copy it again') from error
  single = {key: array if key.startswith(_STACKED) else array[0] for key, array in flat.items()}
  return traverse_util.unflatten_dict(single, sep='.')


def named(params: Mapping) -> Iterator[tuple[str, np.ndarray]]:
  """The parameters by the names of the file, in a fixed order."""
  for key, array in sorted(traverse_util.flatten_dict(params, sep='.').items()):
    if key.startswith(_STACKED):
      for layer, row in enumerate(array):
        yield _of_layer(key, layer), row
    else:
      yield key, array


def write(params: Mapping, directory: str | os.PathLike) -> None:
  """Writes what `read` reads; tensors that make no tokens are not among it."""
  safetensors_numpy.save_file(dict(named(params)), pathlib.Path(directory, NAME))


def _of_layer(key: str, layer: int) -> str:
  return f'{_STACKED}{layer}.{key.removeprefix(_STACKED)}'


def _wanted(shape: shape_lib.Shape) -> list[tuple[str, list[str], tuple[int, ...]]]:
  """For each parameter its name here, its tensors' names, and the shape of each of them."""
  abstract = nn.unbox(encoder.Encoder(shape).parameters())
  wanted = []
  for key, array in traverse_util.flatten_dict(abstract, sep='.').items():
    if key.startswith(_STACKED):
      names = [_of_layer(key, layer) for layer in range(len(array))]
      wanted.append((key, names, array.shape[1:]))
    else:
      wanted.append((key, [key], array.shape))
  return wanted


def _check(file, shapes: Mapping[str, tuple[int, ...]], path: pathlib.Path) -> None:
  held = set(file.keys())
  wrong = [f'{name} is missing' for name in sorted(set(shapes) - held)]
  wrong += [f'{name} is not known' for name in sorted(held - set(shapes) - set(_UNUSED))]
  for name in sorted(held & set(shapes)):
    part = file.get_slice(name)
    found = part.get_dtype(), tuple(part.get_shape())
    if found != ('F32', shapes[name]):
      wrong.append(f'{name} is {found[0]} {list(found[1])}, not F32 {list(shapes[name])}')
  if wrong:
    raise codec.CodecError(
      f'{path}: not the tensors that {shape_lib.CONFIG} beside it asks for:\n  '
      + '\n  '.join(wrong)
    )


def _finite(array: np.ndarray, name: str, path: pathlib.Path) -> np.ndarray:
  if not np.isfinite(array).all():
    raise codec.CodecError(f'{path}: {name} is not finite; copy the file again')
  return array
