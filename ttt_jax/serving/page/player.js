// Sound that is played while it is still being made.

const LEAD = 0.08; // seconds between the first samples and their sound

let context = null;

/** Must be called from a click or a key: browsers play nothing before. */
export function wake(rate) {
  if (!context || context.sampleRate !== rate) {
    context?.close();
    context = new AudioContext({sampleRate: rate});
  }
  context.resume();
  return context;
}

export class Player {
  constructor(rate) {
    this.rate = rate;
    this.parts = [];
    this.sources = [];
    this.begin = null; // of the first sample, on the clock of the context
    this.end = 0;
  }

  get seconds() {
    return this.parts.reduce((sum, part) => sum + part.length, 0) / this.rate;
  }

  /** Samples that go on where the last ones ended. */
  push(samples) {
    this.parts.push(samples);
    this.#schedule(samples);
  }

  #schedule(samples) {
    if (!samples.length) return;
    const buffer = context.createBuffer(1, samples.length, this.rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, {buffer});
    source.connect(context.destination);
    this.end = Math.max(this.end, context.currentTime + (this.begin === null ? LEAD : 0));
    this.begin ??= this.end;
    source.start(this.end);
    this.end += buffer.duration;
    this.sources.push(source);
  }

  get playing() {
    return this.begin !== null && context.currentTime < this.end;
  }

  /** What was heard so far, 0 to 1. */
  get played() {
    if (!this.playing) return 1;
    return Math.max(0, (context.currentTime - this.begin) / Math.max(this.seconds, 1e-6));
  }

  stop() {
    this.sources.forEach((source) => source.stop());
    this.sources = [];
    this.begin = null;
    this.end = 0;
  }

  replay() {
    wake(this.rate);
    this.stop();
    this.parts.forEach((part) => this.#schedule(part));
  }
}
