"""What codecs can do, and what they say when they cannot."""

import numpy as np
import pytest

from ttt_jax.codecs import codec, external, kinds


class Whole(codec.Codec):
  """Decodes whole sounds only."""

  kind, abilities, sample_rate = 'whole', frozenset({'decode'}), 100
  frame_rate, codebook_size, fingerprint = 10.0, 4, 'none'
  save = load = None

  def _decode(self, ids):
    return np.repeat(ids, 10).astype(np.float32)


def test_a_codec_says_what_it_can_do():
  made = Whole()
  assert made.decode([1, 2]).tolist() == [1.0] * 10 + [2.0] * 10
  with pytest.raises(codec.CodecError, match="kind 'whole' cannot stream .it can: decode."):
    made.decoder()
  with pytest.raises(codec.CodecError, match="kind 'whole' cannot encode"):
    made.encode(np.zeros(5, np.float32), 100)
  with pytest.raises(codec.CodecError, match=r'id 4 at position 0 is outside \[0, 4\)'):
    made.decode([4])


def test_a_codec_that_is_elsewhere_says_how_to_get_it(tmp_path):
  external.External('theirs', 24).save(tmp_path)
  made = kinds.load_codec(tmp_path)
  assert made.codebook_size == 24 and not made.abilities
  for call in (
    lambda: made.encode(np.zeros(5, np.float32), 100),
    lambda: made.decode([1]),
    made.decoder,
    lambda: made.sample_rate,
    lambda: made.frame_rate,
  ):
    with pytest.raises(codec.CodecError, match="codec 'theirs' .*--codec=FOLDER"):
      call()
