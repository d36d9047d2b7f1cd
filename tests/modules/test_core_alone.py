"""The core works where fairseq and its dependencies cannot be imported: on macOS, on ARM, with transformers."""

import subprocess
import sys

import pytest

WITHOUT_FAIRSEQ = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fairseq", "omegaconf", "hydra", "sentencepiece", "einops", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
"""


def run(code):
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_FAIRSEQ + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_layer_and_model_work_without_fairseq():
    done = run("""
import torch
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions, LambdaLayer
y, content_lambda = LambdaLayer(16, 2)(torch.randn(2, 9, 16), return_lambda=True)
assert y.shape == (2, 9, 16) and content_lambda.shape == (2, 16, 8)
for backend in ("reference", "banded", "fourier"):
    LambdaLayer(16, 2, backend=backend)(torch.randn(2, 9, 16)).sum().backward()
options = LambdaBertOptions(vocab_size=40, layers=2, embed_dim=16, ffn_embed_dim=32, heads=2, lambda_layers="0")
model = LambdaBert(options, sentence_head=True)
out = model(torch.tensor([[0, 5, 2, 2, 6, 2, 1]]), torch.tensor([[False] * 6 + [True]]), return_lambdas=True)
assert model.lm_head(out.features).shape == (1, 7, 40) and model.sentence_head(out.features).shape == (1, 2)
assert [None if x is None else tuple(x.shape) for x in out.lambdas] == [(1, 16, 8), None]
""")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_inspection_works_without_fairseq_and_matplotlib():
    done = run("""
sys.modules["matplotlib"] = None
import torch
from fairseq_lambda.inspection import contributions, leave_one_out, reader
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions
options = LambdaBertOptions(vocab_size=40, layers=2, embed_dim=16, ffn_embed_dim=32, heads=2)
tokens = torch.tensor([0, 5, 7, 6, 2])
assert contributions(LambdaBert(options), tokens, 1).output().shape == (5, 16)
reads = reader(LambdaBert(options))
reads.mask_index = 7
assert leave_one_out(reads, tokens).divergence.shape == (5, 1)
""")
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("part", ["models", "tasks", "criterions"])
def test_what_needs_fairseq_says_what_to_install(part):
    done = run(f"import fairseq_lambda.{part}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError") and 'pip install -e ".[fairseq]"' in last


def test_the_core_imports_quickly():
    """It takes at most 3 s beyond torch's own import, without fairseq; the best of three, as machines may be busy."""
    code = """
import time, torch
begin = time.perf_counter()
from fairseq_lambda.modules import LambdaLayer
print(time.perf_counter() - begin)
"""
    assert min(float(run(code).stdout) for _ in range(3)) < 3
