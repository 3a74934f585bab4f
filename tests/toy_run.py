"""Steps of a run that hold little."""

import pathlib

import jax.numpy as jnp

from ttt_jax import checkpoint


def flip(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0xFF
  path.write_bytes(content)


def state(step: int):
  params = {'a': jnp.full((300, 4), step, jnp.float32), 'b': {'c': jnp.arange(8.0) + step}}
  return params, {'m': jnp.full(10, -step), 'n': jnp.int32(step)}


def save(workdir, steps, keep=2, every=0):
  with checkpoint.opened(workdir, keep, every) as checkpoints:
    for step in steps:
      checkpoint.save(checkpoints, step, *state(step), {'about': 'a run'})
    checkpoints.wait_until_finished()


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())
