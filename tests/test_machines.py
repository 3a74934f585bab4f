import machines
import pytest


@pytest.mark.parametrize('lacking', [machines.program, machines.package])
def test_what_is_not_here_fails_in_ci_and_is_skipped_elsewhere(lacking, monkeypatch):
  monkeypatch.setenv('CI', 'true')
  with pytest.raises(pytest.fail.Exception, match='there is no such_thing here'):
    lacking('such_thing')
  monkeypatch.delenv('CI')
  with pytest.raises(pytest.skip.Exception, match='there is no such_thing here'):
    lacking('such_thing')


def test_a_package_that_is_broken_is_no_reason_to_skip(tmp_path, monkeypatch):
  (tmp_path / 'broken_thing.py').write_text('import such_thing\n')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delenv('CI', raising=False)
  with pytest.raises(ModuleNotFoundError, match='such_thing'):
    machines.package('broken_thing')
