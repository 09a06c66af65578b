#!/usr/bin/env python3
"""How many texts a second onnxruntime turns into vectors: the counterpart of `inference/examples/embed.rs`, with the
same arguments, tokens and output.

The graph is made here from the model's own weights, in the operators that onnxruntime's optimizer makes of an export
of BERT: fused attention, sums normalised in one operator, GELU with its bias.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FUSED = "com.microsoft"
# As in embed.rs.
WORDS, DIFFERENT, SHOWN = 1996, 20_000, 16
FIRST, LAST = 101, 102


def weights(folder):
    """The tensors of a safetensors file, which has 32-bit numbers only."""
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    found = {}
    for name, info in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__" or info["dtype"] != "F32":
            continue
        begin, end = (8 + size + offset for offset in info["data_offsets"])
        found[name.removeprefix("bert.")] = np.frombuffer(raw[begin:end], "<f4").reshape(info["shape"])
    return found


class Graph:
    """Operators and constants, in order."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind, *inputs, domain="", outputs=1, **attributes):
        names = [f"n{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0]


def bert(folder):
    """The model as bytes: ids [batch, tokens] and places [1, tokens] to vectors [batch, width]."""
    tensors = weights(folder)
    config = json.loads((folder / "config.json").read_text())
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    graph = Graph()

    def linear(x, name):
        return graph.op("MatMul", x, graph.constant(tensors[f"{name}.weight"].T))

    def norm(x, skip, name, bias):
        parts = (graph.constant(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.op("SkipLayerNormalization", x, skip, *parts, *bias, domain=FUSED, epsilon=epsilon)

    words = graph.op("Gather", graph.constant(tensors["embeddings.word_embeddings.weight"]), "ids")
    table = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    # Every text of a batch has the same positions.
    rows = graph.op("Expand", graph.op("Gather", graph.constant(table), "places"), graph.op("Shape", words))
    x = norm(words, rows, "embeddings.LayerNorm", ())
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        own = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        matrix = graph.constant(np.concatenate([tensors[f"{part}.weight"].T for part in own], axis=1))
        bias = graph.constant(np.concatenate([tensors[f"{part}.bias"] for part in own]))
        heard = graph.op("Attention", x, matrix, bias, domain=FUSED, num_heads=heads)
        out = f"{at}.attention.output"
        bias = graph.constant(tensors[f"{out}.dense.bias"])
        x = norm(linear(heard, f"{out}.dense"), x, f"{out}.LayerNorm", (bias,))
        bias = graph.constant(tensors[f"{at}.intermediate.dense.bias"])
        up = graph.op("BiasGelu", linear(x, f"{at}.intermediate.dense"), bias, domain=FUSED)
        bias = graph.constant(tensors[f"{at}.output.dense.bias"])
        x = norm(linear(up, f"{at}.output.dense"), x, f"{at}.output.LayerNorm", (bias,))
    mean = graph.op("ReduceMean", x, graph.constant(np.array([1], np.int64)), keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["vectors"], axis=-1, p=2))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])
    places = helper.make_tensor_value_info("places", TensorProto.INT64, [1, "tokens"])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", config["hidden_size"]])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bert", [ids, places], [vectors], graph.constants),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(FUSED, 1)],
        ir_version=10,
    )
    return model.SerializeToString()


def text(index, tokens):
    """The same tokens as on the engine's side, which adds the marks at both ends itself."""
    at = (index * 512 + np.arange(tokens - 2, dtype=np.uint64)).astype(np.uint32)
    mixed = at * np.uint32(2_654_435_761) + np.uint32(12_345)
    return np.concatenate([[FIRST], WORDS + (mixed >> np.uint32(8)) % DIFFERENT, [LAST]]).astype(np.int64)


def batch_of(count, tokens):
    return {"ids": np.stack([text(index, tokens) for index in range(count)]), "places": np.arange(tokens)[None]}


def measure(session, batch, tokens, budget):
    ids = batch_of(batch, tokens)
    session.run(None, ids)
    end, samples = time.monotonic() + budget, []
    while not samples or time.monotonic() < end:
        start = time.perf_counter()
        session.run(None, ids)
        samples.append((time.perf_counter() - start) * 1e3)
    return {"ms": statistics.median(samples), "best_ms": min(samples), "rounds": len(samples)}


def main():
    folder, threads, seconds, *cases = sys.argv[1:]
    start = time.monotonic()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(bert(Path(folder)), options, providers=["CPUExecutionProvider"])
    line = {
        "side": f"onnxruntime {onnxruntime.__version__}",
        "threads": int(threads),
        "load_ms": (time.monotonic() - start) * 1e3,
    }
    for case in cases:
        batch, tokens = map(int, case.split(":"))
        line[case] = measure(session, batch, tokens, float(seconds))
    line["vector"] = session.run(None, batch_of(1, SHOWN))[0][0].tolist()
    print(json.dumps(line))


if __name__ == "__main__":
    main()
