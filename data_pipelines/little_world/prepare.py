"""Makes the little world: speech, codec, tokenizer, and records of three tasks.

  python -m data_pipelines.little_world.prepare --out=DIR

Tasks: *speak* (text in, audio out), *transcribe* (audio in, text out) and *answer* (a spoken
question in; out comes text that puts the fact into one form, whatever the phrasing, and ends
in the number, and then that number as audio).
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import tqdm
from absl import app, flags, logging

from data_pipelines import records
from data_pipelines.little_world import speech, sums, town
from data_pipelines.little_world.world import MOST_STRINGS, Question, World
from ttt_jax import assets as assets_lib
from ttt_jax import chat, errors
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import audio_io, codec, mel_vq

_OUT = flags.DEFINE_string('out', None, 'Folder of the data set; made anew.')
_WORLD = flags.DEFINE_enum('world', 'sums', ['sums', 'town'], 'What there is to say.')
_VOICES = flags.DEFINE_integer('voices', 1, 'Voices that speak every sentence.')
_STRINGS = flags.DEFINE_integer('strings', 3000, 'Digit strings for training.')
_TESTS = flags.DEFINE_integer('tests', 100, 'Digit strings for testing.')
_CODES = flags.DEFINE_integer('codes', 512, 'Size of the codebook.')
_FRAMES = flags.DEFINE_integer('frames', 4, 'Frames of 10 ms a token.')
_SEED = flags.DEFINE_integer('seed', 0, 'Decides which sentences there are.')

_SECOND = 100  # frames: a token of that many tells no sounds apart


@dataclasses.dataclass(frozen=True)
class Settings:
  """What there is to make; the flags of this module say what each means.

  Raises:
    UserError: one is out of its range.
  """

  world: str
  voices: int
  strings: int
  tests: int
  codes: int
  frames: int
  seed: int
  answer_copies: int = 4  # answers are few beside strings: each is seen this often an epoch
  transcribe_every: int = 2  # of the training strings: reading is learnt before speaking
  ask_every: int = 3  # of the test questions, to be spoken and transcribed: listening is slow
  answer_every: int = 1  # of the test questions, to be answered
  fit_clips: int = 800  # the codec is fitted to so many utterances
  tokenizer_size: int = 768  # at most; bytes included

  def __post_init__(self):
    ranges = {
      'voices': (1, len(speech.VOICES)),
      'strings': (0, MOST_STRINGS),
      'tests': (0, MOST_STRINGS - max(0, self.strings)),
      'codes': (1, mel_vq.MAX_PATCHES),
      'frames': (1, _SECOND),
      'seed': (0, 2**32 - 1),
    }
    for name, (least, most) in ranges.items():
      if not least <= (value := getattr(self, name)) <= most:
        raise errors.UserError(f'--{name}={value}: it must be between {least} and {most}')


GRAMMAR = 'grammar.jsgf'  # of a world that has one; in the folder of the data set
WORLDS = {'sums': sums, 'town': town}

TASK_PROMPTS = {
  assets_lib.SPEAK: 'speak',
  assets_lib.TRANSCRIBE: 'transcribe',
  assets_lib.ANSWER: 'answer',
}


def prompts(voices: int) -> dict[str, list[str]]:
  """System prompts of the tasks: where there are several voices, each is asked for."""
  if voices == 1:
    return {task: [prompt] for task, prompt in TASK_PROMPTS.items()}
  names = [f' voice {sums.NUMBERS[voice + 1]}' for voice in range(voices)]
  return {
    task: [prompt] * voices
    if task == assets_lib.TRANSCRIBE
    else [prompt + name for name in names]
    for task, prompt in TASK_PROMPTS.items()
  }


class _Speech:
  """Every utterance that is needed, said once and tokenised once."""

  def __init__(self, texts: list[str], settings: Settings):
    voices = speech.VOICES[: settings.voices]
    jobs = [(text, index) for text in texts for index in range(len(voices))]
    waves = {}
    for text, index in tqdm.tqdm(jobs, desc='speak', unit='utterance'):
      waves[text, index] = speech.say(text, voices[index])
    rng = np.random.default_rng(settings.seed)
    picked = rng.permutation(len(jobs))[: settings.fit_clips]
    logging.info('fitting the codec')
    try:
      self.codec = mel_vq.MelVQ.fit(
        [waves[jobs[i]] for i in picked],
        speech.SAMPLE_RATE,
        frames_per_token=settings.frames,
        codebook_size=settings.codes,
        seed=settings.seed,
      )
    except codec.CodecError as error:
      raise errors.UserError(f'--codes={settings.codes}: {error}') from error
    self.waves = waves
    self.codes = {
      job: self.codec.encode(waves[job], speech.SAMPLE_RATE)
      for job in tqdm.tqdm(jobs, desc='tokenise', unit='utterance')
    }


def _audio_file(text: str, voice: int) -> str:
  """Where a test utterance is kept, from the folder of the data set."""
  return f'audio/{text.replace(" ", "-")}.{voice}.wav'


class _Maker:
  """Makes the records of the three tasks from utterances."""

  def __init__(self, assets: assets_lib.Assets, codes: dict, with_audio: bool):
    """Takes the codes of each (text, voice); `with_audio` names files of reference speech."""
    self._assets, self._codes, self._with_audio = assets, codes, with_audio

  def speak(self, number: int, text: str, voice: int, kind: str) -> records.Record:
    audio = self._codes[text, voice]
    return self._record(assets_lib.SPEAK, number, text, [audio], text, voice, kind=kind)

  def transcribe(self, number: int, text: str, voice: int, kind: str) -> records.Record:
    audio = self._codes[text, voice]
    return self._record(assets_lib.TRANSCRIBE, number, audio, [text], text, voice, kind=kind)

  def answer(self, number: str, question: Question, voice: int, kind: str) -> records.Record:
    text, audio = question.answer, self._codes[question.text, voice]
    reply = [
      self._codes[piece.text, voice] if piece.aloud else piece.text for piece in question.reply
    ]
    more = {'kind': kind, 'question': question.text}
    return self._record(assets_lib.ANSWER, number, audio, reply, text, voice, **more)

  def _record(self, task, number, user, reply, text, voice, **about) -> records.Record:
    turns = [
      chat.Turn('system', [self._assets.prompt(task, voice)]),
      chat.Turn('user', [user]),
      chat.Turn('assistant', reply),
    ]
    about |= {'task': task, 'voice': voice, 'text': text}
    if self._with_audio:
      about['audio'] = _audio_file(text, voice)
    document = self._assets.template.document(turns)
    return records.Record(f'{task}-{number}-{voice}', document, about)


def _train(maker: _Maker, world: World, settings: Settings) -> Iterator[records.Record]:
  string, asked, answered = world.kinds
  for voice in range(settings.voices):
    for number, text in enumerate(world.train_strings):
      yield maker.speak(number, text, voice, string)
      if number % settings.transcribe_every == 0:
        yield maker.transcribe(number, text, voice, string)
    for number, question in enumerate(world.train_questions, len(world.train_strings)):
      yield maker.speak(number, question.text, voice, asked)
      yield maker.transcribe(number, question.text, voice, asked)
      for copy in range(settings.answer_copies):
        yield maker.answer(f'{number}.{copy}', question, voice, answered)


def _test(maker: _Maker, world: World, settings: Settings) -> Iterator[records.Record]:
  string, asked, answered = world.kinds
  for voice in range(settings.voices):
    for number, text in enumerate(world.test_strings):
      yield maker.speak(number, text, voice, string)
      yield maker.transcribe(number, text, voice, string)
    for number, question in enumerate(world.test_questions, len(world.test_strings)):
      if number % settings.ask_every == 0:
        yield maker.speak(number, question.text, voice, asked)
        yield maker.transcribe(number, question.text, voice, asked)
      if number % settings.answer_every == 0:
        yield maker.answer(str(number), question, voice, answered)


def recogniser(directory: str | pathlib.Path) -> str:
  """Who hears what is said in the little world of this data set, as a suite names it."""
  grammar = pathlib.Path(directory, GRAMMAR)
  return f'pocketsphinx:{grammar}' if grammar.exists() else 'pocketsphinx'


def prepare(directory: str | pathlib.Path, settings: Settings) -> None:
  """Writes the data set of the little world into `directory`.

  Raises:
    UserError: there is too little speech for so many codes, or the folder cannot be written.
  """
  world = WORLDS[settings.world].make_world(settings.strings, settings.tests, settings.seed)
  questions = [*world.train_questions, *world.test_questions]
  texts = [*world.train_strings, *world.test_strings]
  texts += [question.text for question in questions]
  replies = sorted({question.reply for question in questions})
  texts += sorted({piece.text for reply in replies for piece in reply if piece.aloud})
  spoken = _Speech(texts, settings)
  system = prompts(settings.voices)
  statements = [
    piece.text for question in questions for piece in question.reply if not piece.aloud
  ]
  corpus = [
    *texts,
    *statements,
    *chat.ROLES * 100,
    *[p for group in system.values() for p in group] * 100,
  ]
  tokenizer = tokenizer_lib.SentencePiece.train(corpus, settings.tokenizer_size)
  vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, settings.codes)
  assets = assets_lib.Assets(vocabulary, tokenizer, spoken.codec, system)

  train, test = (_Maker(assets, spoken.codes, with_audio) for with_audio in (False, True))
  splits = {
    'train': lambda: _train(train, world, settings),
    'test': lambda: _test(test, world, settings),
  }

  def extras(folder: pathlib.Path) -> None:
    if world.grammar:
      folder.joinpath(GRAMMAR).write_text(world.grammar, encoding='utf-8')
    folder.joinpath('audio').mkdir()
    for voice in range(settings.voices):
      clips = {
        text: spoken.waves[text, voice]
        for text in {*world.test_strings, *(q.text for q in world.test_questions)}
      }
      for question in questions:
        pieces = [piece.text for piece in question.reply if piece.aloud]
        clips[question.answer] = np.concatenate([spoken.waves[p, voice] for p in pieces])
      for text, wave in clips.items():
        audio_io.write_wav(folder / _audio_file(text, voice), wave, speech.SAMPLE_RATE)

  records.write(directory, splits, assets, extras)


def settings_from_flags() -> Settings:
  """What the flags of this module say."""
  return Settings(
    world=_WORLD.value,
    voices=_VOICES.value,
    strings=_STRINGS.value,
    tests=_TESTS.value,
    codes=_CODES.value,
    frames=_FRAMES.value,
    seed=_SEED.value,
  )


def main(argv):
  """Reads the flags."""
  del argv
  try:
    prepare(_OUT.value, settings_from_flags())
  except errors.UserError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.mark_flag_as_required('out')
  app.run(main)
