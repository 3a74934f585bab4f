"""Pods for a test, which end with it."""

import pod
import pytest


@pytest.fixture
def make_pod(tmp_path):
  pods = []

  def make(program=pod.ECHO):
    pods.append(pod.Pod(tmp_path, program))
    return pods[-1]

  yield make
  for made in pods:
    made.close()
