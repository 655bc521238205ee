"""The fixtures of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of each architecture of transformers: its `model_type` -> the path. Don't change them."""
    from tests.helpers.hugging_face import ARCHITECTURES, need_transformers, save

    need_transformers()
    root = tmp_path_factory.mktemp("models")
    return {kind: save(kind, root / kind) for kind in ARCHITECTURES}
