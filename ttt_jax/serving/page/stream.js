// Requests, and answers as server-sent events.

/** What went wrong, in words for people. */
export class Problem extends Error {}

function headersOf(key, more = {}) {
  return key ? {...more, Authorization: `Bearer ${key}`} : more;
}

async function refuse(response) {
  let text = `${response.status} ${response.statusText}`;
  try {
    text = (await response.json()).error ?? text;
  } catch {
    // It was no JSON.
  }
  if (response.status === 429) text += ` (in ${response.headers.get('retry-after')} s)`;
  throw new Problem(text);
}

/** What the server has. */
export async function model(key) {
  const response = await fetch('v1/model', {headers: headersOf(key)});
  return response.ok ? response.json() : refuse(response);
}

/**
 * Asks, and gives each event as [name, content].
 * `said` is text or a Blob of a WAV file; `settings` go in the query.
 */
export async function* ask(task, said, settings, key, signal) {
  const text = typeof said === 'string';
  const response = await fetch(`v1/${task}?${new URLSearchParams({...settings, blocks: true})}`, {
    method: 'POST',
    headers: headersOf(key, {
      Accept: 'text/event-stream',
      'Content-Type': text ? 'application/json' : 'audio/wav',
    }),
    body: text ? JSON.stringify({text: said}) : said,
    signal,
  });
  if (!response.ok) await refuse(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const events = (rest + part.value).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      const [name, data] = event.split('\n').map((line) => line.slice(line.indexOf(':') + 2));
      yield [name, JSON.parse(data)];
    }
  }
}
