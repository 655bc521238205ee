"""The worker of the stage `patch`: mean responses, and their first-order predictions."""

from __future__ import annotations

import pyarrow as pa

from vtcav_ray.responses.passes import Responses
from vtcav_ray.responses.worker import Layer, ResponseWorker, Shard
from vtcav_ray.rows import PatchedRow, table_of


class PatchWorker(ResponseWorker):
    """The worker that makes the table `patched`."""

    def _tables(self, data: Layer, shard: Shard, found: Responses) -> dict[str, pa.Table]:
        references = len(data.reference.clips)
        rows = [
            PatchedRow(
                clip_id=shard.clips[u],
                video_id=shard.videos[u],
                class_=name,
                layer=data.name,
                response=float(found.response[u, k]),
                first_order=float(found.first_order[u, k]),
                references=references,
                model=self.tag,
            )
            for u in shard.with_response()
            for k, name in enumerate(self.classes)
        ]
        return {f"patched/layer={data.name}": table_of(rows, PatchedRow)} if rows else {}
