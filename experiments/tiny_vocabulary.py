"""Measure the benefit of training the decoder on codebooks refitted for another vocabulary size.

    python experiments/tiny_vocabulary.py [--audio DIR]

For each vocabulary size, codebooks are fitted to the latents of tiny_50hz, and its decoder is
trained on them for a short time (`experiments/train/tiny_50hz_decoder.toml`). The codec is scored
with the original and with the trained decoder, on the speech in DIR. The script writes
`results/three_axes/decoder.md`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from reporting import markdown_table, write_text
from tiny_card import asked, scores, speech

from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.training import recipe as recipes
from neuralcodec.tiny.training.train import train

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "experiments" / "train" / "tiny_50hz_decoder.toml"
OUT = ROOT / "results" / "three_axes" / "decoder.md"
SIZES = (64, 256, 1024, 4096)
DEPTHS = (2, 4, 8)
METRICS = ["pesq_wb", "stoi", "log_mel_distance"]


def main() -> None:
    """Fit, train, score and write the table."""
    given = asked(__doc__)
    recipe = recipes.read(RECIPE)
    wavs = speech(given.audio)
    rows = []
    for size in SIZES:
        sized = recipe.model_copy(update={"model": replace(recipe.model, codebook_size=size)})
        path = train(sized, given.training / f"{recipe.name}_{size}", progress=True)
        learned, frozen = Tiny(weights=path), Tiny(weights=path)
        frozen.network.decoder.load_state_dict(Tiny("50hz").network.decoder.state_dict())
        for depth in DEPTHS:
            for label, codec in (("shipped", frozen), ("trained", learned)):
                kbps = codec.encode(torch.zeros(1, 1, 16000), depth).bitrate_kbps
                rows.append([label, size, depth, kbps, *scores(codec, wavs, depth, METRICS)])
    write_text(
        OUT,
        [
            "# Training the decoder for another vocabulary size",
            "`python experiments/tiny_vocabulary.py`: the decoder of `tiny_50hz` as it is shipped, "
            f"and trained for {recipe.schedule.steps} steps on refitted codebooks of V entries. "
            f"Greedy search; means over the speech in `{given.audio}`.",
            markdown_table(["decoder", "V", "K", "kbit/s", *METRICS], rows),
        ],
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
