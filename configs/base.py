"""Every key there is, with its default. Other configs start from this one.

Change a key on the command line by `--config.train.steps=10`. A key that does not stand
here is an error.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The defaults: the paper's objective, and a model that fits a test."""
  c = ml_collections.ConfigDict()
  c.seed = 0  # everything random follows from it
  c.data = _data()
  c.mask = _mask()
  c.objective = _objective()
  c.model = _model()
  c.init = _init()
  c.optimizer = _optimizer()
  c.train = _train()
  c.guard = _guard()
  c.mesh = _mesh()
  c.sampling = _sampling()
  c.evaluation = _evaluation()
  return c.lock()


def _data() -> ml_collections.ConfigDict:
  """Where records come from, and how rows are made of them."""
  d = ml_collections.ConfigDict()
  # Data set of records, as the builders write it, or several with commas between; needed.
  d.directory = ''
  d.cache = ''  # folder for what is computed of the data sets; '': in each of them
  d.split = 'train'
  # Shares of records that several data sets have, such as (3.0, 1.0). (): in proportion to
  # size^(1 / temperature); with temperature 1.0 each record comes once an epoch.
  d.weights = ()
  d.temperature = 1.0
  # Other weights from a step on, such as ((5000, (1.0, 1.0)),). May be added to a run.
  d.changes = ()
  d.row_length = 256  # positions of a packed row
  d.batch_size = 16  # rows of a global batch
  d.window = 8192  # records that are packed together
  d.threads = 2  # that make rows ahead of the step, in each process
  d.workers = 0  # processes that do so beside each process, with such threads; 0: none
  return d


def _mask() -> ml_collections.ConfigDict:
  """What an audio token sees."""
  m = ml_collections.ConfigDict()
  # What a span's tokens see: 'span' all of it, 'block' up to the end of their block. In
  # training the blocks before are then as noisy as their own; in decoding they are clean.
  m.audio = 'span'
  m.block_size = 8  # tokens of a block, where audio = 'block'
  m.causal_prompt = False  # read the user's audio left to right
  return m


def _objective() -> ml_collections.ConfigDict:
  """The diffusion of audio, its weights, and the strategies of training."""
  o = ml_collections.ConfigDict()
  # 'one_stream': the paper's. 'two_stream': clean documents, and behind each a noisy copy of
  # its response audio, in which each span (mask.audio = 'span') or block sees what decoding
  # will show it; needs banom = ppm = 0.
  o.layout = 'one_stream'
  o.copies = 1  # noisy copies of each response span, where layout = 'two_stream'
  o.schedule = 'linear'  # 'linear', 'cosine' or 'polynomial': alpha(t) of the diffusion
  o.power = 2.0  # of the polynomial schedule
  o.epsilon = 1e-3  # the least probability of masking
  # Times are drawn from here; (0.0, 1.0) trains the bound on the likelihood, less of it part.
  o.time_range = (0.0, 1.0)
  o.normalization = 'document'  # 'document': means within each document (the paper), 'token'
  o.banom = 0.3  # probability that a document trains text only, on clean audio
  o.ppm = 0.3  # probability that the spans before a random one stay clean
  o.sst = 0.5  # probability that the last response span is cut
  o.sst_range = (0.3, 0.9)  # to this part of its tokens
  o.sst_above = 10  # if it has more tokens than this
  # Probability that a document which trains audio does so with masks in place of all else, and
  # trains no text: what sampling.guidance needs. 0.1 is usual.
  o.condition_dropout = 0.0
  # Predict text among text-class ids alone, and audio among audio-class ids without the mask.
  o.restrict_classes = False
  o.z_loss = 0.0  # weight of log(Z)^2, which keeps logits from drifting; 1e-4 is usual
  return o


def _model() -> ml_collections.ConfigDict:
  """Shape and numerics of the Transformer."""
  m = ml_collections.ConfigDict()
  m.layers = 2
  m.width = 64
  m.heads = 4
  m.kv_heads = 2
  m.head_width = 16
  m.mlp_width = 192
  m.rope_theta = 10_000.0
  m.rope_scaling = 'none'  # 'linear', or 'llama3': slows the slow frequencies by rope_factor
  m.rope_factor = 1.0
  m.rope_low_turns = 1.0  # 'llama3': frequencies of fewer turns in the original length are
  m.rope_high_turns = 4.0  # slowed, of more are kept
  m.rope_original_length = 8192
  m.norm_epsilon = 1e-6
  m.qkv_bias = True  # Qwen2
  m.qk_norm = False  # Qwen3
  m.tied = True  # the output layer is the embedding
  m.vocabulary_multiple = 64  # the embedding's rows are padded to a multiple of it
  m.dtype = 'bfloat16'  # of activations and matrix products; parameters are float32
  # In which devices add up the gradients of weights; 'bfloat16' halves what they send.
  m.reduce_dtype = 'float32'
  # What the backward pass of a layer computes anew: 'full' all of it; 'attention' all but
  # attention itself; 'gate' all but that and the product with the gate, the widest; 'products'
  # what lies between the products with weights; 'none' nothing.
  m.remat = 'full'
  # 'dense': the whole matrix of scores; 'chunked': linear in memory, anywhere; 'tpu', 'gpu':
  # kernels; 'auto': the kernel of the platform, or on a CPU what is faster for the length.
  m.attention = 'auto'
  m.loss_chunk = 512  # targets, on each device, whose logits exist at a time
  return m


def _init() -> ml_collections.ConfigDict:
  """What a new run starts from."""
  i = ml_collections.ConfigDict()
  i.checkpoint = ''  # folder of a run whose parameters a new one starts from; '': random ones
  return i


def _optimizer() -> ml_collections.ConfigDict:
  """The rule of updates."""
  o = ml_collections.ConfigDict()
  o.name = 'adamw'  # or 'muon': Muon on the layers' matrices, AdamW on the rest
  o.learning_rate = 1e-3  # at its peak
  o.final_fraction = 0.05  # of the peak, where the cosine ends
  o.warmup_steps = 100
  o.beta1 = 0.9
  o.beta2 = 0.95
  o.muon_beta = 0.95  # momentum of Muon
  o.weight_decay = 0.01  # on matrices only
  o.clip_norm = 1.0  # of the whole gradient
  return o


def _train() -> ml_collections.ConfigDict:
  """How long, and what is kept."""
  t = ml_collections.ConfigDict()
  t.steps = 1000
  t.freeze = ''  # regex on names such as 'layers/attention/q': what it finds stays as it is
  t.accumulate = 1  # parts of a batch, one after the other: the same step in less memory
  t.log_every = 20
  t.checkpoint_every = 500
  t.keep = 2  # latest checkpoints that are kept
  t.keep_every = 0  # a multiple of checkpoint_every, whose multiples stay too; 0: none
  return t


def _guard() -> ml_collections.ConfigDict:
  """What a run does about faults (docs/running.md)."""
  g = ml_collections.ConfigDict()
  # Updates that are skipped, since loss or gradient are no numbers or a spike, before the run
  # ends; every so many steps one more may be.
  g.skips = 10
  g.refill = 1000
  g.loss_spike = 0.0  # times the mean of the last steps: above it an update is skipped; 0: off
  g.gradient_spike = 0.0  # likewise for the norm of the gradient
  # Seconds in which no step, save, evaluation or restore ends: then the run does.
  g.hang = 1800.0
  g.grace = 100.0  # seconds from SIGTERM, an error or the last step to the end of the process
  g.failures = 5  # without a new checkpoint between them, after which --supervise gives up
  g.backoff = 10.0  # seconds until --supervise starts a run again; doubles with each failure
  return g


def _mesh() -> ml_collections.ConfigDict:
  """Devices along each axis; -1: all that are left."""
  m = ml_collections.ConfigDict()
  m.slices = 1  # of a TPU, joined by the data-centre network; rows are cut among them
  m.data = -1
  m.outer = 1  # of the state too, beside fsdp: a second ring of the torus (docs/scaling.md)
  m.fsdp = 1  # of the state: parameters and moments
  m.sequence = 1  # of the positions of a row
  m.tensor = 1
  return m


def _sampling() -> ml_collections.ConfigDict:
  """How answers are decoded."""
  s = ml_collections.ConfigDict()
  s.block_size = 8  # audio tokens that are decoded in parallel
  s.steps_per_block = 4
  s.order = 'confidence'  # reveal first what the model is surest of, or in 'random' order
  # Above 0: a step reveals all tokens of a block whose probability is over it, one at least,
  # whatever steps_per_block says.
  s.threshold = 0.0
  # Above 0: audio is drawn by given + guidance * (given - bare), logits with and without the
  # condition. A pass then reads twice the rows. Train with objective.condition_dropout for it.
  s.guidance = 0.0
  s.text_temperature = 0.0  # 0 takes the most likely token
  s.audio_temperature = 0.0
  s.top_k = 0  # above temperature 0: draw among so many of the likeliest only; 0: among all
  s.top_p = 1.0  # likewise: among the likeliest that together have this probability
  s.max_text = 64  # text tokens of an answer
  s.max_audio = 512  # audio tokens of one span
  s.max_prompt = 8192  # tokens of a prompt
  s.batch = 32  # prompts that are answered at a time
  return s


def _evaluation() -> ml_collections.ConfigDict:
  """How a model is judged while it is trained."""
  e = ml_collections.ConfigDict()
  e.every = 0  # steps between evaluations, of which one is at the end; 0: none
  e.suite = ''  # file of tasks and metrics (docs/evaluation.md)
  return e
