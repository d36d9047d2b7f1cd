"""Graphs from torch.export and torch.jit.trace work for lengths, batches and padding other than those recorded."""

import pytest
import torch

from fairseq_lambda.modules import LambdaBert, LambdaBertOptions

SHAPE = {"vocab_size": 50, "layers": 3, "embed_dim": 32, "ffn_embed_dim": 64, "heads": 2, "dim_k": 4}
SHAPE |= {"local_context": 7, "max_positions": 40}


class Features(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, padding_mask):
        return self.model(tokens, padding_mask).features


def inputs(batch, length):
    lengths = torch.arange(length, length - batch, -1)
    return torch.randint(3, 50, (batch, length)), torch.arange(length) >= lengths[:, None]


def exported(model, example):
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=40)
    shapes = ({0: batch, 1: length},) * 2
    return torch.export.export(model, example, dynamic_shapes=shapes, strict=False).module()


@pytest.mark.parametrize("record", [exported, torch.jit.trace])
@pytest.mark.parametrize(
    "options",
    [
        {"dim_u": 2, "norm": "rms"},
        {"norm": "batch", "local_context": 0},
        {"lambda_layers": "0,2", "attention_rotary": True, "absolute_positions": "learned"},
    ],
)
def test_a_graph_serves_other_lengths_and_batches(options, record):
    model = Features(LambdaBert(LambdaBertOptions(**SHAPE | options)).eval())
    graph = record(model, inputs(2, 19))
    for batch, length in ((2, 19), (3, 33), (1, 4)):
        tokens, padding_mask = inputs(batch, length)
        ours, theirs = (f(tokens, padding_mask)[~padding_mask] for f in (model, graph))
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_onnxruntime_serves_other_lengths_and_batches(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    small = SHAPE | {"layers": 1, "local_context": 3, "dim_u": 2, "norm": "rms"}
    model = Features(LambdaBert(LambdaBertOptions(**small)).eval())
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=40)
    names = {"input_names": ["tokens", "padding_mask"], "output_names": ["features"]}
    shapes = ({0: batch, 1: length},) * 2
    program = torch.onnx.export(model, inputs(2, 19), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((2, 19), (3, 33), (1, 4)):
        tokens, padding_mask = inputs(*size)
        feeds = {"tokens": tokens.numpy(), "padding_mask": padding_mask.numpy()}
        ours, theirs = model(tokens, padding_mask), torch.from_numpy(session.run(None, feeds)[0])
        torch.testing.assert_close(theirs[~padding_mask], ours[~padding_mask], atol=1e-5, rtol=1e-5)
