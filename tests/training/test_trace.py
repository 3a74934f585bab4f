import jax
import jax.numpy as jnp
import pytest

from ttt_jax.training import trace


def steps_of(folder) -> list[int]:
  """The steps that the trace in a run's folder shows, in order."""
  (path,) = (folder / trace.DIRECTORY).rglob('*.xplane.pb')
  data = jax.profiler.ProfileData.from_file(str(path))
  events = [e for plane in data.planes for line in plane.lines for e in line.events]
  found = [dict(event.stats)['step_num'] for event in events if event.name == 'train']
  return sorted(found)


def run(tracer, numbers, waited):
  step = jax.jit(lambda x: x + 1)
  for number in numbers:
    waited.append(f'before {number}')
    with tracer.before(number):
      step(jnp.float32(number))
    waited.append(f'after {number}')
    tracer.after(number)
  tracer.close()


def test_a_trace_holds_the_chosen_steps_with_the_devices_idle_around_them(tmp_path):
  events = []
  tracer = trace.Tracer(tmp_path, trace.parse('2:3', 5), lambda: events.append('settle'))
  run(tracer, range(1, 6), events)
  assert steps_of(tmp_path) == [2, 3]
  at = [place for place, event in enumerate(events) if event == 'settle']
  assert [events[place - 1] for place in at] == ['before 2', 'after 3']


@pytest.mark.parametrize('numbers,wanted', [(range(3, 5), [3, 4]), (range(1, 3), [2])])
def test_a_run_that_begins_or_breaks_off_among_the_steps_traces_its_part(
  tmp_path, numbers, wanted
):
  run(trace.Tracer(tmp_path, trace.parse('2:4', 5), lambda: None), numbers, [])
  assert steps_of(tmp_path) == wanted


def test_nothing_is_traced_where_nothing_is_asked_for(tmp_path):
  run(trace.Tracer(tmp_path, trace.parse('', 5), lambda: None), range(1, 4), [])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text', ['3', '3:', '0:3', '4:3', '3:6', '-1:3', 'a:b', '1:2:3'])
def test_what_names_no_steps_is_refused(text):
  with pytest.raises(trace.TraceError, match=f'--profile_steps={text}: .* within 1:5'):
    trace.parse(text, 5)
