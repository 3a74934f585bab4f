// Sound as bytes, and back.

const HEAD = 44;

/** A WAV file of 16-bit samples from Float32Arrays that follow each other. */
export function wavOf(parts, rate) {
  const samples = parts.reduce((sum, part) => sum + part.length, 0);
  const view = new DataView(new ArrayBuffer(HEAD + 2 * samples));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, 'RIFF');
  view.setUint32(4, HEAD - 8 + 2 * samples, true);
  word(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, 'data');
  view.setUint32(40, 2 * samples, true);
  let at = HEAD;
  for (const part of parts) {
    for (const sample of part) {
      view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true);
      at += 2;
    }
  }
  return new Blob([view], {type: 'audio/wav'});
}

/** Samples of base64-coded 16-bit PCM. */
export function samplesOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({length: bytes.length / 2}, (_, i) => view.getInt16(2 * i, true) / 32768);
}

/** Samples of any file that the browser can read, one channel at `rate`. */
export async function decoded(content, rate) {
  const there = await new OfflineAudioContext(1, 1, rate).decodeAudioData(content);
  const mono = new OfflineAudioContext(1, Math.max(1, Math.ceil(there.duration * rate)), rate);
  const source = new AudioBufferSourceNode(mono, {buffer: there});
  source.connect(mono.destination);
  source.start();
  return (await mono.startRendering()).getChannelData(0);
}

/** Draws the outline of a sound; `played` of it, 0 to 1, is stronger. */
export function draw(canvas, parts, played = 1) {
  const {width, height} = canvas;
  const context = canvas.getContext('2d');
  const samples = parts.reduce((sum, part) => sum + part.length, 0);
  const columns = Math.floor(width / 4);
  const peaks = new Float32Array(columns);
  let at = 0;
  for (const part of parts) {
    for (const sample of part) {
      const column = Math.min(columns - 1, Math.floor((at++ * columns) / samples));
      peaks[column] = Math.max(peaks[column], Math.abs(sample));
    }
  }
  const top = Math.max(0.05, ...peaks);
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  peaks.forEach((peak, column) => {
    const tall = Math.max(2, (peak / top) * height);
    context.globalAlpha = column < played * columns ? 1 : 0.3;
    context.fillRect(4 * column, (height - tall) / 2, 2.5, tall);
  });
}
