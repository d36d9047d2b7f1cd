"""The Triton backend: its kernels, tested in separate processes, and when it is picked or refused."""

import inspect
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comparisons import draw
from processes import ROOT, environment

from fairseq_lambda import ops
from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.ops import _log_choice, lambda_mix, resolve_backend
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.row_norm import row_norm
from fairseq_lambda.ops.triton import self_check, support

CHECKS = Path(__file__).with_name("triton_kernel_checks.py")


def run_checks(interpret: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CHECKS)]
    variables = environment(TRITON_INTERPRET=interpret)
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.skipif(support._why_not_installed() is not None, reason=str(support._why_not_installed()))
def test_kernels_under_the_interpreter():
    run_checks("1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
class TestOnAGPU:
    def test_kernels_compiled(self):
        run_checks("0")

    def test_auto_picks_triton(self):
        queries, _, values, embedding = draw(9, dtype=torch.float32, device="cuda")
        assert resolve_backend("auto", queries, values, embedding) == "triton"


@pytest.fixture
def interpreted(monkeypatch):
    """Pretend that kernels are interpreted: enough for the choice, which does not import Triton."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(support, "_why_not_installed", lambda: None)


def test_without_a_device_it_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(support, "_why_not_installed", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="backend=triton: there is no CUDA device.*TRITON_INTERPRET=1.*banded"):
        LambdaLayer(16, 2, backend="triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    LambdaLayer(16, 2, backend="triton")
    with pytest.raises(ValueError, match="backend=triton: the tensors are on cpu"):
        lambda_mix(*draw(3), backend="triton")


def test_without_the_package_it_is_refused_with_the_reason(interpreted, monkeypatch):
    LambdaLayer(16, 2, backend="triton")
    monkeypatch.setattr(support, "_why_not_installed", lambda: "the package triton is not installed")
    with pytest.raises(ValueError, match="backend=triton: the package triton is not installed"):
        LambdaLayer(16, 2, backend="triton")


def test_an_old_triton_is_refused_with_the_reason(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: spec)
    why_not_installed = inspect.unwrap(support._why_not_installed)  # bypasses the cache
    assert "too old for the kernels, which need 3.4" in why_not_installed()
    (tmp_path / "knobs.py").touch()
    assert why_not_installed() is None


@pytest.mark.parametrize("options,reason", [
    ({"dtype": torch.float64}, "no kernel for torch.float64, only for float32"),
    ({"context": 257}, "the context is global, or longer than local_context=255"),
    ({"dim_k": 129}, "the key depth is above dim_k=128"),
])  # fmt: skip
def test_tensors_that_it_cannot_serve_are_refused_with_the_reason(interpreted, options, reason):
    with pytest.raises(ValueError, match=f"backend=triton: {reason}"):
        lambda_mix(*draw(200, **{"dtype": torch.float32, **options}), backend="triton")


VALUES = torch.zeros(2, 30, 64, 1)


def on_cuda(dtype=torch.bfloat16):
    """A stand-in for queries on a GPU, with the attributes that the choice reads."""
    return SimpleNamespace(device=torch.device("cuda", 0), is_cuda=True, dtype=dtype, shape=(2, 512, 12, 16))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(support, "_why_not_installed", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(ops, "why_wrong", lambda *tensors: None)
    _log_choice.cache_clear()


def test_auto_picks_triton_on_cuda_and_banded_on_the_cpu_and_says_so_once(gpu, caplog):
    caplog.set_level(logging.INFO)
    local, queries = torch.zeros(16, 1, 23), torch.zeros(2, 30, 12, 16)
    for _ in range(3):
        assert resolve_backend("auto", on_cuda(), VALUES, local) == "triton"
        assert resolve_backend("auto", queries, VALUES, local) == "banded"
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "lambda backend auto: using 'triton' on cuda",
        "lambda backend auto: using 'banded' on cpu",
    ]


def test_auto_takes_banded_on_cuda_only_with_the_reason_in_the_log(gpu, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    local = torch.zeros(16, 1, 23)
    assert resolve_backend("auto", on_cuda(torch.float64), VALUES, local) == "banded"
    assert resolve_backend("auto", on_cuda(), VALUES, torch.zeros(16, 1, 1023)) == "banded"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert resolve_backend("auto", on_cuda(), VALUES, local) == "banded"
    monkeypatch.setattr(support, "_why_not_installed", lambda: "the package triton is not installed")
    assert resolve_backend("auto", on_cuda(), VALUES, local) == "banded"
    start = "lambda backend auto: using 'banded' on cuda, not 'triton': "
    reasons = [
        "no kernel for torch.float64",
        "the context is global",
        "the GPU's compute capability is 7",
        "the package",
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4 and all(m.startswith(start + r) for m, r in zip(messages, reasons, strict=True))


@pytest.fixture
def wrong_kernels(gpu, monkeypatch):
    """A GPU whose kernels fail, because this process has no CUDA."""
    monkeypatch.setattr(ops, "why_wrong", self_check.why_wrong)
    monkeypatch.setattr(self_check, "_check", lambda kind: f"its kernels differ from 'banded' for {kind}")
    monkeypatch.setattr(self_check, "_failures", [])
    monkeypatch.setattr(self_check, "_good", set())
    self_check.warn.cache_clear()


def test_auto_takes_banded_from_the_first_wrong_kernel_on_with_one_warning(wrong_kernels, monkeypatch, caplog):
    monkeypatch.setattr(self_check, "_check", lambda kind: None)
    for context in (23, 23, 21):
        assert resolve_backend("auto", on_cuda(), VALUES, torch.zeros(16, 1, context)) == "triton"
    monkeypatch.setattr(self_check, "_check", lambda kind: f"its kernels differ from 'banded' for {kind}")
    for context in (23, 25, 23, 27):  # the first was checked above
        expected = "triton" if context == 23 and not self_check._failures else "banded"
        assert resolve_backend("auto", on_cuda(), VALUES, torch.zeros(16, 1, context)) == expected
    x = torch.zeros(2, 3, 16)
    monkeypatch.setattr("fairseq_lambda.ops.row_norm.norms_rows", lambda x: True)
    assert torch.equal(row_norm(x, torch.ones(16), None, 1e-5, True), x)  # computed by torch
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        "using plain torch instead of Triton: "
        "its kernels differ from 'banded' for bfloat16, heads=12 k=16 v=64 u=1 r=25"
    )


def test_short_texts_need_few_kinds_of_kernels(wrong_kernels, monkeypatch):
    kinds = set()
    monkeypatch.setattr(self_check, "_check", lambda kind: kinds.add(kind.context))
    monkeypatch.setitem(ops._FUNCTIONS, "triton", lambda *tensors: tensors[3].shape[-1])
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for context in (23, 255):
        for length in range(1, 150):
            given = lambda_mix(*draw(length, context=context, batch=1, dtype=torch.float32), backend="triton")
            assert given >= min(2 * length - 1, context)
    assert kinds == {15, 23, 31, 63, 127, 255}


def test_a_shortage_of_memory_says_nothing_about_the_kernels(monkeypatch):
    """It is raised, as anywhere else in a step, and the kernels are checked again when they are next used."""
    outcomes = ["short", "enough"]

    def kernels(kind):
        if outcomes.pop(0) == "short":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lambda_mix_banded

    monkeypatch.setattr(self_check, "_kernels", kernels)
    monkeypatch.setattr(self_check, "_failures", [])
    monkeypatch.setattr(self_check, "_good", set())
    queries, _, values, embedding = draw(9, dtype=torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        self_check.why_wrong(queries, values, embedding)
    assert self_check.why_wrong(queries, values, embedding) is None and outcomes == []


def test_triton_by_name_raises_if_its_kernels_are_wrong(wrong_kernels):
    with pytest.raises(ValueError, match="backend=triton: its kernels differ.*use backend=auto, or backend=banded"):
        resolve_backend("triton", on_cuda(), VALUES, torch.zeros(16, 1, 23))


def test_while_a_graph_is_captured_nothing_is_checked(wrong_kernels, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert resolve_backend("auto", on_cuda(), VALUES, torch.zeros(16, 1, 23)) == "triton"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert resolve_backend("auto", on_cuda(), VALUES, torch.zeros(16, 1, 23)) == "banded"
