"""The page in a browser: it types, hears, watches and uploads."""

import base64
import dataclasses
import pathlib
import re

import machines
import numpy as np
import pytest
from heard import serving, warm, wav_of
from playwright import sync_api

pytest_plugins = ['talking']

# No sandbox, since CI is root; and nothing that would look for hosts elsewhere.
_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
]

_PATIENCE = 120_000  # ms: the server is of this process, and may be compiling

# Whatever the page plays goes through here.
_LISTEN = """
window.played = [];
const {start} = AudioBufferSourceNode.prototype;
AudioBufferSourceNode.prototype.start = function (...at) {
  if (this.context instanceof AudioContext) {
    window.played.push([...this.buffer.getChannelData(0)]);
  }
  return start.apply(this, at);
};
"""

_COLOURS = """
async (picture) => {
  const bytes = Uint8Array.from(atob(picture), (it) => it.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes]));
  const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, image.width, image.height);
  const counts = {};
  for (let i = 0; i < data.length; i += 4) {
    const name = `rgb(${data[i]}, ${data[i + 1]}, ${data[i + 2]})`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
"""


@pytest.fixture(scope='module')
def browser():
  path = machines.program('chromium', 'google-chrome')
  with sync_api.sync_playwright() as playwright:
    sync_api.expect.set_options(timeout=_PATIENCE)
    made = playwright.chromium.launch(executable_path=path, args=_FLAGS)
    yield made
    made.close()


class Page:
  """A page of the server, and what went wrong on it."""

  def __init__(self, browser, client, width=1200, scheme='light'):
    size = {'width': width, 'height': 900}
    self._context = browser.new_context(viewport=size, color_scheme=scheme)
    self._context.set_default_timeout(_PATIENCE)
    self.page, self.wrong = self._context.new_page(), []
    self.page.add_init_script(_LISTEN)
    self.page.on('pageerror', lambda error: self.wrong.append(str(error)))
    self.page.on('console', self._note)
    self.asked = []
    self.page.on('request', lambda request: self.asked.append(request.url))
    self.page.goto(f'http://127.0.0.1:{client.port}/')
    self.page.wait_for_selector('.status.good')

  def _note(self, message):
    if message.type == 'error':
      self.wrong.append(message.text)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._context.close()

  def ask(self, task, text, seed=0, temperature=1.0):
    page = self.page
    page.locator(f'input[value={task}]').focus()
    page.keyboard.press('Space')
    page.locator('details').evaluate('it => { it.open = true; }')
    page.fill('#seed', str(seed))
    for of in ('text', 'audio'):
      range_of = page.locator(f'#{of}-temperature')
      range_of.evaluate(f'it => {{ it.value = {temperature}; }}')
    page.fill('#said', text)
    page.keyboard.press('Enter')
    return self.answer()

  def colours(self, path):
    """How many pixels of the page have each colour; a picture of it goes to `path`."""
    picture = self.page.screenshot(path=path, full_page=True, animations='disabled')
    return self.page.evaluate(_COLOURS, base64.b64encode(picture).decode())

  def answer(self):
    self.page.wait_for_selector('#send:enabled')
    turn = self.page.locator('.turn').first
    turn.locator('.figures').wait_for()
    return turn


@pytest.fixture(scope='module')
def seed(talk):
  """With which 'one' is answered by words and by sound of some blocks."""
  for number in range(100):
    settings = dataclasses.replace(talk.config.sampling, **warm(1.0))
    (answer,) = talk.decoder([talk.prompt('answer', 'one')], [number], [settings])
    parts = talk.assets.template.parts(answer.tokens)
    codes = sum(len(part) for part in parts if not isinstance(part, str))
    if codes > 12 and any(isinstance(part, str) and part.strip() for part in parts):
      return number, answer.tokens, parts
  raise AssertionError('it says nothing')


@pytest.mark.parametrize('width,scheme', [(1200, 'light'), (390, 'dark')])
def test_what_is_typed_is_answered_to_eye_and_ear(
  talk, client, browser, seed, tmp_path, width, scheme
):
  number, tokens, parts = seed
  with Page(browser, client, width, scheme) as opened:
    turn, page = opened.ask('ask', 'one', number), opened.page
    # The ear: what was given to the loudspeaker is what the model says.
    wave = np.concatenate(
      [talk.assets.codec.decode(p) for p in parts if not isinstance(p, str)]
    )
    played = np.concatenate(page.evaluate('window.played'))
    assert len(played) == len(wave) and np.abs(played).max() > 0.01
    np.testing.assert_allclose(played, wave, atol=2**-15)
    # The eye: words, and a cell for each code.
    text = ''.join(part for part in parts if isinstance(part, str))
    assert turn.locator('.answer').text_content() == text
    codes = np.concatenate([part for part in parts if not isinstance(part, str)])
    titles = turn.locator('.cell:not(.dropped)').evaluate_all('all => all.map(it => it.title)')
    assert [t for t in titles if t.startswith('code')] == [f'code {c}' for c in codes]
    assert turn.locator('.cell.end').count() <= len(talk.assets.vocabulary.spans(tokens))
    assert turn.locator('.token').count() == (~talk.assets.vocabulary.is_audio(tokens)).sum()
    # Watched again, step by step: masks first, and what is revealed stays.
    last = int(turn.locator('.scrub').get_attribute('max'))
    masked = []
    for step in range(1, last + 1):
      turn.locator('.scrub').fill(str(step))
      masked.append(turn.locator('.cell.masked:not(.dropped)').count())
    assert max(masked) == 4 and masked[-1] == 0
    drops = [a - b for a, b in zip(masked, masked[1:]) if a and b]
    assert set(drops) == {2}
    with page.expect_download() as saved:
      turn.locator('.download').click()
    content = pathlib.Path(saved.value.path()).read_bytes()
    assert content[:4] == b'RIFF' and len(content) == 44 + 2 * len(wave)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    # The page is painted in its scheme, and a cell in the colour of its code.
    colours = opened.colours(tmp_path / 'page.png')
    back = re.findall(r'\d+', max(colours, key=colours.get))
    assert max(map(int, back)) < 64 if scheme == 'dark' else min(map(int, back)) > 192
    cells = turn.locator('.cell[title^=code]:not(.dropped)')
    painted = cells.evaluate_all('all => all.map(it => getComputedStyle(it).backgroundColor)')
    assert len(set(painted)) == len(set(codes)) and set(painted) <= set(colours)
    own = f'http://127.0.0.1:{client.port}/'
    assert all(url.startswith((own, 'blob:', 'data:')) for url in opened.asked), opened.asked
    assert not opened.wrong


def test_a_file_and_the_microphone_are_heard(client, browser, tmp_path):
  path = tmp_path / '<i>loud.wav'
  path.write_bytes(wav_of(0.4, 44_100))
  with Page(browser, client) as opened:
    page = opened.page
    page.set_input_files('#file', path)
    page.locator('#clip').wait_for()
    assert page.locator('#clip-name').text_content() == '<i>loud.wav, 0.4 s'
    assert page.locator('input[value=transcribe]').is_checked()
    page.click('#send')
    turn = opened.answer()
    assert '<i>loud.wav' in turn.locator('.question').text_content()
    assert turn.locator('.token').count() > 0
    page.click('#clip-drop')
    page.click('#record')
    page.locator('#record[aria-pressed=true]').wait_for()
    page.wait_for_timeout(3000)  # a busy machine may begin late
    page.click('#record')
    page.locator('#clip').wait_for()
    name = page.locator('#clip-name').text_content()
    recorded = re.fullmatch(r'Recording, (\d+\.\d) s', name)
    assert recorded and float(recorded[1]) > 0
    page.keyboard.press('Enter')  # the button to send has the focus
    sync_api.expect(page.locator('.turn')).to_have_count(2)
    assert opened.answer().locator('.token').count() > 0
    assert not opened.wrong


def test_what_goes_wrong_is_said(client, browser, tmp_path):
  path = tmp_path / 'text.wav'
  path.write_text('no sound')
  with Page(browser, client) as opened:
    page = opened.page
    page.click('#send')
    assert page.locator('#problem').text_content() == 'type something first'
    page.set_input_files('#file', path)
    sync_api.expect(page.locator('#problem')).to_contain_text('no sound')
    opened.ask('speak', 'x' * 3000)
    assert 'max_prompt' in page.locator('#problem').text_content()
    said = '<img src=x onerror="document.title = 1">'
    turn = opened.ask('speak', said)
    assert said in turn.locator('.question').text_content()
    assert page.locator('.turn img').count() == 0 and page.title().startswith('ttt_jax')


def test_a_key_opens_the_page(talk, browser):
  with serving(talk, keys=('s3cret',)) as client:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f'http://127.0.0.1:{client.port}/')
    page.wait_for_selector('.status.bad')
    page.click('summary')
    page.fill('#key', 's3cret')
    page.press('#key', 'Tab')
    page.wait_for_selector('.status.good')
    context.close()


def test_a_codec_that_makes_no_sound_leaves_what_can_be_read(talk, browser, monkeypatch):
  monkeypatch.setattr(type(talk.assets.codec), 'abilities', frozenset({'encode'}))
  with serving(talk) as client, Page(browser, client) as shown:
    assert shown.page.locator('input[name=task]:checked').get_attribute('value') == 'transcribe'
    assert shown.page.locator('input[name=task]:disabled').count() == 2
    assert not shown.wrong
  monkeypatch.setattr(type(talk.assets.codec), 'abilities', frozenset())
  with serving(talk) as client:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f'http://127.0.0.1:{client.port}/')
    page.wait_for_selector('.status.bad')
    assert 'no answers that a page can play' in page.text_content('#status')
    assert page.locator('#send').is_disabled()
    context.close()
