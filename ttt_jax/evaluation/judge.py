"""What is heard: a model's answers to held-out records, judged by an independent listener.

Every figure stands beside its floors: what the same listener makes of the original speech,
and of the original speech after the codec alone.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation import recogniser
from ttt_jax.sampling import session as session_lib


class Heard(NamedTuple):
  """One held-out record, and what became of it.

  Attributes:
    key: of the record.
    task: speak, transcribe or answer.
    reference: the text that should be said or written.
    text: all text of the model's answer.
    wave: float32 [S], all audio of the answer.
    heard: what the listener makes of `wave`.
    original: float32 [S], reference speech; empty if there is none.
    heard_original: what the listener makes of it.
    codec: float32 [S], the reference after the codec alone.
    heard_codec: what the listener makes of that.
    complete: whether the answer ended by itself.
  """

  key: str
  task: str
  reference: str
  text: str
  wave: np.ndarray
  heard: str
  original: np.ndarray
  heard_original: str
  codec: np.ndarray
  heard_codec: str
  complete: bool


def prompt_of(record: records.Record) -> np.ndarray:
  """What a record gives the model, int32 [n]: all before its last answer."""
  return record.document.tokens[: _answer_start(record)]


def _answer_start(record: records.Record) -> int:
  targets = record.document.targets
  begins = targets & ~np.append(False, targets[:-1])
  return int(np.flatnonzero(begins)[-1])


def hear_all(session: session_lib.Session, source: records.Source) -> list[Heard]:
  """Lets the model answer every record of `source`, and listens.

  Raises:
    AssetError: model and data set were made with different assets.
  """
  session.assets.refuse_mismatch(source.fingerprints, str(source.directory))
  chosen = [source[i] for i in range(len(source))]
  listener_of = listeners(chosen)
  answers = session.decoder([prompt_of(record) for record in chosen])
  out = []
  for record, answer in zip(tqdm.tqdm(chosen, desc='listen', unit='record'), answers):
    listener = listener_of[record.about['kind']]
    out.append(_hear(record, answer, session, source.directory, listener))
  return out


def listeners(chosen: Sequence[records.Record]) -> dict[str, recogniser.Recogniser]:
  """One for each kind of text, which knows just the words that occur in that kind."""
  texts: dict[str, list[list[str]]] = {}
  for record in chosen:
    texts.setdefault(record.about['kind'], []).append(record.about['text'].split())
  return {
    kind: recogniser.Recogniser(
      sorted({word for words in said for word in words}),
      single=all(len(words) == 1 for words in said),
    )
    for kind, said in texts.items()
  }


def _hear(record, answer, session, directory: pathlib.Path, listener) -> Heard:
  assets, about = session.assets, record.about
  rate = assets.codec.sample_rate
  parts = assets.template.parts(answer.tokens)
  codes = [part for part in parts if not isinstance(part, str)]
  spans = record.document.spans
  spans = spans[spans[:, 0] >= _answer_start(record)]
  reference = [assets.vocabulary.to_codes(record.document.tokens[a:b]) for a, b in spans]
  wave, codec = _decode(assets, codes), _decode(assets, reference)
  original, heard_original = np.zeros(0, np.float32), ''
  if 'audio' in about:
    original, original_rate = audio_io.read_wav(directory / about['audio'])
    original = audio_io.resample(original, original_rate, rate)
    heard_original = listener.hear(original, rate)
  return Heard(
    key=record.key,
    task=about['task'],
    reference=about['text'],
    text=''.join(part for part in parts if isinstance(part, str)),
    wave=wave,
    heard=listener.hear(wave, rate),
    original=original,
    heard_original=heard_original,
    codec=codec,
    heard_codec=listener.hear(codec, rate),
    complete=answer.complete,
  )


def _last_words(item: Heard) -> str:
  """As many words from the end of the answer's text as the reference has."""
  return ' '.join(item.text.split()[-len(item.reference.split()) :])


def _decode(assets: assets_lib.Assets, codes: list[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0, np.float32), *map(assets.codec.decode, codes)])


def figures(heard: Sequence[Heard]) -> dict[str, Any]:
  """The table of results: word error rates and accuracies, as fractions.

  Tasks without a record are left out.
  """

  def of(task: str) -> list[Heard]:
    return [item for item in heard if item.task == task]

  def wer(items: list[Heard], pick: Callable[[Heard], str]) -> float:
    references = [item.reference for item in items]
    return recogniser.word_error_rate(references, [pick(item) for item in items])

  def right(items: list[Heard], pick: Callable[[Heard], str]) -> float:
    return float(np.mean([pick(item) == item.reference for item in items]))

  out = {}
  if speak := of(assets_lib.SPEAK):
    out['tts_wer'] = wer(speak, lambda item: item.heard)
    if recorded := [item for item in speak if len(item.original)]:
      out['tts_wer_floor_original'] = wer(recorded, lambda item: item.heard_original)
    out['tts_wer_floor_codec'] = wer(speak, lambda item: item.heard_codec)
    out['tts_records'] = len(speak)
  if transcribe := of(assets_lib.TRANSCRIBE):
    out['asr_wer'] = wer(transcribe, lambda item: item.text)
    out['asr_records'] = len(transcribe)
  if answer := of(assets_lib.ANSWER):
    # The answer may explain itself: its text must end in what it is to say.
    out['qa_text_accuracy'] = right(answer, _last_words)
    out['qa_audio_accuracy'] = right(answer, lambda item: item.heard)
    if recorded := [item for item in answer if len(item.original)]:
      out['qa_audio_ceiling_original'] = right(recorded, lambda item: item.heard_original)
    out['qa_audio_ceiling_codec'] = right(answer, lambda item: item.heard_codec)
    out['qa_records'] = len(answer)
  out['cut_short'] = sum(not item.complete for item in heard)
  return out
