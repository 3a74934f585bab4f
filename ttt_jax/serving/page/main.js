// The page: what is asked, and the answers below it.

import {Making} from './making.js';
import {Player, wake} from './player.js';
import {Recorder} from './recorder.js';
import {ask, model, Problem} from './stream.js';
import {decoded, draw, samplesOf, wavOf} from './wav.js';

const find = (id) => document.getElementById(id);
const form = find('form');
const recorder = new Recorder();
const SLOWLY = 120; // milliseconds of a step that is watched again
const HINTS = {
  speak: 'Type what it is to say',
  transcribe: 'Record, or drop a file here',
  ask: 'Type a question, record it, or drop a file here',
};
const TASKS = {speak: 'Speak', transcribe: 'Transcribe', ask: 'Ask'};

let about = null; // what the server has
let clip = null; // samples that were recorded or dropped
let running = null; // the AbortController of the answer under way
let heard = null; // the Player that may be playing

function complain(text) {
  find('problem').textContent = text ?? '';
  find('problem').hidden = !text;
}

function task() {
  return new FormData(form).get('task');
}

// Settings.

const temperature = (value) => (Number(value) ? Number(value).toFixed(2) : 'the likeliest');

const RANGES = {
  steps: (value) => value,
  threshold: (value) => (Number(value) ? Number(value).toFixed(2) : 'off'),
  'text-temperature': temperature,
  'audio-temperature': temperature,
};

function showRanges() {
  for (const [name, tell] of Object.entries(RANGES)) {
    find(`${name}-out`).value = tell(find(name).value);
  }
}

function settings() {
  const wanted = {
    seed: find('seed').value || 0,
    text_temperature: find('text-temperature').value,
    audio_temperature: find('audio-temperature').value,
    steps_per_block: find('steps').value,
    voice: find('voice').value || 0,
  };
  return about.order === 'random' ? wanted : {...wanted, threshold: find('threshold').value};
}

async function connect() {
  const status = find('status');
  try {
    about = await model(find('key').value);
    if (!about.ready) {
      status.textContent = 'warming up';
      about = null;
      setTimeout(connect, 1000);
      return;
    }
    const pace = about.frame_rate === null ? '' : `${about.frame_rate} codes a second, `;
    status.textContent = `${pace}blocks of ${about.block_size}`;
    status.className = 'status good';
    find('steps').max = about.block_size;
    find('steps').value = about.settings.steps_per_block;
    find('threshold').value = about.settings.threshold;
    find('threshold').disabled = about.order === 'random';
    find('text-temperature').value = about.settings.text_temperature;
    find('audio-temperature').value = about.settings.audio_temperature;
    find('said').maxLength = about.limits.text;
    const speaks = about.abilities.includes('stream'); // what is answered here is heard
    const tasks = [...form.elements.task];
    for (const radio of tasks) {
      radio.disabled = !about.voices[radio.value] || !(speaks || radio.value === 'transcribe');
    }
    const able = tasks.filter((radio) => !radio.disabled);
    if (!able.length) throw new Problem('this model has no answers that a page can play');
    if (!able.some((radio) => radio.checked)) able[0].checked = true;
    showRanges();
    choose();
  } catch (error) {
    about = null;
    status.textContent = error instanceof Problem ? error.message : 'the server is not there';
    status.className = 'status bad';
  }
  refresh();
}

function choose() {
  find('said').placeholder = HINTS[task()];
  const count = about?.voices[task()] ?? 0;
  const options = Array.from({length: count}, (_, i) => new Option(`Voice ${i + 1}`, String(i)));
  find('voice').replaceChildren(...options);
  complain(null);
  refresh();
}

// What is said.

function refresh() {
  const speaks = task() === 'speak';
  find('record').disabled = find('file').disabled = speaks || !about;
  find('said').hidden = clip !== null && !speaks;
  find('clip').hidden = clip === null || speaks;
  find('said').disabled = task() === 'transcribe';
  find('send').disabled = !about || running !== null;
  find('stop').hidden = running === null;
}

function take(samples, name) {
  clip = samples;
  if (samples) {
    find('clip-name').textContent = `${name}, ${(samples.length / about.sample_rate).toFixed(1)} s`;
    draw(find('clip-wave'), [samples]);
  }
  complain(null);
  refresh();
}

async function takeFile(file) {
  if (!file || !about) return;
  try {
    if (file.size > 4 * about.limits.body) throw new Problem('this file is too large');
    const samples = await decoded(await file.arrayBuffer(), about.sample_rate);
    const seconds = samples.length / about.sample_rate;
    if (seconds > about.limits.recording) {
      throw new Problem(`it lasts ${seconds.toFixed(1)} s; ${about.limits.recording} s are allowed`);
    }
    if (task() === 'speak') form.elements.task.value = 'transcribe';
    choose();
    take(samples, file.name);
  } catch (error) {
    complain(error instanceof Problem ? error.message : 'this is no sound that the browser can read');
  }
}

async function record() {
  if (recorder.on) {
    recorder.stop();
    return;
  }
  const ended = () => {
    find('record').ariaPressed = 'false';
    find('record').lastElementChild.textContent = 'Record';
  };
  try {
    const {sample_rate: rate, limits} = about;
    const done = (samples) => {
      ended();
      take(samples, 'Recording');
      find('send').focus();
    };
    const failed = () => {
      ended();
      complain('nothing was recorded');
    };
    await recorder.start(rate, limits.recording, done, failed);
    find('record').ariaPressed = 'true';
    find('record').lastElementChild.textContent = 'End';
    complain(null);
  } catch {
    ended();
    complain('the microphone cannot be used; allow it, or take a file');
  }
}

// An answer.

class Turn {
  constructor(question, kind) {
    const card = find('turn').content.cloneNode(true).firstElementChild;
    this.part = (name) => card.querySelector(`.${name}`);
    const label = document.createElement('b');
    label.textContent = TASKS[kind];
    this.part('question').append(label, question);
    this.making = new Making(this.part('making'));
    this.player = new Player(about.sample_rate);
    this.begin = performance.now();
    this.first = null;
    find('log').prepend(card);
    this.part('play').onclick = () => this.replay();
    this.part('again').onclick = () => this.watch();
    this.part('scrub').oninput = ({target}) => this.show(Number(target.value));
  }

  take(name, content) {
    this.making.push(name, content);
    if (name === 'text') this.part('answer').append(content.text);
    if (name === 'audio') {
      this.first ??= (performance.now() - this.begin) / 1000;
      this.part('sound').hidden = false;
      this.player.push(samplesOf(content.pcm));
      draw(this.part('wave'), this.player.parts, this.player.played);
      this.follow();
    }
    if (name === 'error') throw new Problem(content.error);
    if (name === 'done') this.complete = content.complete;
  }

  /** Draws how far it was heard, until it was. */
  follow() {
    if (this.following) return;
    this.following = true;
    const frame = () => {
      const on = this.player.playing;
      draw(this.part('wave'), this.player.parts, this.player.played);
      this.part('play').textContent = on ? 'Stop' : 'Replay';
      if (on) requestAnimationFrame(frame);
      else this.following = false;
    };
    requestAnimationFrame(frame);
  }

  replay() {
    if (this.player.playing) {
      this.player.stop();
    } else {
      heard?.stop();
      heard = this.player;
      this.player.replay();
      this.follow();
    }
  }

  /** Shows its making after so many steps. */
  show(count) {
    this.making.rewind(count);
    this.part('scrub').value = count;
    this.part('where').value = `step ${count} of ${this.making.steps.length}`;
  }

  watch() {
    clearInterval(this.timer);
    let count = 0;
    this.show(0);
    this.timer = setInterval(() => {
      this.show(++count);
      if (count >= this.making.steps.length) clearInterval(this.timer);
    }, SLOWLY);
  }

  end() {
    const seconds = (performance.now() - this.begin) / 1000;
    const {making, player} = this;
    making.close();
    this.part('scrub').max = making.steps.length;
    this.part('scrub').value = making.steps.length;
    this.part('where').value = `${making.steps.length} steps`;
    this.part('timeline').hidden = !making.steps.length;
    const figures = [['text', `${making.tokens} tokens`]];
    if (player.parts.length) {
      figures.push(['sound', `${making.codes} codes, ${player.seconds.toFixed(2)} s`]);
      figures.push(['first sound after', `${this.first.toFixed(2)} s`]);
      figures.push(['speed', `${(player.seconds / seconds).toFixed(1)} × real time`]);
      this.part('download').href = URL.createObjectURL(wavOf(player.parts, player.rate));
    }
    figures.push(['in all', `${seconds.toFixed(2)} s`]);
    if (this.complete === false) figures.push(['note', 'cut short by a limit']);
    for (const [name, value] of figures) {
      const pair = document.createElement('div');
      pair.append(document.createElement('dt'), document.createElement('dd'));
      pair.firstChild.textContent = name;
      pair.lastChild.textContent = value;
      this.part('figures').append(pair);
    }
    this.part('figures').hidden = false;
  }
}

async function send() {
  if (running || !about) return;
  const kind = task();
  const sound = kind !== 'speak' && clip !== null;
  const text = find('said').value.trim();
  if (!sound && (kind === 'transcribe' || !text)) {
    complain(kind === 'transcribe' ? 'record something, or take a file' : 'type something first');
    return;
  }
  complain(null);
  wake(about.sample_rate);
  heard?.stop();
  running = new AbortController();
  refresh();
  const turn = new Turn(sound ? find('clip-name').textContent : text, kind);
  heard = turn.player;
  try {
    const said = sound ? wavOf([clip], about.sample_rate) : text;
    for await (const [name, content] of ask(kind, said, settings(), find('key').value, running.signal)) {
      turn.take(name, content);
    }
    if (turn.complete === undefined) throw new Problem('the answer broke off');
  } catch (error) {
    if (error.name !== 'AbortError') {
      complain(error instanceof Problem ? error.message : 'the connection was lost');
    }
  } finally {
    turn.end();
    running = null;
    refresh();
  }
}

// Events.

form.addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
form.addEventListener('change', ({target}) => {
  if (target.name === 'task') choose();
  if (target.id === 'key') connect();
});
find('said').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener('keydown', ({key}) => {
  if (key !== 'Escape') return;
  running?.abort();
  heard?.stop();
});
find('stop').addEventListener('click', () => running?.abort());
find('record').addEventListener('click', record);
find('file').addEventListener('change', ({target}) => {
  takeFile(target.files[0]);
  target.value = '';
});
find('clip-play').addEventListener('click', () => {
  heard?.stop();
  heard = new Player(about.sample_rate);
  wake(about.sample_rate);
  heard.push(clip);
});
find('clip-drop').addEventListener('click', () => take(null));
for (const name of Object.keys(RANGES)) find(name).addEventListener('input', showRanges);

const drop = find('drop');
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') takeFile(event.dataTransfer.files[0]);
  });
}

connect();
