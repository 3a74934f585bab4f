"""Presets of decoding."""

from absl.testing import flagsaver
from conftest import make_config

from ttt_jax.cli import decoding


def test_with_the_authors_preset_text_alone_is_drawn_whatever_the_run_has():
  run = make_config(sampling__audio_temperature=0.7, sampling__max_audio=64).sampling
  with flagsaver.flagsaver(preset='authors'):
    made = decoding.changed(run)
  assert (made.block_size, made.steps_per_block, made.guidance) == (26, 2, 0.1)
  assert (made.audio_temperature, made.text_temperature) == (0, 1)
  assert (made.top_k, made.top_p) == (10, 0.95)
  with flagsaver.flagsaver(preset='authors', audio_temperature=0.5):
    assert decoding.changed(run).audio_temperature == 0.5
