"""What is timed in PyTorch as one batch: full shapes of random ids, and padded batches of texts.

Only tensors on the host are made here; page-locked if a GPU will read them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

INPUT_SETS = 4


@dataclass
class Part:
  """One padded input on the host: several sets of ids of one size, and the mask if any is short."""

  ids: list
  mask: torch.Tensor
  full: bool

  @property
  def size(self) -> tuple[int, int]:
    return tuple(self.mask.shape)


@dataclass
class Case:
  """What is timed as one batch."""

  kind: str
  name: str
  parts: list[Part]
  tokens: int
  rows: int
  timed: dict = field(default_factory=dict)
  runs: dict = field(default_factory=dict)

  @property
  def padded(self) -> int:
    """Tokens with padding."""
    return sum(part.mask.numel() for part in self.parts)


def shape_case(rows: int, tokens: int, vocab: int, seed: int, cuda: bool) -> Case:
  generator = torch.Generator().manual_seed(seed)
  sets = [pinned(torch.randint(1000, vocab, (rows, tokens), generator=generator), cuda)
          for _ in range(INPUT_SETS)]
  mask = pinned(torch.ones((rows, tokens), dtype=torch.int64), cuda)
  return Case("shape", f"{rows}x{tokens}", [Part(sets, mask, True)], rows * tokens, rows)


def pinned(tensor: torch.Tensor, cuda: bool) -> torch.Tensor:
  return tensor.pin_memory() if cuda else tensor


def padded(rows: list, pad: int, multiple: int, cuda: bool) -> Part:
  longest = max(len(row) for row in rows)
  longest = -(-longest // multiple) * multiple
  ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
  mask = torch.zeros_like(ids)
  for index, row in enumerate(rows):
    ids[index, :len(row)] = torch.tensor(row)
    mask[index, :len(row)] = 1
  return Part([pinned(ids, cuda)], pinned(mask, cuda), False)


def mix_cases(model: Path, lines: Path, batch: int, pad: int, cuda: bool) -> list[Case]:
  """Two cases for each batch of lines: padded to the longest, and sorted into four parts."""
  tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
  limit = json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"]
  tokenizer.enable_truncation(limit)
  tokenizer.no_padding()
  texts = lines.read_text(encoding="utf-8").splitlines()
  rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
  batches = [rows[start:start + batch] for start in range(0, len(rows), batch)]
  if len(batches) > 1 and len(batches[-1]) < batch:
    batches.pop()
  cases = []
  for number, part in enumerate(batches):
    tokens = sum(map(len, part))
    ordered = sorted(part, key=len)
    cut = -(-len(part) // 4)
    quarters = [padded(ordered[at:at + cut], pad, 8, cuda) for at in range(0, len(part), cut)]
    cases.append(Case("mix", f"mix-{number}", [padded(part, pad, 1, cuda)], tokens, len(part)))
    cases.append(Case("bucketed", f"bucketed-{number}", quarters, tokens, len(part)))
  return cases
