// The making of an answer, as a picture: words one by one, sound block by block.
//
// It is a function of the steps so far, so that it can be watched again.

const TURN = 137.508; // degrees: neighbours among codes get colours far apart

const MARKS = {sound: '\u25b8 sound', end: '\u25a0 end'};

function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Making {
  #box;
  #open = null; // the block that is being revealed

  constructor(box) {
    this.#box = box;
    this.steps = [];
    this.tokens = 0;
    this.codes = 0;
  }

  /** Takes an event, and shows it; false if there is nothing to see in it. */
  push(name, content) {
    if (name !== 'text' && name !== 'block') return false;
    if (name === 'text' && !content.tokens && !content.text) return false;
    this.steps.push([name, content]);
    this.#show(name, content);
    if (name === 'text') this.tokens += content.tokens;
    if (name === 'block' && content.final) this.codes += content.codes.length;
    this.#box.ariaLabel = `${this.tokens} tokens of text and ${this.codes} of sound`;
    return true;
  }

  /** Shows it as it was after `count` steps. */
  rewind(count) {
    this.#box.replaceChildren();
    this.#open = null;
    this.steps.slice(0, count).forEach(([name, content]) => this.#show(name, content));
  }

  #show(name, content) {
    if (name === 'text') {
      this.#write(content);
    } else {
      this.#reveal(content);
    }
  }

  #write({text, mark}) {
    // A token may open a span of sound, end the turn, or be a part of a character.
    const chip = element('span', 'token fresh', MARKS[mark] ?? (text || '\u00b7'));
    chip.classList.toggle('silent', mark !== null || !text.trim());
    this.#box.append(chip);
  }

  #reveal({codes, final}) {
    if (!this.#open) {
      const block = element('span', 'block open');
      block.append(element('span', 'cells'), element('span', 'steps'));
      this.#open = {block, cells: [], steps: 0};
      this.#box.append(block);
    }
    const {block, cells} = this.#open;
    const row = block.firstChild;
    const ended = codes.indexOf('end');
    codes.forEach((code, place) => {
      const cell = cells[place] ?? row.appendChild(element('i', 'cell masked'));
      cells[place] = cell;
      if (code !== null && cell.classList.contains('masked')) {
        cell.className = code === 'end' ? 'cell end fresh' : 'cell fresh';
        if (code !== 'end') cell.style.setProperty('--hue', String((code * TURN) % 360));
        cell.title = code === 'end' ? 'end of the sound' : `code ${code}`;
      }
      cell.classList.toggle('dropped', ended >= 0 && place > ended);
    });
    if (codes.some((code) => code !== null)) block.lastChild.append(element('i', ''));
    if (final) {
      // A block is cut at the end of the sound: what follows is dropped.
      cells.slice(codes.length).forEach((cell, place) => {
        cell.className = place ? 'cell masked dropped' : 'cell end';
        cell.title = place ? 'dropped' : 'end of the sound';
      });
      block.classList.remove('open');
      this.#open = null;
    }
  }

  /** The answer has ended: nothing is open any more. */
  close() {
    this.#open?.block.classList.remove('open');
    this.#open = null;
  }
}
