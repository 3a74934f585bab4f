"""Plans for people: one in full, many as a table and a picture, and what to change."""

from collections.abc import Sequence

from ttt_jax.model import formula
from ttt_jax.pages import markup
from ttt_jax.pages.markup import element
from ttt_jax.planning.plan import Plan

GIB = 2**30


def text(plan: Plan) -> str:
  """A plan in full."""
  rows, length, parts = plan.batch
  per_position = plan.needed / plan.positions
  state, temporaries = plan.state / GIB, plan.temporaries / GIB
  share = plan.used / plan.memory
  lines = [
    f'{plan.topology}: {plan.devices} device{"s" * (plan.devices > 1)}, {mesh(plan)}; '
    f'a batch of {rows} rows of {length:,} in {parts} part{"s" * (parts > 1)}; '
    f'remat {plan.remat!r}',
    f'supposed     a position sees {plan.rows.visible:,.0f} keys, {plan.rows.targets:.0%} of '
    f'positions are targets, {plan.rows.fill:.1%} are filled',
    f'parameters   {plan.parameters / 1e9:.3g} G',
    f'memory       {plan.used / GIB:.2f} GiB of {plan.memory / GIB:.2f} a device '
    f'({share:.0%}): state {state:.2f}, temporaries {temporaries:.2f}: '
    f'{"fits" if plan.fits else "DOES NOT FIT"}',
    f'operations   {per_position / 1e9:.4g} G a position by the formula',
  ]
  if plan.compiled:
    lines[-1] += f'; compiled are {plan.compiled / plan.needed:.3f} times as many'
    lines += _sent(plan)
    lines += [
      f'at least     {_seconds(plan.seconds)} a step, bound by {_binding(plan)}: '
      + ', '.join(f'{name} {_seconds(value)}' for name, value in plan.bounds.items()),
      f'at most      MFU {plan.mfu:.0%}, {plan.tokens_per_second:,.0f} tokens a second',
    ]
  elif plan.fits:
    lines.append('unknown      work and traffic: the compiler gives no text of this program')
  if not plan.fits:
    lines += ['to change'] + [f'  {advice}' for advice in mend(plan)]
  lines += ['', formula.TEXT, "MFU = operations / (seconds * the chip's peak in bfloat16)"]
  return '\n'.join(lines)


def mesh(plan: Plan) -> str:
  """The axes that cut something."""
  cut = [f'{axis}={size}' for axis, size in plan.mesh.items() if size > 1]
  return 'mesh ' + (' '.join(cut) or 'of one')


def _sent(plan: Plan) -> list[str]:
  whole = sum(t.sent for t in plan.traffic)
  lines = [
    f'sent         {whole / 1e9:.3g} GB a device and step; FSDP must send '
    f'{plan.least_sent / 1e9:.3g}'
  ]
  for item in sorted(plan.traffic, key=lambda t: -t.sent):
    if item.sent > whole / 1000:
      axes = '+'.join(item.axes)
      lines.append(f'  {item.kind:<20} {axes:<14} {item.dtype:<5} {item.sent / 1e9:9.3g} GB')
  return lines


def _binding(plan: Plan) -> str:
  return max(plan.bounds, key=plan.bounds.get)


def _seconds(value: float) -> str:
  return f'{value:.3g} s' if value >= 1 else f'{1e3 * value:.3g} ms'


def mend(plan: Plan) -> list[str]:
  """What may make a plan fit, the cheapest first."""
  rows, length, parts = plan.batch
  sizes = plan.mesh
  ways = plan.devices // (sizes['sequence'] * sizes['tensor'])
  here = rows // ways
  out = []
  if here > parts:
    out.append(f'--config.train.accumulate={here}: one row a device at a time')
  if plan.remat != 'full':
    out.append('--config.model.remat=full: keep nothing of a layer but its input')
  if sizes['data'] > 1:
    fsdp = sizes['data'] * sizes['fsdp']
    out.append(f'--config.mesh.data=1 --config.mesh.fsdp={fsdp}: cut the state further')
  sequence, axis = 2 * sizes['sequence'], 'data' if sizes['data'] > 1 else 'fsdp'
  if sizes[axis] % 2 == 0 and length % sequence == 0:
    out.append(
      f'--config.mesh.sequence={sequence} --config.mesh.{axis}={sizes[axis] // 2} '
      f'--config.train.accumulate={2 * here}: {length // sequence:,} positions at a time'
    )
  if plan.state > plan.memory / 2:
    out.append('more devices: the state alone is more than half of the memory')
  return out


def table(plans: Sequence[Plan]) -> str:
  """Plans in Markdown, in the order given."""
  lines = [
    '| topology | mesh | batch | remat | GiB | fits | operations | sent GB | bound by | MFU |'
    ' tokens/s |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for plan in plans:
    rows, length, parts = plan.batch
    cells = [plan.topology, mesh(plan).removeprefix('mesh '), f'{rows} × {length:,} / {parts}']
    cells += [plan.remat, f'{plan.used / GIB:.2f}', f'{plan.used / plan.memory:.0%}']
    if plan.compiled:
      sent = sum(t.sent for t in plan.traffic) / 1e9
      cells += [f'{plan.compiled / plan.needed:.3f}', f'{sent:.3g}', _binding(plan)]
      cells += [f'{plan.mfu:.0%}', f'{plan.tokens_per_second:,.0f}']
    else:
      cells += ['–'] * 5
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def ranked(plans: Sequence[Plan]) -> list[Plan]:
  """Those that fit by their tokens a second, then those of which less is known, then others."""

  def place(plan: Plan):
    known = bool(plan.compiled)
    return not plan.fits, not known, -plan.tokens_per_second if known else plan.used

  return sorted(plans, key=place)


_LINE, _BAR, _LETTER = 26, 300, 7
_STYLE = (
  'text{font:12px sans-serif;fill:#222}.state{fill:#4466aa}.rest{fill:#99bbdd}'
  '.mfu{fill:#55a868}.limit{stroke:#c44e52;stroke-width:2}.over{fill:#dd8888}'
)


def drawing(plans: Sequence[Plan]) -> str:
  """An SVG file: of each plan the memory against what there is, and the highest MFU."""
  most = max(max(plan.used, plan.memory) for plan in plans)
  labels = [
    f'{plan.topology} {mesh(plan)[5:]} {plan.batch[0]}×{plan.batch[1]} {plan.remat}'
    for plan in plans
  ]
  left = _LETTER * max(map(len, labels)) + 16
  right = left + _BAR + 30
  parts = [
    element('style', _STYLE),
    element('text', 'memory of a device: state, temporaries, limit', x=left, y=16),
    element('text', 'highest MFU', x=right, y=16),
  ]
  for number, (plan, label) in enumerate(zip(plans, labels)):
    y = 28 + number * _LINE
    state, used, limit = (
      round(_BAR * part / most, 1) for part in (plan.state, plan.used, plan.memory)
    )
    rest = 'rest' if plan.fits else 'over'
    parts += [
      element('text', label, x=8, y=y + 13),
      element('rect', class_='state', x=left, y=y, width=state, height=16),
      element(
        'rect', class_=rest, x=left + state, y=y, width=round(used - state, 1), height=16
      ),
      element('line', class_='limit', x1=left + limit, x2=left + limit, y1=y - 3, y2=y + 19),
    ]
    if plan.compiled:
      width = round(100 * plan.mfu, 1)
      parts += [element('rect', class_='mfu', x=right, y=y, width=width, height=16)]
      parts += [element('text', f'{plan.mfu:.0%}', x=right + width + 4, y=y + 13)]
  box = f'0 0 {right + 150} {40 + len(plans) * _LINE}'
  made = element('svg', *parts, viewBox=box, xmlns='http://www.w3.org/2000/svg')
  return str(markup.Html(made))
