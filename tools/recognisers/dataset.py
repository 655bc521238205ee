"""MMAction2's `VideoDataset` on frames that are decoded already. Import it after `import_mmaction()`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmaction.datasets import VideoDataset
from mmaction.registry import DATASETS

from tools.recognisers.clips import read_frames


@DATASETS.register_module()
class DecodedVideoDataset(VideoDataset):  # type: ignore[misc]
    """The same list and pipeline; `ArrayDecode` takes the decoder's place.

    Args:
        frames: folder that `decode_clips` wrote.
        pipeline: with `DecordInit` and `DecordDecode`.
    """

    def __init__(self, frames: str, pipeline: Sequence[dict[str, Any]], **settings: Any) -> None:
        decoded = read_frames(Path(frames))
        self.decoded = decoded
        self.numbers = {clip_uri: number for number, clip_uri in enumerate(decoded.uris)}
        steps = [step for step in pipeline if step["type"] != "DecordInit"]
        steps = [{"type": "ArrayDecode"} if step["type"] == "DecordDecode" else step for step in steps]
        super().__init__(pipeline=steps, **settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return number, label and length of each listed clip."""
        listed: list[dict[str, Any]] = []
        for line in Path(self.ann_file).read_text(encoding="utf-8").splitlines():
            uri, label = line.rsplit(maxsplit=1)
            number = self.numbers[uri]
            listed.append({"number": number, "label": int(label), "total_frames": len(self.decoded[number])})
        return listed

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return the clip's annotation with its frames, `array` uint8 [T, h, w, 3]."""
        info: dict[str, Any] = super().get_data_info(idx)
        return {**info, "array": self.decoded[info["number"]]}
