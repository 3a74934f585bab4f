"""ttt_jax: one Transformer that reads, listens and speaks.

A JAX implementation of TtT, "From Text to Talk: Audio-Language Model Needs
Non-Autoregressive Joint Training" (arXiv 2509.20072): text is modelled left to right,
audio by absorbing discrete diffusion inside spans, by one network and one cross-entropy.

Axes, as docstrings and einsum strings name them:

  B  rows of a batch               N  query heads
  L  positions of a row            K  key/value heads (N is a multiple of K)
  S  positions of keys, or samples G  query heads a key/value head, N / K
     of a waveform                 H  width of a head
  D  width of the model            F  width of the feed-forward layer
  V  rows of the vocabulary        T  audio tokens of one clip (frames)

Words (document, span, row, order group, ...) are explained in docs/design.md.
"""
