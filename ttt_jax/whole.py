"""Steps that show when they are whole, and stay so after a loss of power."""

import os

import orbax.checkpoint as ocp

from ttt_jax import folders, hashes

TEMPORARY = '.orbax-checkpoint-tmp'  # in names of folders that orbax takes for unfinished


class Step(ocp.path.atomicity.AtomicRenameTemporaryPath):
  """A step that is hashed when all of it is written, and only then gets its name.

  In the thread that saves, when all processes have written, orbax's first one renames the
  temporary folder. Here the new name is a temporary one too: what lies there is hashed, waited
  for until the disk has it, and renamed once more. So a step never shows without its hashes,
  old steps are deleted only behind that, and what is left of a save that was cut off goes at
  the next start.
  """

  @classmethod
  def from_final(cls, final_path, **options):
    if not final_path.name.isdigit():  # an item of a step
      return ocp.path.atomicity.AtomicRenameTemporaryPath.from_final(final_path, **options)
    return super().from_final(final_path.parent / (final_path.name + TEMPORARY), **options)

  def get_final(self):
    written = super().get_final()
    return written.parent / written.name.removesuffix(TEMPORARY)

  async def finalize(self):
    await super().finalize()
    written = super().get_final()
    hashes.write(written)
    folders.settle(written)
    os.rename(written, self.get_final())
    folders.settle_names(written.parent)
