"""The text of a compiled program: its computations, and how often each of them runs.

XLA's own analysis of costs counts the body of a loop once, however often it is run. Here loops
are followed: how often one runs is read from its condition.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_HEADER = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = ')
_ARRAY = re.compile(r'\b(pred|[suf]\d+|bf16|f8\w+|c\d+)\[([\d,]*)\]')
_OPERAND = re.compile(r'%([\w.-]+)')
_CALLED = re.compile(r'\b(?:to_apply|calls|branch_computations)=\{?((?:%[\w.-]+(?:, )?)+)\}?')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  Attributes:
    name: of the result.
    shapes: (dtype, dimensions) of the arrays of the result, several if it is a tuple.
    opcode: such as 'dot'.
    operands: names of the operands.
    attributes: the rest of the line.
    root: whether it is the result of its computation.
  """

  name: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @property
  def bytes(self) -> int:
    """Size of the result; of a started operation, of what it will yield."""
    shapes, count = self.shapes, len(self.operands)
    # Most begin with their operands, and end with what only the device needs.
    if self.opcode.endswith('-start') and self.opcode != 'all-reduce-start':
      shapes = shapes[count : 2 * count]
    return sum(size_of(*shape) for shape in shapes)


def size_of(dtype: str, dimensions: tuple[int, ...]) -> int:
  """Bytes of an array, without the padding of tiles."""
  bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])
  return math.prod(dimensions) * bits // 8


class Program:
  """A program of a compiled function, as its `as_text()` gives it."""

  def __init__(self, text: str):
    """Reads the text.

    Raises:
      ValueError: it has no entry.
    """
    self._computations: dict[str, dict[str, Instruction]] = {}
    self._entry = body = None
    for line in text.splitlines():
      if header := _HEADER.match(line):
        body = self._computations.setdefault(header[2], {})
        self._entry = header[2] if header[1] else self._entry
      elif body is not None and (found := _INSTRUCTION.match(line)):
        instruction = _parse(found[1], line[found.end() :], 'ROOT' in line[: found.end()])
        body[instruction.name] = instruction
    if self._entry is None:
      raise ValueError('this is not the text of a compiled program: it has no ENTRY')

  def computations(self, open_loop: float) -> Iterator[tuple[str, dict, float]]:
    """All that runs: the name of a computation, its instructions by name, how often it runs.

    Args:
      open_loop: how often a loop runs whose end is known only then.
    """
    for name, times in self._runs(open_loop).items():
      yield name, self._computations[name], times

  def _runs(self, open_loop: float) -> dict[str, float]:
    """How often each computation runs."""
    runs = collections.Counter()

    def visit(name: str, times: float) -> None:
      runs[name] += times
      for instruction in self._computations[name].values():
        if instruction.opcode == 'while':
          parts = dict(re.findall(r'(condition|body)=%?([\w.-]+)', instruction.attributes))
          count = self._trips(instruction, name, **parts)
          count = open_loop if count is None else count
          visit(parts['body'], times * count)
          visit(parts['condition'], times * (count + 1))
        else:
          for called in _CALLED.findall(instruction.attributes):
            for each in _OPERAND.findall(called):
              visit(each, times)

    visit(self._entry, 1.0)
    return runs

  def _trips(self, loop: Instruction, within: str, condition: str, body: str) -> int | None:
    """How often a loop runs; None if that is not written in the program."""
    test = self._computations[condition]
    root = next(i for i in test.values() if i.root)
    if root.opcode == 'fusion':  # of the comparison alone
      inner = self._computations[_OPERAND.findall(_CALLED.search(root.attributes)[1])[0]]
      compare = next(i for i in inner.values() if i.root)
      places = [int(inner[o].attributes) for o in compare.operands]
      operands = [root.operands[place] for place in places]
    else:
      compare, operands = root, root.operands
    if compare.opcode != 'compare' or 'direction=LT' not in compare.attributes:
      return None
    index, limit = (test[operand] for operand in operands)
    if limit.opcode != 'constant' or index.opcode != 'get-tuple-element':
      return None
    place = int(re.search(r'index=(\d+)', index.attributes)[1])
    start = self._constant(within, loop.operands[0], place)
    step = self._step(body, place)
    return -(-(int(limit.attributes) - start) // step)

  def _constant(self, computation: str, tuple_name: str, place: int) -> int:
    """The constant at a place of a tuple; 0 if it is none."""
    body = self._computations[computation]
    made = body[tuple_name]
    value = body.get(made.operands[place]) if made.opcode == 'tuple' else None
    while value is not None and value.opcode == 'copy':
      value = body.get(value.operands[0])
    return int(value.attributes) if value is not None and value.opcode == 'constant' else 0

  def _step(self, computation: str, place: int) -> int:
    """By how much the body of a loop moves the index at a place of its tuple; 1 if unknown."""
    body = self._computations[computation]
    root = next(i for i in body.values() if i.root)
    value = body.get(root.operands[place]) if root.opcode == 'tuple' else None
    total = 0
    while value is not None and value.opcode == 'add':
      constants = [o for o in value.operands if body[o].opcode == 'constant']
      others = [o for o in value.operands if o not in constants]
      if len(constants) != 1 or len(others) != 1:
        break
      total += int(body[constants[0]].attributes)
      value = body[others[0]]
    return max(total, 1)


def _parse(name: str, rest: str, root: bool) -> Instruction:
  """An instruction from what stands behind its name: type, opcode, operands, attributes."""
  end = _closing(rest) + 1 if rest.startswith('(') else rest.index(' ')
  shapes = tuple(
    (dtype, tuple(int(n) for n in dims.split(',') if n))
    for dtype, dims in _ARRAY.findall(rest[:end])
  )
  rest = rest[end:].lstrip()
  opcode, rest = rest[: rest.index('(')], rest[rest.index('(') :]
  end = _closing(rest)
  operands, attributes = rest[1:end], rest[end + 1 :].lstrip(', ')
  if opcode in ('constant', 'parameter'):  # the value, or the number, is what there is to know
    return Instruction(name, shapes, opcode, (), operands, root)
  return Instruction(name, shapes, opcode, tuple(_OPERAND.findall(operands)), attributes, root)


def _closing(text: str) -> int:
  """Where the bracket closes with which `text` begins."""
  depth = 0
  for place, letter in enumerate(text):
    depth += {'(': 1, ')': -1}.get(letter, 0)
    if not depth:
      return place
  raise ValueError(f'a bracket is not closed: {text[:80]}')
