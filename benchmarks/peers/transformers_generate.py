"""Sampling, and best-of-n, by Transformers' `generate`. Runs under any Python that has Transformers.

python transformers_generate.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from protocol import Work, serve
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

FOLDER = Path(sys.argv[1])
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
LINES = (FOLDER / "rows.jsonl").read_text(encoding="utf-8").splitlines()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@torch.no_grad()
def prepare() -> Work:
    """Models and prompts; tokenizing is timed, as on our side."""
    torch.manual_seed(SETTINGS["seed"])
    dtype, count = getattr(torch, SETTINGS["dtype"]), SETTINGS["num_candidates"]
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "policy", padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(FOLDER / "policy", dtype=dtype).to(DEVICE).eval()
    reward = AutoModelForSequenceClassification.from_pretrained(FOLDER / "reward", dtype=dtype).to(DEVICE).eval()
    # Sorted by length, as our side does, so that batches are padded alike.
    prompts = sorted((json.loads(line)["prompt"] for line in LINES), key=len)
    together = max(1, SETTINGS["batch_size"] // count)
    sampling = {
        "do_sample": True,
        "temperature": SETTINGS["temperature"],
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": SETTINGS["max_response_tokens"],
        "num_return_sequences": count,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }

    @torch.no_grad()
    def work() -> dict[str, Any]:
        lengths, texts = [], []
        for start in range(0, len(prompts), together):
            batch = tokenizer(prompts[start : start + together], return_tensors="pt", padding=True).to(DEVICE)
            output = policy.generate(**batch, **sampling)
            written = output[:, batch["input_ids"].shape[1] :]
            lengths += (written != tokenizer.pad_token_id).sum(1).tolist()
            if SETTINGS["stage"] == "best_of_n":
                # Read with the padding in the middle of nothing: the response's own is on the right.
                mask = torch.cat(
                    [batch["attention_mask"].repeat_interleave(count, 0), written != tokenizer.pad_token_id], 1
                )
                positions = (mask.long().cumsum(1) - 1).clamp(min=0)
                hidden = reward.base_model(input_ids=output, attention_mask=mask.long(), position_ids=positions)[0]
                last = mask.long() * torch.arange(mask.shape[1], device=DEVICE)
                scores = reward.score(hidden[torch.arange(len(hidden)), last.argmax(1)]).view(-1, count)
                best = scores.argmax(1) + torch.arange(len(scores), device=DEVICE) * count
                texts += tokenizer.batch_decode(written[best], skip_special_tokens=True)
            else:
                texts += tokenizer.batch_decode(written, skip_special_tokens=True)
        return {"response_tokens": sum(lengths) / len(lengths), "texts": len(texts)}

    return work


if __name__ == "__main__":
    serve(prepare)
