"""Flags and presets of decoding."""

import dataclasses

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


def test_limits_are_those_of_the_run_unless_flags_say_others():
  run = make_config(sampling__max_text=7, sampling__max_audio=64).sampling
  assert decoding.changed(run) == run
  with flagsaver.flagsaver(max_text=512):
    made = decoding.changed(run)
  assert made == dataclasses.replace(run, max_text=512)
  with flagsaver.flagsaver(max_audio=65, max_text=8):
    made = decoding.changed(run)
  assert (made.max_text, made.max_audio) == (8, 65)
  said = decoding.limits(made)
  assert '--max_text (8 text' in said and '--max_audio (65 audio' in said
