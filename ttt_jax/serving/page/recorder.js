// The microphone.

import {decoded} from './wav.js';

export class Recorder {
  #media = null;
  #stream = null;

  get on() {
    return this.#media !== null;
  }

  /** Begins; `done` gets the samples at `rate` when `stop` is called or time is up. */
  async start(rate, seconds, done, failed) {
    this.#stream = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1}});
    const parts = [];
    this.#media = new MediaRecorder(this.#stream);
    this.#media.ondataavailable = ({data}) => parts.push(data);
    this.#media.onstop = async () => {
      this.#stream.getTracks().forEach((track) => track.stop());
      this.#media = null;
      try {
        const samples = await decoded(await new Blob(parts).arrayBuffer(), rate);
        done(samples.slice(0, Math.floor(seconds * rate)));
      } catch (error) {
        failed(error);
      }
    };
    this.#media.start();
    const own = this.#media; // a later recording has a limit of its own
    setTimeout(() => this.#media === own && this.stop(), 1000 * seconds);
  }

  stop() {
    if (this.#media?.state === 'recording') this.#media.stop();
  }
}
