import dataclasses

import pytest
import sources
import transformers
from conftest import make_config

from ttt_jax.conversion import families, table

BASE = make_config().model


def read(values):
  return families.model_from(values, BASE, 'config.json')[0]


@pytest.mark.parametrize('family', sources.FAMILIES)
def test_settings_come_back_through_transformers(family):
  ours = read(sources.make(family).config.to_dict())
  values = families.config_of(ours, 340, 'float32', 7, 2048)
  cls = getattr(transformers, sources.FAMILIES[family][0] + 'Config')
  theirs = cls.from_dict(values)
  assert theirs.eos_token_id == 7 and theirs.vocab_size == 340
  assert read(theirs.to_dict()) == ours == read(values)


@pytest.mark.parametrize('family', sources.FAMILIES)
def test_older_files_are_read(family):
  values = sources.make(family).config.to_dict()
  wanted = read(values)
  rope = values.pop('rope_parameters')
  values['rope_theta'] = rope.pop('rope_theta')
  kind = rope.pop('rope_type')
  values['rope_scaling'] = None if kind == 'default' else {'type': kind, **rope}
  values['torch_dtype'] = values.pop('dtype')
  assert read(values) == wanted


def test_what_old_files_leave_out_is_what_transformers_takes():
  sizes = {'hidden_size': 64, 'intermediate_size': 8, 'num_hidden_layers': 1}
  sizes |= {'num_attention_heads': 4, 'vocab_size': 10}
  for name in ('Qwen2', 'Qwen3', 'Llama'):
    made = getattr(transformers, name + 'Config')(**sizes, num_key_value_heads=4)
    bare = read({'model_type': name.lower(), **sizes})
    whole = read(made.to_dict())
    assert bare == dataclasses.replace(whole, dtype=bare.dtype), name


@pytest.mark.parametrize(
  'change,said',
  [
    ({'model_type': 'gpt2'}, "model_type is 'gpt2'; known: qwen2, qwen3, llama"),
    ({'hidden_size': None}, 'hidden_size is missing'),
    ({'hidden_act': 'gelu'}, "hidden_act is 'gelu'"),
    ({'use_sliding_window': True}, 'use_sliding_window is True'),
    ({'layer_types': ['sliding_attention']}, 'layer_types'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config'),
    ({'rope_parameters': {'rope_type': 'yarn'}}, "rope_type 'yarn'"),
    ({'rope_parameters': {'rope_type': 'llama3', 'factor': 8.0}}, "needs 'low_freq_factor'"),
    ({'num_key_value_heads': 3}, 'model.kv_heads'),
    ({'num_attention_heads': 'four'}, 'num_attention_heads'),
    ({'num_key_value_heads': 2.0}, 'num_key_value_heads'),
    ({'rms_norm_eps': 'small'}, 'small'),
    ({'rope_parameters': {'rope_theta': 'large'}}, 'large'),
    ({'layer_types': 3}, 'layer_types'),
    ({'model_type': ['qwen2']}, 'model_type'),
    ({'mlp_bias': True}, 'mlp_bias is True'),
    ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor is 0.5'),
  ],
)
def test_what_the_network_does_not_do_is_refused(change, said):
  values = sources.make('qwen2').config.to_dict() | change
  with pytest.raises(table.ConversionError, match='config.json: ') as error:
    read(values)
  assert said in str(error.value)


def test_biases_of_llama_are_refused():
  with pytest.raises(table.ConversionError, match='attention_bias is True'):
    read(sources.make('llama').config.to_dict() | {'attention_bias': True})


def test_a_model_of_no_family_is_not_exported():
  with pytest.raises(table.ConversionError, match='no family'):
    families.family_of(dataclasses.replace(BASE, qkv_bias=True, qk_norm=True))
