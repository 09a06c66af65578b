"""The rows of Hugging Face transformers for scripts/gpu-check: the same shapes in bf16, random weights, same rounds."""

import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

PROMPT, STEPS, ROUNDS = 128, 32, 3
SHAPES = {
    "SmolLM2-135M": dict(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, vocab_size=49152, rope_theta=100_000.0,
    ),
    "random-1b": dict(
        hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, vocab_size=128256, rope_theta=500_000.0,
    ),
}


def seconds_since(began):
    torch.cuda.synchronize()
    return time.perf_counter() - began


def bandwidth():
    """Bytes a second that the card reads and writes at best: adding a number to many, both ways counted."""
    many = torch.zeros(1 << 28, dtype=torch.float32, device="cuda")
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        more = many + 1.0
        best = min(best, seconds_since(began))
        del more
    return 2 * many.numel() * 4 / best


@torch.inference_mode()
def measured_round(model, batch):
    """Seconds of all prompts, one after the other, and of a decode step of all sequences together."""
    prompt = (3 + torch.arange(PROMPT, device="cuda") * 7919 % 250).unsqueeze(0)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(batch):
        model(prompt, use_cache=True, logits_to_keep=1)
    prompts = seconds_since(began)
    out = model(prompt.expand(batch, -1), use_cache=True, logits_to_keep=1)
    token = prompt[:, :1].expand(batch, -1)
    for step in range(2 * STEPS):
        if step == STEPS:
            torch.cuda.synchronize()
            began = time.perf_counter()
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
        out.logits.float().cpu()
    return prompts, seconds_since(began) / STEPS


def main():
    best = bandwidth()
    for name, shape in SHAPES.items():
        config = LlamaConfig(tie_word_embeddings=True, max_position_embeddings=4096, **shape)
        model = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
        weights = sum(parameter.numel() for parameter in model.parameters())
        head = config.hidden_size // config.num_attention_heads
        kv_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2
        for batch in (1, 8, 32):
            rounds = [measured_round(model, batch) for _ in range(1 + ROUNDS)][1:]
            prompts = statistics.median(prompts for prompts, _ in rounds)
            step = statistics.median(step for _, step in rounds)
            read = weights * 2 + batch * (PROMPT + STEPS + STEPS // 2) * kv_token
            print(
                f"| transformers, {torch.cuda.get_device_name()} | {name} | BF16 | {batch} | {batch * PROMPT / prompts:.0f} "
                f"| {batch / step:.1f} | {read / step / 1e9:.1f} | {100 * read / step / best:.0f} % | |",
                flush=True,
            )
        del model


main()
